"""Covariance of detected boxes.

Errors are described along the line of sight, where a camera measures worst, and across it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bevdepth_core.types import Detections3D

ALONG_M, ALONG_PER_M = 0.3, 0.035
"""Default standard deviation along the line of sight: a constant plus a share of the range."""
ACROSS_M, ACROSS_PER_M = 0.2, 0.010
HEIGHT_M, HEIGHT_PER_M = 0.15, 0.006
YAW_RAD = 0.3
VELOCITY_MPS = 1.5
NEAREST_M = 1.0
"""Ranges below this count as this, so that the line of sight is defined."""


@dataclass(frozen=True)
class BoxCovariance:
    """Covariance of n boxes in the frame of the boxes.

    Attributes:
        pose: (n, 4, 4) float64 covariance of x, y, z (m) and yaw (rad).
        velocity: (n, 2, 2) float64 covariance of the velocity, (m/s)^2.
    """

    pose: np.ndarray
    velocity: np.ndarray


def default_covariance(detections: Detections3D) -> BoxCovariance:
    """Return a covariance for checkpoints without a fitted model."""
    count = len(detections)
    center = detections.boxes.center.astype(np.float64)
    distance = np.maximum(np.hypot(center[:, 0], center[:, 1]), NEAREST_M)
    pose = np.zeros((count, 4, 4))
    pose[:, :2, :2] = oriented_covariance(
        np.arctan2(center[:, 1], center[:, 0]),
        ALONG_M + ALONG_PER_M * distance,
        ACROSS_M + ACROSS_PER_M * distance,
    )
    pose[:, 2, 2] = (HEIGHT_M + HEIGHT_PER_M * distance) ** 2
    pose[:, 3, 3] = YAW_RAD**2
    velocity = np.broadcast_to(VELOCITY_MPS**2 * np.eye(2), (count, 2, 2)).copy()
    return BoxCovariance(pose, velocity)


def oriented_covariance(angle: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return (n, 2, 2) covariances with standard deviation ``along`` the direction ``angle``.

    Args:
        angle: (n,) direction of the first axis, radians about +z, 0 along +x.
        along: (n,) standard deviation along it.
        across: (n,) standard deviation across it.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = along**2, across**2
    result = np.empty((len(angle), 2, 2))
    result[:, 0, 0] = cos * cos * first + sin * sin * second
    result[:, 1, 1] = sin * sin * first + cos * cos * second
    result[:, 0, 1] = result[:, 1, 0] = cos * sin * (first - second)
    return result
