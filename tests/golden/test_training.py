"""Compares targets, losses and gradients with those of the official code."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from bevdepth_core.config import DepthBins, load_model_config
from bevdepth_core.official_layout import to_official_name
from bevdepth_core.training.criterion import Losses, criterion
from bevdepth_core.training.module import BEVDepthModule, ModelSettings
from bevdepth_core.training.targets import TaskTargets, center_targets, depth_targets
from bevdepth_core.types import CameraMatrices, ModelInputs, ModelOutputs
from tests.core.parity import real_images
from tests.reference import PRESETS, ROOT, fill, golden, uniform

TOLERANCE = {'2key': 1e-3, '2key_da': 5e-3}
CANCELLED = 1e-4
BOX_MAPS = ('reg', 'height', 'dim', 'rot', 'vel')


@dataclass
class Case:
    """One golden case and what this code computes for it."""

    tolerance: float
    reference: dict
    arrays: dict[str, np.ndarray]
    module: BEVDepthModule
    inputs: ModelInputs
    depth_bins: torch.Tensor

    def losses(self, outputs: ModelOutputs, boxes: str) -> Losses:
        return criterion(
            outputs,
            official_targets(self.arrays, boxes),
            self.depth_bins,
            self.module.settings.code_weights,
        )


@pytest.fixture(scope='module', params=['2key', '2key_da'])
def case(request) -> Case:
    reference, arrays = golden(f'train_{request.param}')
    network = load_model_config(ROOT / 'config' / 'models' / f'{PRESETS[request.param]}.yaml')
    module = BEVDepthModule(ModelSettings(network=network, pretrained='none'))
    fill(module.model)
    matrices = (
        torch.from_numpy(arrays[f'in/{name}'])
        for name in ('sensor2ego_mats', 'intrin_mats', 'ida_mats', 'bda_mat')
    )
    inputs = ModelInputs(real_images().expand(1, 2, -1, -1, -1, -1), CameraMatrices(*matrices))
    depth_bins = depth_targets(sparse_depth(), network.depth_bins)
    return Case(TOLERANCE[request.param], reference, arrays, module, inputs, depth_bins)


@pytest.fixture(scope='module')
def forward_with_fixed_norms(case: Case) -> ModelOutputs:
    """One forward and backward with every batch norm in evaluation and without dropout; gradients
    stay in the module."""
    fill(case.module.model)
    case.module.train()
    for layer in case.module.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm | nn.Dropout):
            layer.eval()
    outputs = case.module.model(case.inputs)
    case.losses(outputs, 'made').total.backward()
    return ModelOutputs(
        tuple(
            type(maps)(**{name: getattr(maps, name).detach() for name in (*BOX_MAPS, 'heatmap')})
            for maps in outputs.tasks
        ),
        outputs.depth.detach(),
    )


@pytest.fixture(scope='module')
def forward_with_moving_norms(case: Case) -> tuple[ModelOutputs, dict[str, torch.Tensor]]:
    """One forward in training mode but for dropout, and the state after it."""
    fill(case.module.model)
    case.module.train()
    case.module.model.depth_net.pyramid.dropout.eval()
    with torch.no_grad():
        outputs = case.module.model(case.inputs)
    return outputs, {
        name: tensor.clone() for name, tensor in case.module.model.state_dict().items()
    }


def official_targets(arrays: dict[str, np.ndarray], boxes: str) -> tuple[TaskTargets, ...]:
    boxes, labels = (
        torch.from_numpy(arrays[f'gt/{boxes}/b0/{name}']) for name in ('boxes', 'labels')
    )
    return center_targets(boxes, labels.long(), ModelSettings().network)


def sparse_depth() -> torch.Tensor:
    shape = (1, 6, 256, 704)
    depth = np.where(
        uniform('depth_mask', shape) > 0.99, 1 + 32 * (uniform('depth_value', shape) + 1), 0
    )
    return torch.from_numpy(depth.astype(np.float32))


def test_depth_bins_equal_the_official_ones() -> None:
    _, arrays = golden('train_2key')
    ours = depth_targets(sparse_depth(), DepthBins())
    assert np.array_equal(ours.numpy().ravel(), arrays['downsampled_gt_depth/bin_or_minus1'])


@pytest.mark.parametrize('boxes', ['real', 'made'])
def test_head_targets_are_the_official_ones(boxes: str) -> None:
    _, arrays = golden('train_2key')
    for task, targets in enumerate(official_targets(arrays, boxes)):
        stored = f'targets/{boxes}/task{task}'
        heatmap = targets.heatmap.numpy().ravel()
        assert np.array_equal(heatmap.nonzero()[0], arrays[f'{stored}/heatmap/nonzero_idx'])
        np.testing.assert_allclose(
            heatmap[heatmap.nonzero()], arrays[f'{stored}/heatmap/nonzero_val'], rtol=1e-5
        )
        assert np.array_equal(
            targets.cell[:, 1] * 128 + targets.cell[:, 0], arrays[f'{stored}/b0/inds']
        )
        np.testing.assert_allclose(
            targets.box, arrays[f'{stored}/b0/anno_box'], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize('boxes', ['real', 'made'])
def test_losses_with_fixed_norms_are_the_official_ones(
    case: Case, forward_with_fixed_norms: ModelOutputs, boxes: str
) -> None:
    require_losses(
        case.losses(forward_with_fixed_norms, boxes),
        case.reference['bn_eval'][boxes],
        case.tolerance,
    )


def test_losses_with_moving_norms_are_the_official_ones(
    case: Case, forward_with_moving_norms
) -> None:
    require_losses(
        case.losses(forward_with_moving_norms[0], 'made'),
        case.reference['bn_train'],
        case.tolerance,
    )


def require_losses(ours: Losses, official: dict, tolerance: float) -> None:
    np.testing.assert_allclose(ours.depth.item(), official['depth_loss'], rtol=tolerance)
    np.testing.assert_allclose(ours.detection.item(), official['detection_loss'], rtol=tolerance)
    np.testing.assert_allclose(ours.total.item(), official['total'], rtol=tolerance)
    np.testing.assert_allclose(ours.heatmap, official['heatmap_loss_per_task'], rtol=tolerance)
    np.testing.assert_allclose(ours.box, official['bbox_loss_per_task'], rtol=tolerance)


def test_gradients_are_the_official_ones(
    case: Case, forward_with_fixed_norms: ModelOutputs
) -> None:
    official = case.reference['bn_eval']['grad']
    ours = {
        to_official_name(name): parameter.grad
        for name, parameter in case.module.model.named_parameters()
    }
    assert ours.keys() == official.keys()
    assert [name for name, gradient in ours.items() if gradient is None] == case.reference[
        'trainable'
    ]['frozen']
    total = 0.0
    wrong = {}
    for name, gradient in ours.items():
        if gradient is None:
            continue
        values, expected = gradient.double(), official[name]
        total += values.square().sum().item()
        found = {'l2': values.norm(), 'abssum': values.abs().sum(), 'sum': values.sum()}
        # A bias whose errors cancel has a gradient of exactly 0 there, of some 1e-8 here.
        scales = {key: max(expected[key if key == 'l2' else 'abssum'], CANCELLED) for key in found}
        distance = max(abs(found[key].item() - expected[key]) / scales[key] for key in found)
        if distance > case.tolerance:
            wrong[name] = distance
    assert wrong == {}
    assert total**0.5 == pytest.approx(
        case.reference['bn_eval']['grad_total_l2'], rel=case.tolerance
    )


def test_running_statistics_after_a_step_are_the_official_ones(
    case: Case, forward_with_moving_norms
) -> None:
    state = {
        to_official_name(name): tensor for name, tensor in forward_with_moving_norms[1].items()
    }
    for name, expected in case.reference['bn_train']['running_stats_after_one_forward'].items():
        if re.search('num_batches_tracked', name):
            assert state[name].item() == expected, name
        else:
            assert state[name].double().norm().item() == pytest.approx(
                expected['l2'], rel=case.tolerance
            ), name


def test_the_frozen_layers_are_those_of_the_official_code(case: Case) -> None:
    case.module.train()
    frozen = [
        to_official_name(name)
        for name, parameter in case.module.model.named_parameters()
        if not parameter.requires_grad
    ]
    resting = [
        name
        for name, layer in case.module.model.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and not layer.training
    ]
    assert frozen == case.reference['trainable']['frozen']
    assert [to_official_name(name + '.')[:-1] for name in resting] == case.reference[
        'bn_train_modules_in_eval_after_train_call'
    ]
    trained = sum(
        parameter.numel() for parameter in case.module.parameters() if parameter.requires_grad
    )
    assert trained == case.reference['trainable']['n_requires_grad']
