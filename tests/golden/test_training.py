"""Compares targets, losses and gradients with those of the official code."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from bevdepth_core.config import DepthBins
from bevdepth_core.official_layout import to_official_name
from bevdepth_core.training.targets import depth_targets
from bevdepth_core.types import ModelOutputs
from tests.golden.training_parity import (
    Case,
    forward_with_fixed_norms,
    forward_with_moving_norms,
    gradient_distances,
    official_targets,
    require_losses,
    sparse_depth,
    statistics_distances,
    total_gradient,
)
from tests.reference import golden

TOLERANCE = {'2key': 1e-3, '2key_da': 5e-3}


@pytest.fixture(scope='module', params=['2key', '2key_da'])
def variant(request) -> str:
    return request.param


@pytest.fixture(scope='module')
def tolerance(variant: str) -> float:
    return TOLERANCE[variant]


@pytest.fixture(scope='module')
def case(variant: str) -> Case:
    return Case.of(variant, *golden(f'train_{variant}'))


@pytest.fixture(scope='module')
def fixed_norms(case: Case) -> ModelOutputs:
    return forward_with_fixed_norms(case)


@pytest.fixture(scope='module')
def moving_norms(case: Case) -> tuple[ModelOutputs, dict[str, torch.Tensor]]:
    return forward_with_moving_norms(case)


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
    case: Case, fixed_norms: ModelOutputs, tolerance: float, boxes: str
) -> None:
    require_losses(case.losses(fixed_norms, boxes), case.reference['bn_eval'][boxes], tolerance)


def test_losses_with_moving_norms_are_the_official_ones(
    case: Case, moving_norms, tolerance: float
) -> None:
    require_losses(case.losses(moving_norms[0], 'made'), case.reference['bn_train'], tolerance)


def test_gradients_are_the_official_ones(
    case: Case, fixed_norms: ModelOutputs, tolerance: float
) -> None:
    distances = gradient_distances(case)
    assert {name: far for name, far in distances.items() if far > tolerance} == {}
    expected = case.reference['bn_eval']['grad_total_l2']
    assert total_gradient(case) == pytest.approx(expected, rel=tolerance)


def test_running_statistics_after_a_step_are_the_official_ones(
    case: Case, moving_norms, tolerance: float
) -> None:
    distances = statistics_distances(case, moving_norms[1])
    assert {name: far for name, far in distances.items() if far > tolerance} == {}


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
