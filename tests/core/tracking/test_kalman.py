"""The batched filter equals the textbook formulas, which are applied to one object at a time."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.tracking.kalman import (
    POSITION,
    VELOCITY,
    log_determinant,
    mahalanobis_squared,
    predict,
    update,
)

COUNT = 5


def random_covariances(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return random (size, size, COUNT) covariances; the last axis is the object."""
    roots = rng.normal(size=(COUNT, size, size))
    return np.moveaxis(roots @ np.swapaxes(roots, 1, 2) + 0.5 * np.eye(size), 0, -1)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def test_a_prediction_moves_the_position_by_the_velocity_and_adds_acceleration_noise(rng):
    mean, covariance = rng.normal(size=(4, COUNT)), random_covariances(rng, 4)
    acceleration, seconds = rng.uniform(0.5, 3, COUNT), 0.4
    moved, grown = predict(mean, covariance, seconds, acceleration)
    for index in range(COUNT):
        step = np.eye(4)
        step[0, 2] = step[1, 3] = seconds
        effect = np.array([[seconds**2 / 2, 0], [0, seconds**2 / 2], [seconds, 0], [0, seconds]])
        noise = acceleration[index] ** 2 * effect @ effect.T
        np.testing.assert_allclose(moved[:, index], step @ mean[:, index])
        np.testing.assert_allclose(
            grown[..., index], step @ covariance[..., index] @ step.T + noise
        )


@pytest.mark.parametrize('part', [POSITION, VELOCITY])
def test_an_update_equals_the_joseph_form(rng, part):
    mean, covariance = rng.normal(size=(4, COUNT)), random_covariances(rng, 4)
    measured, noise = rng.normal(size=(2, COUNT)), random_covariances(rng, 2)
    better, smaller = update(mean, covariance, part, measured, noise)
    observe = np.eye(4)[part]
    for index in range(COUNT):
        spread = observe @ covariance[..., index] @ observe.T + noise[..., index]
        gain = covariance[..., index] @ observe.T @ np.linalg.inv(spread)
        kept = np.eye(4) - gain @ observe
        np.testing.assert_allclose(
            better[:, index],
            mean[:, index] + gain @ (measured[:, index] - observe @ mean[:, index]),
        )
        np.testing.assert_allclose(
            smaller[..., index],
            kept @ covariance[..., index] @ kept.T + gain @ noise[..., index] @ gain.T,
        )


def test_objects_without_a_measurement_keep_their_state(rng):
    mean, covariance = rng.normal(size=(4, COUNT)), random_covariances(rng, 4)
    is_measured = np.arange(COUNT) % 2 == 0
    arguments = mean, covariance, POSITION, rng.normal(size=(2, COUNT)), random_covariances(rng, 2)
    for all_new, new, old in zip(
        update(*arguments), update(*arguments, is_measured), (mean, covariance), strict=True
    ):
        np.testing.assert_array_equal(new[..., ~is_measured], old[..., ~is_measured])
        np.testing.assert_array_equal(new[..., is_measured], all_new[..., is_measured])


def test_log_determinant_and_mahalanobis_distance_equal_the_results_of_numpy(rng):
    matrices, differences = random_covariances(rng, 2), rng.normal(size=(2, COUNT))
    each = np.moveaxis(matrices, -1, 0)
    np.testing.assert_allclose(log_determinant(matrices), np.log(np.linalg.det(each)))
    inverses = np.linalg.inv(each)
    expected = [d @ inverse @ d for d, inverse in zip(differences.T, inverses, strict=True)]
    np.testing.assert_allclose(mahalanobis_squared(differences, matrices), expected)
