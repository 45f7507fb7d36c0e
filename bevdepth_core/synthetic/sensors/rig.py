"""Mounting poses of six cameras and a lidar, as on a nuScenes vehicle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from bevdepth_core.types import CameraRig

SOURCE_SIZE = (1600, 900)
"""Width and height of the images that the focal lengths below refer to, pixels."""

EXPOSURE_OFFSET_S = {
    'CAM_FRONT_LEFT': 0.0,
    'CAM_FRONT': 0.0076,
    'CAM_FRONT_RIGHT': 0.0155,
    'CAM_BACK_LEFT': 0.0426,
    'CAM_BACK': 0.0327,
    'CAM_BACK_RIGHT': 0.0230,
}
"""Seconds between the start of a trigger cycle and each camera's exposure, in the order of the
checkpoints."""

_EGO_FROM_OPTICAL_AXES = np.array(((0, 0, 1), (-1, 0, 0), (0, -1, 0)), np.float64)


_POSITION_SPREAD, _ANGLE_SPREAD, _FOCAL_SPREAD, _CENTER_SPREAD = 0.03, 1.0, 0.01, 15.0
"""Largest deviations of a log's calibration from the nominal one: position in meters, angles in
degrees, focal length as a share, image center in pixels."""

_LIDAR_POSITION, _LIDAR_ANGLES = (0.944, 0.0, 1.840), (-90.0, 0.3, 0.6)


@dataclass(frozen=True)
class _Mount:
    """Position in meters, angles in degrees (yaw to the left, pitch downwards, roll), focal length
    and center in pixels.
    """

    position: tuple[float, float, float]
    angles: tuple[float, float, float]
    focal: float
    center: tuple[float, float]


_MOUNTS = {
    'CAM_FRONT_LEFT': _Mount((1.52, 0.49, 1.51), (55.0, -0.2, 0.1), 1270.0, (822.0, 482.0)),
    'CAM_FRONT': _Mount((1.70, 0.02, 1.51), (0.3, 0.3, 0.0), 1266.0, (814.0, 489.0)),
    'CAM_FRONT_RIGHT': _Mount((1.55, -0.49, 1.50), (-56.0, 0.7, 0.5), 1262.0, (808.0, 493.0)),
    'CAM_BACK_LEFT': _Mount((1.04, 0.48, 1.59), (108.5, 0.9, -0.2), 1257.0, (794.0, 491.0)),
    'CAM_BACK': _Mount((0.03, 0.00, 1.58), (180.0, -0.8, 0.2), 810.0, (828.0, 482.0)),
    'CAM_BACK_RIGHT': _Mount((1.01, -0.48, 1.56), (-110.5, 0.9, 0.6), 1259.0, (807.0, 499.0)),
}


def _rotation(angles_degrees: tuple[float, float, float]) -> np.ndarray:
    yaw, pitch, roll = np.radians(angles_degrees)
    about_z = np.array(((np.cos(yaw), -np.sin(yaw), 0), (np.sin(yaw), np.cos(yaw), 0), (0, 0, 1)))
    about_y = np.array(
        ((np.cos(pitch), 0, np.sin(pitch)), (0, 1, 0), (-np.sin(pitch), 0, np.cos(pitch)))
    )
    about_x = np.array(
        ((1, 0, 0), (0, np.cos(roll), -np.sin(roll)), (0, np.sin(roll), np.cos(roll)))
    )
    return about_z @ about_y @ about_x


def nuscenes_like_rig(
    width: int = 1600, height: int = 900, log_seed: int | None = None
) -> CameraRig:
    """Return the rig whose images are ``width`` by ``height`` pixels; fields of view do not depend
    on the size.

    Args:
        width: pixels.
        height: pixels.
        log_seed: seed of the calibration of one log, which differs between vehicles and days;
            None: the nominal calibration.
    """
    scale_x, scale_y = width / SOURCE_SIZE[0], height / SOURCE_SIZE[1]
    intrinsics, ego_from_camera = [], []
    for number, nominal in enumerate(_MOUNTS.values()):
        mount = (
            nominal
            if log_seed is None
            else _disturbed(nominal, np.random.default_rng((log_seed, number)))
        )
        center_x, center_y = mount.center
        intrinsics.append(
            (
                (mount.focal * scale_x, 0, center_x * scale_x),
                (0, mount.focal * scale_y, center_y * scale_y),
                (0, 0, 1),
            )
        )
        ego_from_camera.append(
            _pose(mount.position, _rotation(mount.angles) @ _EGO_FROM_OPTICAL_AXES)
        )
    return CameraRig(tuple(_MOUNTS), np.array(intrinsics), np.array(ego_from_camera))


def ego_from_lidar(log_seed: int | None = None) -> np.ndarray:
    """Return the (4, 4) mount of the lidar: x to the right of the vehicle, y forward, z up;
    ``log_seed`` as for the cameras.
    """
    position, angles = np.array(_LIDAR_POSITION), np.array(_LIDAR_ANGLES)
    if log_seed is not None:
        rng = np.random.default_rng((log_seed, len(_MOUNTS)))
        position = position + rng.uniform(-1, 1, 3) * _POSITION_SPREAD
        angles = angles + rng.uniform(-1, 1, 3) * _ANGLE_SPREAD
    return _pose(position, _rotation(tuple(angles)))


def _disturbed(mount: _Mount, rng: np.random.Generator) -> _Mount:
    return _Mount(
        tuple(mount.position + rng.uniform(-1, 1, 3) * _POSITION_SPREAD),
        tuple(mount.angles + rng.uniform(-1, 1, 3) * _ANGLE_SPREAD),
        mount.focal * (1 + rng.uniform(-1, 1) * _FOCAL_SPREAD),
        tuple(mount.center + rng.uniform(-1, 1, 2) * _CENTER_SPREAD),
    )


def _pose(position: ArrayLike, rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose
