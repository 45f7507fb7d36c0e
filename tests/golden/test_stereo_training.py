"""Compares losses, gradients and batch norm statistics of a stereo model with the numbers of the
official code. Our model uses the official voxel indices and the official poses for stereo
matching, so that rounding errors of these inputs do not affect the comparison."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bevdepth_core.types import ModelOutputs
from tests.core.stereo_parity import official_poses, stored_cells
from tests.golden.training_parity import (
    Case,
    forward_with_norms_in_eval_mode,
    forward_with_norms_in_training_mode,
    gradient_distances,
    require_losses,
    statistics_distances,
    total_gradient,
)
from tests.reference import stereo_golden

EVAL_LOSSES = 1e-5
"""Relative tolerance of losses with batch norms in evaluation mode. The official float32 and
float64 runs differ by 3e-6."""
TRAINING_LOSSES = 5e-3
"""Relative tolerance of losses with batch norms in training mode. The heatmap losses of the tasks
deviate by up to 1.7e-3. If the images change by less than a rounding error of float32, these
losses change by up to 5e-4 (docs/PARITY.md). The reference has no float64 run of this step."""
TOLERANCE = 1e-3
"""Relative tolerance of gradients, and of the running statistics after a forward pass with batch
norms in training mode. It equals the tolerance of the model ``2key`` in test_training.py."""
NOISE_FACTOR = 3
"""The relative tolerance of a gradient is this factor times the relative difference between the
gradients of the official float32 and float64 runs, but at least ``TOLERANCE``. This difference is
up to 1.8e-2, because the refinement steps amplify rounding errors."""
STORED_NOISE_FACTOR = 4
"""Same as ``NOISE_FACTOR``, for the stored elements of gradients. The measured factor is 2.7 with
AVX-512 instructions and 3.1 with AVX2 instructions."""
NO_GRADIENT = 'backbone.similarity_net.2.bias'
"""Parameter that is not compared. A softmax follows this bias, so its gradient consists only
of rounding errors."""


@pytest.fixture(scope='module')
def case() -> Case:
    return Case.of('stereo_2key', *stereo_golden('stereo_train_2key'))


@pytest.fixture(scope='module')
def eval_outputs(case: Case) -> ModelOutputs:
    with official_poses(case.arrays), stored_cells():
        return forward_with_norms_in_eval_mode(case)


@pytest.fixture(scope='module')
def training_results(case: Case) -> tuple[ModelOutputs, dict[str, torch.Tensor]]:
    with official_poses(case.arrays), stored_cells():
        return forward_with_norms_in_training_mode(case)


@pytest.mark.parametrize('boxes', ['real', 'made'])
def test_losses_with_batch_norms_in_eval_mode_equal_the_official_losses(
    case: Case, eval_outputs: ModelOutputs, boxes: str
) -> None:
    require_losses(case.losses(eval_outputs, boxes), case.reference['bn_eval'][boxes], EVAL_LOSSES)


def test_losses_with_batch_norms_in_training_mode_equal_the_official_losses(
    case: Case, training_results
) -> None:
    require_losses(
        case.losses(training_results[0], 'made'), case.reference['bn_train'], TRAINING_LOSSES
    )


def test_running_statistics_after_a_forward_pass_equal_the_official_statistics(
    case: Case, training_results
) -> None:
    distances = statistics_distances(case, training_results[1])
    assert {name: far for name, far in distances.items() if far > TOLERANCE} == {}


def gradient_tolerance(case: Case, name: str, factor: float = NOISE_FACTOR) -> float:
    noise = case.reference['fp32_minus_fp64']['gradients_rel_l2'].get(name, 0.0)
    return max(TOLERANCE, factor * noise)


def test_gradients_equal_the_official_gradients(case: Case, eval_outputs: ModelOutputs) -> None:
    distances = gradient_distances(case)
    assert {
        name: far
        for name, far in distances.items()
        if name != NO_GRADIENT and far > gradient_tolerance(case, name)
    } == {}
    expected = case.reference['meta']['grad_total_l2']
    assert total_gradient(case) == pytest.approx(expected, rel=TOLERANCE)


def test_stored_gradient_elements_of_the_stereo_networks_equal_the_official_elements(
    case: Case, eval_outputs: ModelOutputs
) -> None:
    gradients = {
        case.official_name(name): parameter.grad
        for name, parameter in case.module.model.named_parameters()
    }
    stored = {name.split('/')[1] for name in case.arrays if name.startswith('grad/')}
    assert len(stored) > 20
    missed = {}
    for name in stored - {NO_GRADIENT}:
        index, expected = (case.arrays[f'grad/{name}/{part}'] for part in ('idx', 'val'))
        found = gradients[name].flatten().numpy()[index]
        distance = np.linalg.norm(found - expected) / np.linalg.norm(expected)
        if distance > gradient_tolerance(case, name, STORED_NOISE_FACTOR):
            missed[name] = distance
    assert missed == {}
