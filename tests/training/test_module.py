"""Tests the LightningModule: initial weights, frozen parts, learning rates and stereo networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from torch import nn
from torchvision import models

from bevdepth_core.config import StereoConfig
from bevdepth_core.model.image_encoder import ResNetStages
from bevdepth_core.model.view_transform import ego_from_frustum
from bevdepth_core.training.batch import collate
from bevdepth_core.training.criterion import criterion, depth_criterion
from bevdepth_core.training.initial_weights import load_pretrained
from bevdepth_core.training.module import (
    BEVDepthModule,
    ModelSettings,
    NonFiniteLossError,
    learning_rate_factor,
)
from tests.networks import TINY
from tests.training.runs import Noise, run, tiny_config
from tests.training.samples import noise_sample

STEREO = replace(TINY, stereo=StereoConfig(range_bounds=(2.0, 6.0, 18.0), groups=4))


def module(**settings) -> BEVDepthModule:
    return BEVDepthModule(ModelSettings(network=TINY, pretrained='none', **settings))


class OneBadSample(Noise):
    """Samples that contain noise. The boxes of sample 7 have an infinite velocity."""

    def sample(self, place: int, rng: np.random.Generator):
        sample = super().sample(place, rng)
        return (
            replace(sample, boxes=sample.boxes.index_fill(1, torch.tensor([7]), torch.inf))
            if place == 7
            else sample
        )


def test_a_loss_that_is_not_finite_stops_the_run_and_reports_the_batch(tmp_path: Path) -> None:
    source = OneBadSample()
    with pytest.raises(
        NonFiniteLossError, match=r'epoch 0, batch \d, samples .*sample 7.*box inf'
    ):
        run(tiny_config(tmp_path), source)
    assert source.seen[-1] == 'sample 7' or source.seen[-2] == 'sample 7'


def test_a_frozen_stem_has_no_gradients_and_always_stays_in_evaluation_mode() -> None:
    frozen = module(freeze_stem=True)
    stem = (frozen.model.image_encoder.backbone.conv1, frozen.model.image_encoder.backbone.bn1)
    for mode in (True, False, True):
        frozen.train(mode)
        assert not stem[1].training
        assert frozen.model.image_encoder.backbone.layer1[0].bn1.training == mode
    assert not any(parameter.requires_grad for layer in stem for parameter in layer.parameters())


def test_the_stem_is_trained_if_freeze_stem_is_false() -> None:
    backbone = module(freeze_stem=False).model.image_encoder.backbone
    assert backbone.bn1.training
    assert backbone.conv1.weight.requires_grad


def test_the_setting_heatmap_bias_is_the_initial_bias_of_the_heatmap_of_every_task() -> None:
    for task in module(heatmap_bias=-2.19).model.head.tasks:
        assert torch.equal(
            task['heatmap'][-1].bias, torch.full_like(task['heatmap'][-1].bias, -2.19)
        )
    assert module().model.head.tasks[0]['heatmap'][-1].bias.abs().max() < 1


def test_the_loss_decreases_when_one_batch_is_repeated() -> None:
    trained = module(heatmap_bias=-2.19)
    batch = collate(
        [noise_sample(place, np.random.default_rng(place)) for place in range(2)], TINY
    )
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01)
    losses = []
    for _ in range(20):
        losses.append(
            criterion(
                trained.model(batch.inputs(TINY.image)), batch.tasks, batch.depth_bins, (1.0,) * 10
            )
        )
        optimizer.zero_grad()
        losses[-1].total.backward()
        optimizer.step()
    for name in ('heatmap', 'box', 'depth'):
        first, last = (getattr(loss, name).sum() for loss in (losses[0], losses[-1]))
        assert last < 0.7 * first, name


def test_the_seed_determines_the_initial_weights_and_the_global_generator_is_unchanged() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    weights = [
        BEVDepthModule(ModelSettings(network=TINY, pretrained='none'), seed)
        .model.head.shared[0]
        .weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_only_the_key_frame_has_gradients_and_all_frames_update_the_image_batch_norms() -> None:
    trained = module()
    batch = collate(
        [noise_sample(place, np.random.default_rng(place)) for place in range(2)], TINY
    )
    inputs = batch.inputs(TINY.image)
    images = inputs.images.requires_grad_()
    trained.model(inputs).tasks[0].heatmap.sum().backward()
    assert images.grad[:, 0].any()
    assert not images.grad[:, 1].any()
    assert trained.model.image_encoder.backbone.layer1[0].bn1.num_batches_tracked == 2
    assert trained.model.bev_encoder.trunk.bn1.num_batches_tracked == 1


def test_geometry_has_the_same_values_with_and_without_mixed_precision() -> None:
    batch = collate([noise_sample(0, np.random.default_rng(0))], TINY)
    matrices = batch.matrices.frame(0)
    exact = ego_from_frustum(matrices)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(ego_from_frustum(matrices), exact)


def test_the_learning_rate_decreases_at_its_milestones() -> None:
    settings = ModelSettings(milestones=(19, 23))
    factors = [learning_rate_factor(10 * epoch, 10, 240, settings) for epoch in range(24)]
    assert factors == pytest.approx([1.0] * 19 + [0.1] * 4 + [0.01])


def test_the_learning_rate_warms_up_and_follows_a_cosine_to_zero() -> None:
    settings = ModelSettings(warmup_steps=4, schedule='cosine')
    factors = [learning_rate_factor(step, 10, 100, settings) for step in range(101)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4]
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[100] == pytest.approx(0)


def test_the_learning_rate_is_proportional_to_the_samples_per_step(tmp_path: Path) -> None:
    run(tiny_config(tmp_path, max_steps=1, accumulate_grad_batches=2, max_epochs=1))
    schedule = torch.load(tmp_path / 'last.ckpt', weights_only=True)['lr_schedulers'][0]
    assert schedule['base_lrs'] == [pytest.approx(0.05 * 4 / 64)]


def test_pretrained_weights_are_read_from_a_file(tmp_path: Path) -> None:
    source = models.resnet18()
    torch.save(source.state_dict(), tmp_path / 'resnet18.pth')
    backbone = ResNetStages(18)
    load_pretrained(backbone, str(tmp_path / 'resnet18.pth'), 18)
    assert torch.equal(backbone.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('missing.pth', 'missing.pth does not exist'),
        ('IMAGENET1K_V9', 'torchvision has no weights IMAGENET1K_V9 for ResNet-18'),
    ],
)
def test_the_message_about_missing_pretrained_weights_names_the_weights(
    source: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_pretrained(ResNetStages(18), source, 18)


def test_pretrained_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save(models.resnet34().state_dict(), tmp_path / 'resnet34.pth')
    with pytest.raises(ValueError, match='does not fit a ResNet-18'):
        load_pretrained(ResNetStages(18), str(tmp_path / 'resnet34.pth'), 18)


@pytest.mark.parametrize('content', [b'', b'no weights', b'PK\x03\x04no weights'])
def test_the_message_about_a_damaged_file_of_pretrained_weights_names_the_file(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / 'resnet18.pth').write_bytes(content)
    with pytest.raises(ValueError, match=r'resnet18\.pth is damaged or contains no weights'):
        load_pretrained(ResNetStages(18), str(tmp_path / 'resnet18.pth'), 18)


def test_the_message_about_a_file_without_weights_names_the_file(tmp_path: Path) -> None:
    torch.save([1.0], tmp_path / 'list.pth')
    with pytest.raises(ValueError, match=r'list\.pth is damaged or contains no weights'):
        load_pretrained(ResNetStages(18), str(tmp_path / 'list.pth'), 18)


def test_a_failed_download_of_pretrained_weights_reports_the_remedy(monkeypatch) -> None:
    def unreachable(*args, **kwargs):
        raise URLError('no network')

    monkeypatch.setattr('torchvision.models._api.load_state_dict_from_url', unreachable)
    with pytest.raises(
        ConnectionError, match=r'resnet18.*could not be downloaded.*--model.pretrained none'
    ):
        load_pretrained(ResNetStages(18), 'IMAGENET1K_V1', 18)


class OneDeviceTrainer:
    """Replaces a trainer. It has only the attributes that ``BEVDepthModule.setup`` reads."""

    def __init__(self, device: str) -> None:
        self.strategy = self
        self.root_device = torch.device(device)


@pytest.mark.parametrize(('device', 'channels_last'), [('cpu', False), ('cuda:0', True)])
def test_convolution_weights_have_the_layout_channels_last_only_on_cuda(
    device: str, channels_last: bool
) -> None:
    trained = BEVDepthModule(ModelSettings(network=STEREO, pretrained='none'))
    trained._trainer = OneDeviceTrainer(device)
    trained.setup('fit')
    convolutions = [part for part in trained.model.modules() if isinstance(part, nn.Conv2d)]
    weights = [part.weight for part in convolutions if part.weight[0, 0].numel() > 1]
    assert weights
    assert all(
        weight.is_contiguous(memory_format=torch.channels_last)
        is (channels_last or weight.shape[1] == 1)
        for weight in weights
    )


class Placed(BEVDepthModule):
    """A module whose rank and epoch a test can set."""

    current_epoch, global_rank = 0, 0

    def random_number(self, epoch: int = 0, step: int = 0, rank: int = 0) -> float:
        """Return the first random number after the start of a training step."""
        self.current_epoch, self.global_rank = epoch, rank
        self.on_train_batch_start(None, step)
        return torch.rand(()).item()


def test_the_random_numbers_of_a_step_differ_between_ranks_steps_epochs_and_seeds() -> None:
    settings = ModelSettings(network=TINY, pretrained='none')
    with torch.random.fork_rng(devices=()):
        first, second = Placed(settings, seed=1), Placed(settings, seed=2)
        places = [{}, {'epoch': 1}, {'step': 1}, {'rank': 1}]
        numbers = [first.random_number(**place) for place in places]
        assert [first.random_number(**place) for place in places] == numbers
        assert len({*numbers, second.random_number()}) == 5


def test_the_losses_of_a_stereo_network_decrease_when_one_batch_is_repeated() -> None:
    trained = BEVDepthModule(
        ModelSettings(network=STEREO, pretrained='none', freeze_stem=False, heatmap_bias=-2.19)
    )
    noise = [noise_sample(place, np.random.default_rng(place)) for place in range(2)]
    batch = collate(noise, STEREO)
    optimizer = torch.optim.AdamW(trained.parameters(), lr=0.01)
    losses = []
    for _ in range(15):
        losses.append(trained._losses(batch)[0])
        optimizer.zero_grad()
        losses[-1].total.backward()
        optimizer.step()
    without = [name for name, weight in trained.named_parameters() if weight.grad is None]
    assert without == []
    for name in ('heatmap', 'box', 'depth'):
        first, last = (getattr(loss, name).sum() for loss in (losses[0], losses[-1]))
        assert last < 0.8 * first, name


def test_the_depth_loss_of_a_stereo_network_uses_the_unmasked_depth() -> None:
    module = BEVDepthModule(
        ModelSettings(network=STEREO, pretrained='none', objective='depth')
    ).eval()
    batch = collate([noise_sample(0, np.random.default_rng(0))], STEREO)
    before = module._losses(batch)[0].depth
    module.model.stereo.mask[-1].bias.data += 3
    assert torch.equal(module._losses(batch)[0].depth, before)
    module.model.stereo.downsample[-1].bias.data[0] += 3
    assert not torch.equal(module._losses(batch)[0].depth, before)
    outputs = module.model(batch.inputs(STEREO.image))
    assert torch.equal(
        depth_criterion(outputs.depth, batch.depth_bins).depth, module._losses(batch)[0].depth
    )


def test_in_a_stereo_network_the_depth_objective_trains_every_part_that_computes_depth() -> None:
    module = BEVDepthModule(ModelSettings(network=STEREO, pretrained='none', objective='depth'))
    batch = collate([noise_sample(0, np.random.default_rng(0))], STEREO)
    module._losses(batch)[0].total.backward()
    trained = {
        name.removeprefix('model.').rsplit('.', 1)[0]
        for name, weight in module.named_parameters()
        if weight.grad is not None
    }
    parts = {'.'.join(name.split('.')[:2]) for name in trained}
    assert parts == {
        *(f'depth_net.{name}' for name in ('depth_gate', 'depth_blocks', 'pyramid', 'deform')),
        *('depth_net.mono_head', 'depth_net.hypothesis_head'),
        *('stereo.similarity', 'stereo.downsample'),
    }
    assert all(weight.grad is not None for weight in module.parameters() if weight.requires_grad)
    assert not module.model.stereo.mask[1].training
