"""Detections for the tests of the tracker."""

from __future__ import annotations

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D

SECOND_NS = 1_000_000_000
START_NS = 1_700_000_000 * SECOND_NS
CAR, TRUCK, BARRIER, PEDESTRIAN = (
    NUSCENES_CLASSES.index(name) for name in ('car', 'truck', 'barrier', 'pedestrian')
)


def detections(
    centers: list,
    time_s: float = 0.0,
    *,
    scores: list | float = 0.9,
    labels: list | int = CAR,
    yaws: list | float = 0.0,
    velocities: list | None = None,
) -> Detections3D:
    """Return detections of 4 x 2 x 1.5 m boxes in the ego frame.

    Without ``velocities``, the velocities are 0 and the detections have no past frame. The tracker
    ignores the velocities of such detections.
    """
    count = len(centers)
    center = np.zeros((count, 3))
    if count:
        given = np.array(centers, float)
        center[:, : given.shape[1]] = given
    stamp_ns = START_NS + round(time_s * SECOND_NS)
    return Detections3D(
        Boxes3D(
            center,
            np.tile((4.0, 2.0, 1.5), (count, 1)),
            np.broadcast_to(np.array(yaws, float), (count,)),
            np.zeros((count, 2)) if velocities is None else np.array(velocities, float),
        ),
        np.broadcast_to(np.array(scores, float), (count,)),
        np.broadcast_to(np.array(labels), (count,)),
        NUSCENES_CLASSES,
        stamp_ns,
        None if velocities is None else stamp_ns - SECOND_NS // 2,
    )


def pose(x: float = 0.0, y: float = 0.0, z: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    """Return the (4, 4) pose with this position, meters, and this heading, radians."""
    result = np.eye(4)
    result[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    result[:3, 3] = x, y, z
    return result
