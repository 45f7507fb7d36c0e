"""Kalman filters with constant velocity in the plane, for many objects at once.

A state is (x, y, vx, vy) in meters and m/s. ``mean`` is (n, 4) and ``covariance`` (n, 4, 4), both
float64. Closed forms for 2x2 matrices keep an update of 200 objects far below a millisecond.
"""

from __future__ import annotations

import numpy as np

POSITION, VELOCITY = slice(0, 2), slice(2, 4)


def predict(
    mean: np.ndarray, covariance: np.ndarray, seconds: float, acceleration: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance ``seconds`` later.

    Args:
        mean: (n, 4).
        covariance: (n, 4, 4).
        seconds: time step.
        acceleration: (n,) standard deviation of the unknown acceleration, m/s^2.
    """
    step = np.eye(4)
    step[POSITION, VELOCITY] = seconds * np.eye(2)
    effect = np.concatenate((0.5 * seconds**2 * np.eye(2), seconds * np.eye(2)))
    noise = (acceleration**2)[:, None, None] * (effect @ effect.T)
    return mean @ step.T, transformed(covariance, step) + noise


def update(
    mean: np.ndarray,
    covariance: np.ndarray,
    part: slice,
    measured: np.ndarray,
    noise: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and covariance after a measurement of ``POSITION`` or ``VELOCITY``.

    Args:
        mean: (n, 4).
        covariance: (n, 4, 4).
        part: the two measured components of the state.
        measured: (n, 2) measurements.
        noise: (n, 2, 2) their covariances.
    """
    cross = covariance[:, :, part]  # (n, 4, 2)
    gain = _product(cross, inverse_2x2(covariance[:, part, part] + noise))
    mean = mean + _product(gain, (measured - mean[:, part])[..., None])[..., 0]
    covariance = covariance - _product(gain, np.swapaxes(cross, 1, 2))
    return mean, 0.5 * (covariance + np.swapaxes(covariance, 1, 2))


def transformed(covariance: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return (n, k, k) ``matrix @ covariance @ matrix.T`` for one (k, k) ``matrix``.

    A Kronecker product acts on the covariances as rows of k * k numbers. This is one large
    product, which numpy computes faster than n small ones.
    """
    size = len(matrix)
    twice = (matrix[:, None, :, None] * matrix[None, :, None, :]).reshape(size**2, size**2)
    return (covariance.reshape(-1, size**2) @ twice.T).reshape(-1, size, size)


def _product(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return ``left @ right`` of (n, i, 2) and (n, 2, j); faster than numpy's product of small
    matrices.
    """
    return left[:, :, :1] * right[:, :1] + left[:, :, 1:] * right[:, 1:]


def inverse_2x2(matrices: np.ndarray) -> np.ndarray:
    """Return the inverses of (n, 2, 2) symmetric positive definite matrices."""
    a, b, d = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 1]
    adjugate = np.stack((d, -b, -b, a), axis=-1).reshape(-1, 2, 2)
    return adjugate / (a * d - b * b)[:, None, None]


def mahalanobis_squared(difference: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Return (n,) squared distances of (n, 2) differences under (n, 2, 2) covariances."""
    a, b, d = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    x, y = difference[:, 0], difference[:, 1]
    return (d * x * x - 2 * b * x * y + a * y * y) / (a * d - b * b)


def log_determinant(covariance: np.ndarray) -> np.ndarray:
    """Return the (n,) logarithms of the determinants of (n, 2, 2) covariances."""
    a, b, d = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    return np.log(a * d - b * b)
