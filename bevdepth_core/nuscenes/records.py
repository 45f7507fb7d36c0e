"""Records of one sample of a dataset in nuScenes format: sensors, poses, annotations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bevdepth_core.geometry import rigid_from_quaternion

DISTORTION = 'camera_distortion'
"""Field of ``calibrated_sensor`` with the coefficients of lens distortion in the images, in the
order of OpenCV. nuImages has a field with this name. If the field is absent or all coefficients
are 0, the images have no distortion."""


@dataclass(frozen=True)
class Pose:
    """A rigid transform as nuScenes stores it.

    Attributes:
        quaternion: (4,) float64, w x y z.
        translation: (3,) float64, meters.
    """

    quaternion: np.ndarray
    translation: np.ndarray

    def matrix(self) -> np.ndarray:
        """Return the (4, 4) float64 transform."""
        return rigid_from_quaternion(self.quaternion, self.translation)


def mean_pose(poses: Sequence[Pose]) -> Pose:
    """Return the mean pose: the mean of the quaternion components and the mean of the
    translations. The official code averages ego poses in this way.

    A quaternion q and its negative -q are the same rotation, but their mean is 0. Therefore each
    quaternion with a negative dot product with the first quaternion is negated before the mean is
    computed.
    """
    quaternions = np.stack([pose.quaternion for pose in poses])
    signs = np.where(quaternions @ quaternions[0] < 0, -1.0, 1.0)
    return Pose(
        (quaternions * signs[:, None]).mean(axis=0),
        np.stack([pose.translation for pose in poses]).mean(axis=0),
    )


@dataclass(frozen=True)
class SensorRecord:
    """One file of one sensor.

    Attributes:
        channel: name of the sensor, such as ``CAM_FRONT``.
        filename: path of the file, relative to the dataset's root.
        stamp_ns: time of the exposure or of the lidar scan.
        ego_from_sensor: pose of the sensor on the vehicle.
        world_from_ego: ego pose at ``stamp_ns``.
        image_size: (width, height) in pixels; (0, 0) for a lidar.
        intrinsics: (3, 3) float64, pixels; zeros for a lidar.
    """

    channel: str
    filename: str
    stamp_ns: int
    ego_from_sensor: Pose
    world_from_ego: Pose
    image_size: tuple[int, int]
    intrinsics: np.ndarray


@dataclass(frozen=True)
class Annotations:
    """The boxes of a sample that belong to a class of the index, in the world frame, as nuScenes
    stores them.

    Attributes:
        label: (n,) int64, index into ``SampleIndex.class_names``.
        center: (n, 3) float64, meters.
        size: (n, 3) float64, width, length, height, meters.
        quaternion: (n, 4) float64, w x y z.
        velocity: (n, 3) float64, m/s over ground; NaN where it is unknown.
        points: (n,) int64, number of lidar and radar points inside the box; -1 if it is unknown.
        seen: (n,) bool, True for boxes that are ground truth. The number of points of such a box
            is large enough or unknown. In datasets without the six cameras of nuScenes, at least
            one camera must also see the box (see ``with_labels``).
        attribute: (n,) bytes, names of attributes such as ``vehicle.moving``, or empty.
        score: (n,) float64 in (0, 1], certainty of each box; 1 for annotations by people.
    """

    label: np.ndarray
    center: np.ndarray
    size: np.ndarray
    quaternion: np.ndarray
    velocity: np.ndarray
    points: np.ndarray
    seen: np.ndarray
    attribute: np.ndarray
    score: np.ndarray

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class SampleRecord:
    """A key frame.

    Attributes:
        token: the sample's token.
        scene: name of the scene.
        stamp_ns: time of the sample.
        cameras: records in the order of ``Channels.cameras``.
        lidar: record of the lidar; None in a dataset without a lidar.
        annotations: boxes of the sample; empty in a test set.
    """

    token: str
    scene: str
    stamp_ns: int
    cameras: tuple[SensorRecord, ...]
    lidar: SensorRecord | None
    annotations: Annotations

    def world_from_ego(self) -> Pose:
        """Return the pose of the ego frame in which boxes are given. This pose is the mean of the
        ego poses at the exposures of the cameras.
        """
        return mean_pose([camera.world_from_ego for camera in self.cameras])
