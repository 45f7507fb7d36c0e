"""Tests training that starts from a checkpoint, on data of another vehicle."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bevdepth_core.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from bevdepth_core.config import HeadConfig, HeadTask
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.augment import Augmentation, ImageAugmentation
from bevdepth_core.nuscenes.rig_augment import RigAugmentation
from bevdepth_core.training.batch import collate
from bevdepth_core.training.data import DataSettings, open_nuscenes, open_validation
from bevdepth_core.training.initial_weights import load_initial
from bevdepth_core.training.module import BEVDepthModule, ModelSettings
from bevdepth_core.training.train import main
from tests.core.nuscenes.own_rig import SPLIT, VERSION, OwnBox, write_own_dataset
from tests.networks import TINY
from tests.training.tiny_runs import command, tiny_checkpoint

DEPTH_BRANCH = ('depth_gate', 'depth_blocks', 'pyramid', 'deform', 'depth_head')


def with_tasks(*tasks: tuple[str, ...]):
    """Return the tiny network with one head task for each tuple of classes in ``tasks``."""
    return replace(TINY, head=HeadConfig(4, tuple(HeadTask(classes, 4.0) for classes in tasks)))


def is_depth_branch(name: str) -> bool:
    return any(f'depth_net.{part}.' in name for part in DEPTH_BRANCH)


def settings_of(root: Path, rig: RigAugmentation | None = None, **changes) -> DataSettings:
    augmentation = Augmentation(ImageAugmentation((0.88, 1.25), relative=True), rig=rig)
    values = {'workers': 0, 'augmentation': augmentation} | changes
    return DataSettings(str(root), VERSION, SPLIT, str(root.parent / 'cache'), **values)


def test_heads_with_the_same_classes_are_loaded_and_other_heads_keep_their_initial_weights(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_checkpoint(tmp_path)
    model = BEVDepth(with_tasks(('pedestrian', 'traffic_cone'), ('tram',), ('car',)))
    source, before = load_checkpoint(path).state_dict(), BEVDepth.state_dict(model)
    new = {name: tensor.clone() for name, tensor in before.items() if '.tasks.1.' in name}
    with caplog.at_level(logging.INFO):
        load_initial(model, str(path))
    after = model.state_dict()
    for name, tensor in after.items():
        number = {'head.tasks.0.': 5, 'head.tasks.2.': 0}
        kept = next((prefix for prefix in number if name.startswith(prefix)), None)
        if name in new:
            assert torch.equal(tensor, new[name]), name
        elif kept:
            theirs = name.replace(kept, f'head.tasks.{number[kept]}.')
            assert torch.equal(tensor, source[theirs]), name
        else:
            assert torch.equal(tensor, source[name]), name
    assert [record.getMessage() for record in caplog.records] == [
        'model.init: copied the head for pedestrian, traffic_cone from the checkpoint',
        'model.init: the head for tram has random weights: '
        'the checkpoint has no task of these classes',
        'model.init: copied the head for car from the checkpoint',
    ]


def test_a_checkpoint_of_another_network_is_rejected(tmp_path: Path) -> None:
    model = BEVDepth(replace(TINY, bev_encoder=replace(TINY.bev_encoder, base_channels=16)))
    with pytest.raises(CheckpointError, match=r'differs from model\.network in bev_encoder'):
        load_initial(model, str(tiny_checkpoint(tmp_path)))


@pytest.mark.parametrize(
    'tasks', [(('truck',), ('car', 'tram')), (('tram', 'car'), ('truck',)), (('car', 'truck'),)]
)
def test_each_box_has_its_target_in_the_heatmap_of_its_class(tmp_path: Path, tasks) -> None:
    network = with_tasks(*tasks)
    centers = {'car': (8.5, 1.5), 'truck': (6.5, -2.5), 'tram': (7.5, 4.5)}
    boxes = [OwnBox(name, *center) for name, center in centers.items()]
    root = write_own_dataset(tmp_path / 'data', boxes)
    source = open_nuscenes(settings_of(root), network)
    batch = collate([source[0], source[1]], network)
    for task, targets in zip(tasks, batch.tasks, strict=True):
        for place, name in enumerate(task):
            x, y = (int((value + 12.8) / 1.6) for value in centers[name])
            peaks = (targets.heatmap[:, place] == 1).nonzero().tolist()
            assert peaks == [[0, y, x], [1, y, x]], name


@pytest.mark.parametrize(('batch_size', 'rig'), [(1, None), (1, RigAugmentation(min_cameras=1))])
def test_settings_that_allow_a_batch_with_only_one_image_are_rejected(
    tmp_path: Path, batch_size: int, rig: RigAugmentation | None
) -> None:
    root = write_own_dataset(tmp_path / 'data', cameras=('front',) if rig is None else ('a', 'b'))
    changes = {'rig': rig, 'batch_size': batch_size}
    with pytest.raises(ValueError, match=r'set data.batch_size to 2 or more'):
        open_nuscenes(settings_of(root, **changes), TINY)
    open_nuscenes(settings_of(root, **changes | {'batch_size': 2}), TINY)
    if rig is not None:
        open_nuscenes(settings_of(root, batch_size=1), TINY)


def test_class_balanced_sampling_uses_the_classes_of_the_network(
    tmp_path: Path,
) -> None:
    network = with_tasks(('truck',), ('car',))
    root = write_own_dataset(tmp_path / 'data', frames=4)
    source = open_nuscenes(settings_of(root, class_balanced=True), network)
    assert len(source) == 8


@pytest.mark.parametrize(('samples', 'chosen'), [(0, 5), (2, 2), (5, 5), (9, 5)])
def test_validation_samples_are_spread_over_the_split(
    tmp_path: Path, samples: int, chosen: int
) -> None:
    root = write_own_dataset(tmp_path / 'data', frames=5)
    settings = settings_of(root, val_split=SPLIT, val_samples=samples)
    names = [sample.name for sample in (open_validation(settings, TINY)[i] for i in range(chosen))]
    assert len(set(names)) == chosen == len(open_validation(settings, TINY))
    assert names == sorted(names)
    assert chosen > 2 or names == ['drive-1-0', 'drive-1-2']


def test_only_the_depth_branch_changes_when_depth_is_adapted(tmp_path: Path) -> None:
    root = write_own_dataset(tmp_path / 'data', [], frames=4)
    path, output = tiny_checkpoint(tmp_path), tmp_path / 'run'
    no_average = ('--trainer.averaging=null', '--model.warmup_steps=0')
    main(command('adapt_depth', root, output, f'--model.init={path}', *no_average))
    before = load_checkpoint(path).state_dict()
    after = load_checkpoint(output / 'weights/epoch_001.safetensors').state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(map(is_depth_branch, changed))
    assert any(name.endswith('running_mean') for name in changed)
    assert 'depth_net.depth_head.weight' in changed


def test_adapting_depth_is_rejected_for_a_dataset_without_a_lidar(tmp_path: Path) -> None:
    root = write_own_dataset(tmp_path / 'data', lidar=None)
    with pytest.raises(ValueError, match=r'no lidar, which model\.objective depth needs'):
        open_nuscenes(settings_of(root), TINY, needs_boxes=False)
    assert len(open_nuscenes(settings_of(root), TINY)) == 3


def test_frozen_parts_stay_in_evaluation_mode_when_depth_is_adapted() -> None:
    module = BEVDepthModule(ModelSettings(network=TINY, pretrained='none', objective='depth'))
    for mode in (True, False, True):
        module.train(mode)
        for name, layer in module.model.named_modules():
            if not list(layer.children()):
                assert layer.training == (mode and is_depth_branch(name + '.')), name
    trainable = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert trainable == {n for n, _ in module.model.named_parameters() if is_depth_branch(n)}


def test_fine_tuning_validates_each_epoch_and_writes_a_best_checkpoint(tmp_path: Path) -> None:
    root = write_own_dataset(tmp_path / 'data', frames=4)
    output = tmp_path / 'run'
    more = ('--trainer.max_epochs=2', '--data.val_samples=2', f'--data.val_split={SPLIT}')
    init = f'--model.init={tiny_checkpoint(tmp_path)}'
    main(command('fine_tune', root, output, init, *more))
    header, *rows = (output / 'csv/version_0/metrics.csv').read_text().splitlines()
    columns = header.split(',')
    assert {'val/mAP', 'val/NDS', 'val/loss/total', 'val/loss/depth'} <= set(columns)
    scores = [row.split(',')[columns.index('val/NDS')] for row in rows]
    assert len([score for score in scores if score]) == 2
    assert (output / 'best.ckpt').is_file()


def test_weights_of_a_fine_tuned_run_have_the_class_list_of_the_initial_checkpoint(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'own.safetensors'
    save_checkpoint(BEVDepth(with_tasks(('truck',), ('car',))), path)
    root = write_own_dataset(tmp_path / 'data', cameras=('a', 'b', 'c'), lidar='vlp')
    main(command('fine_tune', root, tmp_path / 'run', f'--model.init={path}'))
    weights = load_checkpoint(tmp_path / 'run/weights/epoch_001.safetensors')
    assert weights.config.class_names == ('truck', 'car')
