"""Finds mounting poses and camera intrinsics of the sensors of a dataset."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bevdepth_core.nuscenes.classes import LIDAR
from bevdepth_ros.bags.conversion.scan import Scan
from bevdepth_ros.bags.conversion.sources import ConversionError, ImageSource, Sources
from bevdepth_ros.rig.transforms import TransformMissingError


@dataclass(frozen=True)
class Frames:
    """Names of the tf frames.

    Attributes:
        world: frame in which the vehicle moves.
        base: base frame of the vehicle.
    """

    world: str
    base: str


@dataclass(frozen=True)
class Sensor:
    """A sensor of the dataset.

    Attributes:
        channel: name of the sensor in the dataset.
        modality: ``camera`` or ``lidar``.
        base_from_sensor: pose of the sensor in the base frame, (4, 4), meters.
        intrinsics: (3, 3) as lists; empty for a lidar.
        size: width and height of the camera's images, pixels; zeros for a lidar.
    """

    channel: str
    modality: str
    base_from_sensor: np.ndarray
    intrinsics: list
    size: tuple[int, int]


def find_sensors(scan: Scan, sources: Sources, frames: Frames) -> dict[str, Sensor]:
    """Return the sensors by topic.

    Raises:
        ConversionError: tf has no pose of a sensor, or the CameraInfo of a camera has no image
            size.
    """
    sensors = {source.image_topic: _camera(scan, source, frames) for source in sources.cameras}
    if sources.lidar:
        mount = _mount(scan, sources.lidar, 'the lidar', frames)
        sensors[sources.lidar] = Sensor(LIDAR, 'lidar', mount, [], (0, 0))
    return sensors


def _camera(scan: Scan, source: ImageSource, frames: Frames) -> Sensor:
    intrinsics = scan.intrinsics[source.image_topic]
    mount = _mount(scan, source.image_topic, f'camera {source.channel}', frames)
    size = (intrinsics.width, intrinsics.height)
    if not all(size):
        raise ConversionError(
            f'camera {source.channel}: the width or the height in CameraInfo is 0; calibrate the '
            'camera again'
        )
    pose = mount @ intrinsics.frame_from_camera
    return Sensor(source.channel, 'camera', pose, intrinsics.matrix.tolist(), size)


def _mount(scan: Scan, topic: str, name: str, frames: Frames) -> np.ndarray:
    try:
        return scan.transforms.latest(frames.base, scan.sensors[topic].frame_id)
    except TransformMissingError as error:
        raise ConversionError(
            f'{name}: {error}; record /tf_static, or set --base-frame'
        ) from error
