"""Compares targets, losses and gradients with the numbers of the official code."""

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
    forward_with_norms_in_eval_mode,
    forward_with_norms_in_training_mode,
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
def eval_outputs(case: Case) -> ModelOutputs:
    return forward_with_norms_in_eval_mode(case)


@pytest.fixture(scope='module')
def training_results(case: Case) -> tuple[ModelOutputs, dict[str, torch.Tensor]]:
    return forward_with_norms_in_training_mode(case)


def test_depth_bins_equal_the_official_depth_bins() -> None:
    _, arrays = golden('train_2key')
    ours = depth_targets(sparse_depth(), DepthBins())
    assert np.array_equal(ours.numpy().ravel(), arrays['downsampled_gt_depth/bin_or_minus1'])


@pytest.mark.parametrize('boxes', ['real', 'made'])
def test_head_targets_equal_the_official_targets(boxes: str) -> None:
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
def test_losses_with_batch_norms_in_eval_mode_equal_the_official_losses(
    case: Case, eval_outputs: ModelOutputs, tolerance: float, boxes: str
) -> None:
    require_losses(case.losses(eval_outputs, boxes), case.reference['bn_eval'][boxes], tolerance)


def test_losses_with_batch_norms_in_training_mode_equal_the_official_losses(
    case: Case, training_results, tolerance: float
) -> None:
    require_losses(case.losses(training_results[0], 'made'), case.reference['bn_train'], tolerance)


def test_gradients_equal_the_official_gradients(
    case: Case, eval_outputs: ModelOutputs, tolerance: float
) -> None:
    distances = gradient_distances(case)
    assert {name: far for name, far in distances.items() if far > tolerance} == {}
    expected = case.reference['bn_eval']['grad_total_l2']
    assert total_gradient(case) == pytest.approx(expected, rel=tolerance)


def test_running_statistics_after_a_forward_pass_equal_the_official_statistics(
    case: Case, training_results, tolerance: float
) -> None:
    distances = statistics_distances(case, training_results[1])
    assert {name: far for name, far in distances.items() if far > tolerance} == {}


def test_frozen_parameters_and_batch_norms_are_the_same_as_in_the_official_code(
    case: Case,
) -> None:
    case.module.train()
    frozen = [
        to_official_name(name)
        for name, parameter in case.module.model.named_parameters()
        if not parameter.requires_grad
    ]
    in_eval_mode = [
        name
        for name, layer in case.module.model.named_modules()
        if isinstance(layer, nn.BatchNorm2d) and not layer.training
    ]
    assert frozen == case.reference['trainable']['frozen']
    assert [to_official_name(name + '.')[:-1] for name in in_eval_mode] == case.reference[
        'bn_train_modules_in_eval_after_train_call'
    ]
    trained = sum(
        parameter.numel() for parameter in case.module.parameters() if parameter.requires_grad
    )
    assert trained == case.reference['trainable']['n_requires_grad']
