"""Defines the mounting poses of cameras and lidar on a synthetic vehicle; the default is the rig
of nuScenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from bevdepth_core.types import CameraRig

_EGO_FROM_OPTICAL_AXES = np.array(((0, 0, 1), (-1, 0, 0), (0, -1, 0)), np.float64)


_POSITION_SPREAD, _ANGLE_SPREAD, _FOCAL_SPREAD, _CENTER_SPREAD = 0.03, 1.0, 0.01, 15.0
"""Largest deviations of a log's calibration from the nominal calibration: position in meters,
angles in degrees, focal length as a fraction of the nominal focal length, image center in
pixels."""


@dataclass(frozen=True)
class CameraMount:
    """A camera on the vehicle.

    Attributes:
        position: position in the ego frame, meters.
        angles: yaw, pitch and roll, degrees. A positive yaw turns the camera to the left, a
            positive pitch turns it downwards, and a positive roll raises the left side of the
            camera.
        focal: focal length, pixels.
        center: principal point, pixels.
        offset_s: seconds between the start of a trigger cycle and the exposure.
        distortion: coefficients of the lens in the order of OpenCV; empty for a pinhole camera.
    """

    position: tuple[float, float, float]
    angles: tuple[float, float, float]
    focal: float
    center: tuple[float, float]
    offset_s: float = 0.0
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class LidarMount:
    """The lidar on the vehicle: position and angles as for a camera, and the number of beams."""

    position: tuple[float, float, float]
    angles: tuple[float, float, float]
    beams: int = 32


@dataclass(frozen=True)
class SyntheticRig:
    """Cameras and lidar of a synthetic vehicle.

    Attributes:
        image_size: width and height, pixels, of the images for which the focal lengths and
            principal points are given.
        cameras: cameras by name. Every array with one entry per camera has the order of this
            mapping.
        lidar: lidar on the roof.
    """

    image_size: tuple[int, int]
    cameras: Mapping[str, CameraMount]
    lidar: LidarMount

    def camera_rig(
        self, width: int | None = None, height: int | None = None, log_seed: int | None = None
    ) -> CameraRig:
        """Return the cameras for images of ``width`` by ``height`` pixels; fields of view do not
        depend on the size.

        Args:
            width: width of the images, pixels; None: the width in ``image_size``.
            height: height of the images, pixels; None: the height in ``image_size``.
            log_seed: seed of the calibration of one log; calibrations differ between logs, because
                vehicles and days differ. None: the nominal calibration.
        """
        rig_width, rig_height = self.image_size
        scale = np.diag(((width or rig_width) / rig_width, (height or rig_height) / rig_height, 1))
        mounts = [
            mount
            if log_seed is None
            else _disturbed(mount, np.random.default_rng((log_seed, number)))
            for number, mount in enumerate(self.cameras.values())
        ]
        return CameraRig(
            tuple(self.cameras),
            np.array([scale @ _intrinsics(mount) for mount in mounts]),
            np.array([
                _pose(mount.position, _rotation(mount.angles) @ _EGO_FROM_OPTICAL_AXES)
                for mount in mounts
            ]),
        )  # fmt: skip

    def ego_from_lidar(self, log_seed: int | None = None) -> np.ndarray:
        """Return the (4, 4) pose of the lidar in the ego frame; see ``camera_rig`` for
        ``log_seed``.
        """
        position, angles = np.array(self.lidar.position), np.array(self.lidar.angles)
        if log_seed is not None:
            rng = np.random.default_rng((log_seed, len(self.cameras)))
            position = position + rng.uniform(-1, 1, 3) * _POSITION_SPREAD
            angles = angles + rng.uniform(-1, 1, 3) * _ANGLE_SPREAD
        return _pose(position, _rotation(tuple(angles)))

    @property
    def offsets_s(self) -> dict[str, float]:
        """Return the offset of each camera within the trigger cycle, seconds."""
        return {name: camera.offset_s for name, camera in self.cameras.items()}

    @property
    def covers_full_circle(self) -> bool:
        """Return True if the horizontal fields of view of the cameras add up to at least 360
        degrees.
        """
        half_width = self.image_size[0] / 2
        halves = [np.arctan(half_width / camera.focal) for camera in self.cameras.values()]
        return bool(2 * sum(halves) >= 2 * np.pi)

    @property
    def measured_offset_s(self) -> float:
        """Return the time from the start of a rotation to the measurement of its scan, seconds.

        A real lidar measures each object at about the exposure time of the camera that points in
        the direction of the object, and boxes are fitted to the lidar points. Here, all points of
        a rotation are measured at one moment, which is the mean exposure time of the cameras.
        """
        return sum(self.offsets_s.values()) / len(self.cameras)


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


def _disturbed(mount: CameraMount, rng: np.random.Generator) -> CameraMount:
    return replace(
        mount,
        position=tuple(mount.position + rng.uniform(-1, 1, 3) * _POSITION_SPREAD),
        angles=tuple(mount.angles + rng.uniform(-1, 1, 3) * _ANGLE_SPREAD),
        focal=mount.focal * (1 + rng.uniform(-1, 1) * _FOCAL_SPREAD),
        center=tuple(mount.center + rng.uniform(-1, 1, 2) * _CENTER_SPREAD),
    )


def _intrinsics(mount: CameraMount) -> np.ndarray:
    (x, y), focal = mount.center, mount.focal
    return np.array(((focal, 0, x), (0, focal, y), (0, 0, 1)))


def _pose(position: ArrayLike, rotation: np.ndarray) -> np.ndarray:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, position
    return pose


NUSCENES_RIG = SyntheticRig(
    (1600, 900),
    {
        'CAM_FRONT_LEFT': CameraMount(
            (1.52, 0.49, 1.51), (55.0, -0.2, 0.1), 1270.0, (822.0, 482.0), 0.0
        ),
        'CAM_FRONT': CameraMount(
            (1.70, 0.02, 1.51), (0.3, 0.3, 0.0), 1266.0, (814.0, 489.0), 0.0076
        ),
        'CAM_FRONT_RIGHT': CameraMount(
            (1.55, -0.49, 1.50), (-56.0, 0.7, 0.5), 1262.0, (808.0, 493.0), 0.0155
        ),
        'CAM_BACK_LEFT': CameraMount(
            (1.04, 0.48, 1.59), (108.5, 0.9, -0.2), 1257.0, (794.0, 491.0), 0.0426
        ),
        'CAM_BACK': CameraMount(
            (0.03, 0.00, 1.58), (180.0, -0.8, 0.2), 810.0, (828.0, 482.0), 0.0327
        ),
        'CAM_BACK_RIGHT': CameraMount(
            (1.01, -0.48, 1.56), (-110.5, 0.9, 0.6), 1259.0, (807.0, 499.0), 0.0230
        ),
    },
    LidarMount((0.944, 0.0, 1.840), (-90.0, 0.3, 0.6)),
)
"""The six cameras and the lidar of nuScenes; the cameras have the order with which the official
checkpoints were trained. ``config/rigs/a.yaml`` contains the same numbers."""

EXPOSURE_OFFSET_S = NUSCENES_RIG.offsets_s
"""Seconds between the start of a trigger cycle and each camera's exposure."""


def nuscenes_like_rig(
    width: int = 1600, height: int = 900, log_seed: int | None = None
) -> CameraRig:
    """Return the cameras of ``NUSCENES_RIG``; see ``SyntheticRig.camera_rig``."""
    return NUSCENES_RIG.camera_rig(width, height, log_seed)


def ego_from_lidar(log_seed: int | None = None) -> np.ndarray:
    """Return the (4, 4) pose of the lidar of ``NUSCENES_RIG`` in the ego frame. In the lidar
    frame, x points to the right of the vehicle, y forward and z up.
    """
    return NUSCENES_RIG.ego_from_lidar(log_seed)
