"""Writes rosbag2 recordings of a camera rig. Writing needs no ROS installation. ``ros2 bag play``
and the player of this package can replay the recordings.

| topic | type | frame |
| --- | --- | --- |
| /<camera>/image_rect_compressed | sensor_msgs/CompressedImage, JPEG | <camera> |
| /<camera>/image_raw/compressed | sensor_msgs/CompressedImage, with lens distortion | <camera> |
| /<camera>/image_rect, image_raw | sensor_msgs/Image, for images without compression | <camera> |
| /<camera>/camera_info | sensor_msgs/CameraInfo | <camera> |
| /<lidar> | sensor_msgs/PointCloud2 | <lidar> |
| /tf | map -> base_link | |
| /tf_static | base_link -> <sensor>, latched | |
| /annotations | vision_msgs/Detection3DArray | base_link |
| /annotations/markers | visualization_msgs/MarkerArray | map or base_link, as the caller chooses |
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from bevdepth_core.types import Boxes3D, CameraRig
from bevdepth_ros.bags import messages as messages
from bevdepth_ros.bags.messages import Annotated, message_types, quaternions_of_yaw
from bevdepth_ros.bags.temporary_folder import take_place, temporary_folder

MAP_FRAME, BASE_FRAME = 'map', 'base_link'
ANNOTATION_TOPIC = '/annotations'
ANNOTATION_MARKER_TOPIC = '/annotations/markers'
STORAGES = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}

_METADATA_VERSION: Literal[8] = 8
"""Newest version of rosbag2 metadata that Humble can read. Humble cannot read the format of the
quality of service in version 9."""

_FOREVER = QosTime(9223372036, 854775807)
_QUEUE_DEPTH = 10
_MAX_LATENESS_NS = 1_000_000_000
"""A message may be at most this much older than the newest message."""


def image_topic(camera_name: str, rectified: bool = True) -> str:
    """Return the topic of a camera's JPEG images."""
    name = 'image_rect_compressed' if rectified else 'image_raw/compressed'
    return f'/{camera_name}/{name}'


def raw_image_topic(camera_name: str, rectified: bool = True) -> str:
    """Return the topic of a camera's images without compression."""
    return f'/{camera_name}/{"image_rect" if rectified else "image_raw"}'


def camera_info_topic(camera_name: str) -> str:
    """Return the topic of a camera's calibration."""
    return f'/{camera_name}/camera_info'


