"""The batched filter equals the textbook formulas, which are applied to one object at a time."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.tracking.kalman import (
    POSITION,
    VELOCITY,
    inverse_2x2,
    log_determinant,
    mahalanobis_squared,
    predict,
    update,
)

COUNT = 5


def random_covariances(rng: np.random.Generator, size: int) -> np.ndarray:
    roots = rng.normal(size=(COUNT, size, size))
    return roots @ np.swapaxes(roots, 1, 2) + 0.5 * np.eye(size)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_prediction_moves_with_the_velocity_and_adds_noise_of_the_acceleration(rng):
    mean, covariance = rng.normal(size=(COUNT, 4)), random_covariances(rng, 4)
    acceleration, seconds = rng.uniform(0.5, 3, COUNT), 0.4
    moved, grown = predict(mean, covariance, seconds, acceleration)
    for index in range(COUNT):
        step = np.eye(4)
        step[0, 2] = step[1, 3] = seconds
        effect = np.array([[seconds**2 / 2, 0], [0, seconds**2 / 2], [seconds, 0], [0, seconds]])
        noise = acceleration[index] ** 2 * effect @ effect.T
        np.testing.assert_allclose(moved[index], step @ mean[index])
        np.testing.assert_allclose(grown[index], step @ covariance[index] @ step.T + noise)


@pytest.mark.parametrize('part', [POSITION, VELOCITY])
def test_an_update_equals_the_joseph_form(rng, part):
    mean, covariance = rng.normal(size=(COUNT, 4)), random_covariances(rng, 4)
    measured, noise = rng.normal(size=(COUNT, 2)), random_covariances(rng, 2)
    better, smaller = update(mean, covariance, part, measured, noise)
    observe = np.eye(4)[part]
    for index in range(COUNT):
        spread = observe @ covariance[index] @ observe.T + noise[index]
        gain = covariance[index] @ observe.T @ np.linalg.inv(spread)
        kept = np.eye(4) - gain @ observe
        np.testing.assert_allclose(
            better[index], mean[index] + gain @ (measured[index] - observe @ mean[index])
        )
        np.testing.assert_allclose(
            smaller[index], kept @ covariance[index] @ kept.T + gain @ noise[index] @ gain.T
        )


def test_closed_forms_equal_linear_algebra(rng):
    matrices, differences = random_covariances(rng, 2), rng.normal(size=(COUNT, 2))
    inverses = np.linalg.inv(matrices)
    np.testing.assert_allclose(inverse_2x2(matrices), inverses)
    np.testing.assert_allclose(log_determinant(matrices), np.log(np.linalg.det(matrices)))
    expected = [d @ inverse @ d for d, inverse in zip(differences, inverses, strict=True)]
    np.testing.assert_allclose(mahalanobis_squared(differences, matrices), expected)
