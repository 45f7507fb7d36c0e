"""Rigid transforms, quaternions and camera matrices, as plain functions on arrays."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

RIGID_TOLERANCE = 1e-4
"""Largest accepted deviation of R^T R from the identity. For a rotation R that was computed from a
float32 quaternion, the deviation is up to 1e-6."""

_IDENTITY, _LAST_ROW = np.eye(3), np.array((0.0, 0.0, 0.0, 1.0))


def require_rigid(name: str, transforms: np.ndarray) -> None:
    """Raise ValueError unless every (..., 4, 4) matrix consists of a rotation and a translation.
    The message contains ``name``.
    """
    rotation = transforms[..., :3, :3]
    orthonormal = (
        np.abs(np.swapaxes(rotation, -1, -2) @ rotation - _IDENTITY).max() <= RIGID_TOLERANCE
    )
    if not orthonormal or (np.linalg.det(rotation) <= 0).any():
        raise ValueError(f'{name} must be rigid: its rotation part is not a rotation matrix')
    if not (transforms[..., 3, :] == _LAST_ROW).all():
        raise ValueError(f'{name} must be rigid: its last row is not 0 0 0 1')


def invert_rigid(transforms: np.ndarray) -> np.ndarray:
    """Return the inverses of (..., 4, 4) rigid transforms. They are computed from the transposed
    rotations, which avoids the rounding errors of a general inverse.
    """
    inverse = np.zeros_like(transforms)
    rotation = np.swapaxes(transforms[..., :3, :3], -1, -2)
    inverse[..., :3, :3] = rotation
    inverse[..., :3, 3:] = -rotation @ transforms[..., :3, 3:]
    inverse[..., 3, 3] = 1
    return inverse


def to_4x4(intrinsics: np.ndarray) -> np.ndarray:
    """Extend (..., 3, 3) intrinsics to (..., 4, 4) float64 matrices with the last row 0 0 0 1.

    The results transform (x, y, z, 1) in the camera frame to (u z, v z, z, 1).
    """
    padded = np.zeros((*intrinsics.shape[:-2], 4, 4))
    padded[..., :3, :3] = intrinsics
    padded[..., 3, 3] = 1
    return padded


def unit_quaternion(quaternion: ArrayLike) -> tuple[float, ...]:
    """Return a quaternion (w, x, y, z) with length 1.

    Raises:
        ValueError: the quaternion is not finite, or its length differs from 1 by more than 0.01.
    """
    # Plain Python floats are used, because numpy takes five times as long for four numbers.
    parts: list[float] = np.asarray(quaternion, np.float64).tolist()
    length = math.sqrt(sum(part * part for part in parts))
    if not abs(length - 1) <= 0.01:
        raise ValueError(f'quaternion must have unit length, got length {length}')
    return tuple(part / length for part in parts)


def rigid_from_quaternion(quaternion: ArrayLike, translation: ArrayLike) -> np.ndarray:
    """Return the (4, 4) float64 transform of a quaternion (w, x, y, z) and a translation in
    meters.

    Raises:
        ValueError: see ``unit_quaternion``.
    """
    w, x, y, z = unit_quaternion(quaternion)
    transform = np.array(
        (
            (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), 0.0),
            (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), 0.0),
            (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), 0.0),
            (0.0, 0.0, 0.0, 1.0),
        )
    )
    transform[:3, 3] = translation
    return transform


def quaternion_from_rotation(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Return the unit quaternion (w, x, y, z), w >= 0, of a (3, 3) rotation matrix."""
    m = np.asarray(rotation, np.float64)
    symmetric = np.array(
        (
            (m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]),
            (m[2, 1] - m[1, 2], m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]),
            (m[0, 2] - m[2, 0], m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]),
            (m[1, 0] - m[0, 1], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1]),
        )
    )
    quaternion = np.linalg.eigh(symmetric)[1][:, -1]
    w, x, y, z = (quaternion if quaternion[0] >= 0 else -quaternion).tolist()
    return w, x, y, z