class BagWriter:
    """Writes one bag. It is a context manager.

    The bag is written to a hidden folder beside ``path``, and is moved to ``path`` when the
    context ends without an error. An interrupted run therefore leaves no incomplete bag, and the
    next run removes the folder of a killed run. The log time of a message is the stamp of its
    header, unless the caller passes another log time. The caller may pass a message that is up to
    one second older than the newest message. Messages are written in order of log time.

    Args:
        path: folder of the bag; an existing bag is replaced at the end.
        storage: ``'sqlite3'`` or ``'mcap'``.

    Raises:
        ValueError: ``storage`` is unknown, or a message is more than a second older than the
            newest message.
        FileExistsError: ``path`` exists and is not a bag.
    """

    def __init__(self, path: str | Path, storage: str = 'sqlite3') -> None:
        if storage not in STORAGES:
            raise ValueError(f'storage must be one of {", ".join(STORAGES)}, got {storage!r}')
        self.path = Path(path).absolute()
        self._storage = storage
        self._connections: dict[str, Connection] = {}
        self._waiting: list[tuple[int, int, Connection, bytes | memoryview]] = []
        self._counter = itertools.count()
        self._newest_ns = self._flushed_ns = 0

    def __enter__(self) -> BagWriter:
        with ExitStack() as stack:
            self._folder = stack.enter_context(temporary_folder(self.path))
            bag = self._folder / self.path.name
            self._writer = Writer(
                bag, version=_METADATA_VERSION, storage_plugin=STORAGES[self._storage]
            )
            self._writer.open()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._stack:
            if kind is not None:
                self._writer.abort()
                return
            self._flush(self._newest_ns)
            self._writer.close()
            take_place(self._folder, self.path)

    def write_static_transforms(self, rig: CameraRig, stamp_ns: int) -> None:
        """Write the mounting poses of the cameras."""
        self.write_mounts(dict(zip(rig.names, rig.ego_from_camera, strict=True)), stamp_ns)

    def write_mounts(self, ego_from_sensor: Mapping[str, np.ndarray], stamp_ns: int) -> None:
        """Write the mounting poses of sensors: (4, 4) rigid transforms by frame, meters."""
        transforms = [
            messages.transform(stamp_ns, BASE_FRAME, name, mount)
            for name, mount in ego_from_sensor.items()
        ]
        self._write_transforms('/tf_static', stamp_ns, transforms)

    def write_ego_pose(self, stamp_ns: int, world_from_ego: np.ndarray) -> None:
        """Write the ego pose, a (4, 4) rigid transform, meters."""
        self._write_transforms(
            '/tf', stamp_ns, [messages.transform(stamp_ns, MAP_FRAME, BASE_FRAME, world_from_ego)]
        )

    def write_camera_info(
        self,
        camera_name: str,
        stamp_ns: int,
        intrinsics: np.ndarray,
        width: int,
        height: int,
        distortion: Sequence[float] = (),
    ) -> None:
        """Write the calibration of a camera.

        Args:
            camera_name: name of the camera and of its frame.
            stamp_ns: stamp of the image to which the calibration belongs.
            intrinsics: (3, 3) pixels.
            width: width of the image, pixels.
            height: height of the image, pixels.
            distortion: coefficients of the lens in the order of OpenCV.
        """
        info = messages.camera_info(stamp_ns, camera_name, intrinsics, width, height, distortion)
        self.write(camera_info_topic(camera_name), 'sensor_msgs/msg/CameraInfo', stamp_ns, info)

    def write_compressed_image(
        self, camera_name: str, stamp_ns: int, jpeg_bytes: bytes, rectified: bool = True
    ) -> None:
        """Write the unchanged bytes of a JPEG file."""
        image = messages.compressed_image(stamp_ns, camera_name, jpeg_bytes)
        topic = image_topic(camera_name, rectified)
        self.write(topic, 'sensor_msgs/msg/CompressedImage', stamp_ns, image)

    def write_raw_image(
        self, camera_name: str, stamp_ns: int, pixels: np.ndarray, rectified: bool = True
    ) -> None:
        """Write (H, W, 3) uint8 RGB ``pixels``."""
        image = messages.raw_image(stamp_ns, camera_name, pixels)
        topic = raw_image_topic(camera_name, rectified)
        self.write(topic, 'sensor_msgs/msg/Image', stamp_ns, image)

    def write_point_cloud(self, lidar_name: str, stamp_ns: int, points: np.ndarray) -> None:
        """Write (n, 5) points: x y z in meters in the frame ``lidar_name``, intensity, ring."""
        cloud = messages.point_cloud(stamp_ns, lidar_name, points)
        self.write(f'/{lidar_name}', 'sensor_msgs/msg/PointCloud2', stamp_ns, cloud)

    def write_ground_truth(
        self, stamp_ns: int, boxes: Boxes3D, labels: np.ndarray, class_names: Sequence[str]
    ) -> None:
        """Write annotations in the ego frame at the time ``stamp_ns``; ``labels`` (n,) are indices
        into ``class_names``.
        """
        names = [class_names[label] for label in np.asarray(labels).tolist()]
        annotated = Annotated(
            boxes.center, boxes.size, quaternions_of_yaw(boxes.yaw), names, [''] * len(names)
        )
        self.write_annotations(stamp_ns, annotated)
        self.write_annotation_markers(stamp_ns, BASE_FRAME, annotated)

    def write_annotations(self, stamp_ns: int, boxes: Annotated) -> None:
        """Write annotations as detections in the ego frame at the time ``stamp_ns``."""
        array = messages.detection_array(stamp_ns, BASE_FRAME, boxes)
        self.write(ANNOTATION_TOPIC, 'vision_msgs/msg/Detection3DArray', stamp_ns, array)

    def write_annotation_markers(self, stamp_ns: int, frame_id: str, boxes: Annotated) -> None:
        """Write annotations in ``frame_id`` as markers. Markers in the map frame do not move with
        the vehicle.
        """
        markers = messages.marker_array(stamp_ns, frame_id, boxes)
        self.write(
            ANNOTATION_MARKER_TOPIC, 'visualization_msgs/msg/MarkerArray', stamp_ns, markers
        )

    def write_frame(
        self,
        rig: CameraRig,
        stamps_ns: np.ndarray,
        world_from_ego: np.ndarray,
        jpegs: Sequence[bytes],
        size: tuple[int, int],
    ) -> None:
        """Write one set of images in the order of exposure, together with the calibration and the
        ego pose of each image.

        Args:
            rig: N cameras.
            stamps_ns: (N,) exposure times, nanoseconds.
            world_from_ego: (N, 4, 4) ego poses at these times.
            jpegs: contents of N JPEG files.
            size: width and height of the images, pixels.
        """
        for index in np.argsort(stamps_ns, kind='stable'):
            name, stamp_ns = rig.names[index], int(stamps_ns[index])
            self.write_ego_pose(stamp_ns, world_from_ego[index])
            self.write_camera_info(name, stamp_ns, rig.intrinsics[index], *size)
            self.write_compressed_image(name, stamp_ns, jpegs[index])

    def write(self, topic: str, message_type: str, stamp_ns: int, message: Any) -> None:
        """Write a message object of rosbags with the log time ``stamp_ns``."""
        data = message_types().serialize_cdr(message, message_type)
        self.write_serialized(topic, message_type, stamp_ns, data, latched=topic == '/tf_static')

    def write_serialized(
        self,
        topic: str,
        message_type: str,
        stamp_ns: int,
        data: bytes | memoryview,
        *,
        latched: bool,
    ) -> None:
        """Write a serialized message with the log time ``stamp_ns``. If ``latched`` is True, late
        subscribers of a replay receive the message, too.
        """
        if stamp_ns < self._flushed_ns:
            raise ValueError(
                f'a message on {topic} at {stamp_ns} ns is more than a second older than the '
                f'newest message ({self._newest_ns} ns)'
            )
        if topic not in self._connections:
            profiles = [_offered_qos(latched)]
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=message_types(), offered_qos_profiles=profiles
            )
        heapq.heappush(
            self._waiting, (stamp_ns, next(self._counter), self._connections[topic], data)
        )
        self._newest_ns = max(self._newest_ns, stamp_ns)
        self._flush(self._newest_ns - _MAX_LATENESS_NS)

    def _write_transforms(self, topic: str, stamp_ns: int, transforms: list) -> None:
        self.write(
            topic,
            'tf2_msgs/msg/TFMessage',
            stamp_ns,
            messages.message('tf2_msgs/msg/TFMessage', transforms=transforms),
        )

    def _flush(self, up_to_ns: int) -> None:
        """Write the buffered messages that are not newer than ``up_to_ns``, in order of time."""
        while self._waiting and self._waiting[0][0] <= up_to_ns:
            stamp_ns, _, connection, data = heapq.heappop(self._waiting)
            self._writer.write(connection, stamp_ns, data)
            self._flushed_ns = stamp_ns


def _offered_qos(latched: bool) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else _QUEUE_DEPTH,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )
