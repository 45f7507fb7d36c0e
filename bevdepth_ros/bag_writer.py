"""Writes rosbag2 recordings of a camera rig, without ROS; ``ros2 bag play`` and the player of this package replay them.

| topic | type | frame |
| --- | --- | --- |
| /<camera>/image_rect_compressed | sensor_msgs/CompressedImage, jpeg | <camera> |
| /<camera>/camera_info | sensor_msgs/CameraInfo | <camera> |
| /tf | map -> base_link | |
| /tf_static | base_link -> <camera>, latched | |
| /annotations | vision_msgs/Detection3DArray | base_link |
"""

from __future__ import annotations

import heapq
import itertools
import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from rosbags.interfaces import Connection, Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from bevdepth_core.types import Boxes3D, CameraRig

MAP_FRAME, BASE_FRAME = 'map', 'base_link'
ANNOTATION_TOPIC = '/annotations'
STORAGES = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}

_METADATA_VERSION = 8
"""Newest rosbag2 metadata that Humble reads as well: version 9 writes the quality of service in a form only Jazzy knows."""

_FOREVER = QosTime(9223372036, 854775807)
_QUEUE_DEPTH = 10
_LATEST_NS = 1_000_000_000
_BAG_SUFFIXES = ('.db3', '.mcap', '.yaml')

_VISION_MESSAGES = {
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'vision_msgs/msg/ObjectHypothesisWithPose': 'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n',
    'vision_msgs/msg/BoundingBox3D': 'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n',
    'vision_msgs/msg/Detection3D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\nvision_msgs/BoundingBox3D bbox\nstring id\n'
    ),
    'vision_msgs/msg/Detection3DArray': 'std_msgs/Header header\nvision_msgs/Detection3D[] detections\n',
}
"""Interfaces of vision_msgs 4, which rosbags does not carry."""


def image_topic(camera_name: str) -> str:
    """Return the topic of a camera's JPEG images."""
    return f'/{camera_name}/image_rect_compressed'


def camera_info_topic(camera_name: str) -> str:
    """Return the topic of a camera's calibration."""
    return f'/{camera_name}/camera_info'


def message_types() -> Typestore:
    """Return the message types of ROS 2, vision_msgs among them, for reading and writing bags with rosbags."""
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in _VISION_MESSAGES.items():
        typestore.register(get_types_from_msg(definition, name))
    return typestore


class BagWriter:
    """Writes one bag; a context manager.

    Everything goes into a temporary folder beside ``path`` and gets its name when the context ends without an error, so
    an interrupted run leaves no half bag. The log time of every message is its header's stamp; messages may come up to a
    second out of order and are written in order.

    Args:
        path: folder to make; an existing bag there is replaced, at the end.
        storage: ``'sqlite3'`` or ``'mcap'``.

    Raises:
        ValueError: another storage, or a message more than a second late.
        FileExistsError: ``path`` exists and is not a bag.
    """

    def __init__(self, path: str | Path, storage: str = 'sqlite3') -> None:
        if storage not in STORAGES:
            raise ValueError(f'storage must be one of {", ".join(STORAGES)}, got {storage!r}')
        self.path = Path(path).absolute()
        self._storage = storage
        self._typestore = message_types()
        self._connections: dict[str, Connection] = {}
        self._waiting: list[tuple[int, int, Connection, memoryview]] = []
        self._counter = itertools.count()
        self._newest_ns = self._flushed_ns = 0

    def __enter__(self) -> BagWriter:
        if self.path.exists() and not _is_bag(self.path):
            raise FileExistsError(f'{self.path} exists and is not a rosbag2: choose another place or remove it')
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._workplace = Path(tempfile.mkdtemp(prefix=f'.{self.path.name}.', dir=self.path.parent))
        self._writer = Writer(self._workplace / self.path.name, version=_METADATA_VERSION, storage_plugin=STORAGES[self._storage])
        self._writer.open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        try:
            if kind is None:
                self._flush(self._newest_ns)
                self._writer.close()
                self._take_place()
            else:
                self._writer.abort()
        finally:
            shutil.rmtree(self._workplace, ignore_errors=True)

    def _take_place(self) -> None:
        """Move the finished bag to its path, an older one out of the way."""
        if self.path.exists():
            self.path.rename(self._workplace / 'replaced')
        (self._workplace / self.path.name).rename(self.path)

    def write_static_transforms(self, rig: CameraRig, stamp_ns: int) -> None:
        """Write where the cameras sit on the vehicle."""
        transforms = [self._transform(stamp_ns, BASE_FRAME, name, pose) for name, pose in zip(rig.names, rig.ego_from_camera, strict=True)]
        self._write('/tf_static', 'tf2_msgs/msg/TFMessage', stamp_ns, self._message('tf2_msgs/msg/TFMessage', transforms=transforms))

    def write_ego_pose(self, stamp_ns: int, world_from_ego: np.ndarray) -> None:
        """Write where the vehicle is, a (4, 4) rigid transform, metres."""
        transforms = [self._transform(stamp_ns, MAP_FRAME, BASE_FRAME, world_from_ego)]
        self._write('/tf', 'tf2_msgs/msg/TFMessage', stamp_ns, self._message('tf2_msgs/msg/TFMessage', transforms=transforms))

    def write_camera_info(self, camera_name: str, stamp_ns: int, intrinsics: np.ndarray, width: int, height: int) -> None:
        """Write the calibration of a camera without distortion.

        Args:
            camera_name: also the frame.
            stamp_ns: of the image it belongs to.
            intrinsics: (3, 3) pixels.
            width: of the image, pixels.
            height: of the image, pixels.
        """
        matrix = np.asarray(intrinsics, np.float64)
        info = self._message(
            'sensor_msgs/msg/CameraInfo',
            header=self._header(stamp_ns, camera_name),
            height=height,
            width=width,
            distortion_model='plumb_bob',
            d=np.zeros(5),
            k=matrix.ravel(),
            r=np.eye(3).ravel(),
            p=np.column_stack((matrix, np.zeros(3))).ravel(),
            binning_x=0,
            binning_y=0,
            roi=self._message('sensor_msgs/msg/RegionOfInterest', x_offset=0, y_offset=0, height=0, width=0, do_rectify=False),
        )
        self._write(camera_info_topic(camera_name), 'sensor_msgs/msg/CameraInfo', stamp_ns, info)

    def write_compressed_image(self, camera_name: str, stamp_ns: int, jpeg_bytes: bytes) -> None:
        """Write a JPEG file's bytes as they are."""
        image = self._message(
            'sensor_msgs/msg/CompressedImage',
            header=self._header(stamp_ns, camera_name),
            format='jpeg',
            data=np.frombuffer(jpeg_bytes, np.uint8),
        )
        self._write(image_topic(camera_name), 'sensor_msgs/msg/CompressedImage', stamp_ns, image)

    def write_ground_truth(self, stamp_ns: int, boxes: Boxes3D, labels: np.ndarray, class_names: Sequence[str]) -> None:
        """Write annotations in the ego frame of ``stamp_ns``; ``labels`` (n,) index into ``class_names``."""
        header = self._header(stamp_ns, BASE_FRAME)
        rows = zip(boxes.center.tolist(), boxes.size.tolist(), boxes.yaw.tolist(), np.asarray(labels).tolist(), strict=True)
        detections = [self._detection(header, center, size, yaw, class_names[label]) for center, size, yaw, label in rows]
        array = self._message('vision_msgs/msg/Detection3DArray', header=header, detections=detections)
        self._write(ANNOTATION_TOPIC, 'vision_msgs/msg/Detection3DArray', stamp_ns, array)

    def write_frame(self, rig: CameraRig, stamps_ns, world_from_ego, jpegs: Sequence[bytes], size: tuple[int, int]) -> None:
        """Write one set of images in the order of exposure, each with its calibration and ego pose.

        Args:
            rig: N cameras.
            stamps_ns: (N,) exposure times.
            world_from_ego: (N, 4, 4) poses at these times.
            jpegs: N files.
            size: width and height of the images, pixels.
        """
        for index in np.argsort(stamps_ns, kind='stable'):
            name, stamp_ns = rig.names[index], int(stamps_ns[index])
            self.write_ego_pose(stamp_ns, world_from_ego[index])
            self.write_camera_info(name, stamp_ns, rig.intrinsics[index], *size)
            self.write_compressed_image(name, stamp_ns, jpegs[index])

    def _write(self, topic: str, message_type: str, stamp_ns: int, message: Any) -> None:
        if stamp_ns < self._flushed_ns:
            raise ValueError(f'{topic} at {stamp_ns} ns comes more than a second after messages of {self._flushed_ns} ns')
        if topic not in self._connections:
            qos = _offered_qos(latched=topic == '/tf_static')
            self._connections[topic] = self._writer.add_connection(
                topic, message_type, typestore=self._typestore, offered_qos_profiles=[qos]
            )
        data = self._typestore.serialize_cdr(message, message_type)
        heapq.heappush(self._waiting, (stamp_ns, next(self._counter), self._connections[topic], data))
        self._newest_ns = max(self._newest_ns, stamp_ns)
        self._flush(self._newest_ns - _LATEST_NS)

    def _flush(self, up_to_ns: int) -> None:
        """Write what waits and is not newer than ``up_to_ns``, in order of time."""
        while self._waiting and self._waiting[0][0] <= up_to_ns:
            stamp_ns, _, connection, data = heapq.heappop(self._waiting)
            self._writer.write(connection, stamp_ns, data)
            self._flushed_ns = stamp_ns

    def _message(self, message_type: str, **fields) -> Any:
        return self._typestore.types[message_type](**fields)

    def _header(self, stamp_ns: int, frame_id: str) -> Any:
        seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
        stamp = self._message('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
        return self._message('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)

    def _vector(self, kind: str, values) -> Any:
        x, y, z = (float(value) for value in values)
        return self._message(f'geometry_msgs/msg/{kind}', x=x, y=y, z=z)

    def _quaternion(self, w: float, x: float, y: float, z: float) -> Any:
        return self._message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)

    def _transform(self, stamp_ns: int, parent: str, child: str, parent_from_child: np.ndarray) -> Any:
        transform = self._message(
            'geometry_msgs/msg/Transform',
            translation=self._vector('Vector3', parent_from_child[:3, 3]),
            rotation=self._quaternion(*quaternion_from_rotation(parent_from_child[:3, :3])),
        )
        header = self._header(stamp_ns, parent)
        return self._message('geometry_msgs/msg/TransformStamped', header=header, child_frame_id=child, transform=transform)

    def _detection(self, header: Any, center, size, yaw: float, class_name: str) -> Any:
        rotation = self._quaternion(math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2))
        pose = self._message('geometry_msgs/msg/Pose', position=self._vector('Point', center), orientation=rotation)
        uncertain_pose = self._message('geometry_msgs/msg/PoseWithCovariance', pose=pose, covariance=np.zeros(36))
        hypothesis = self._message('vision_msgs/msg/ObjectHypothesis', class_id=class_name, score=1.0)
        result = self._message('vision_msgs/msg/ObjectHypothesisWithPose', hypothesis=hypothesis, pose=uncertain_pose)
        box = self._message('vision_msgs/msg/BoundingBox3D', center=pose, size=self._vector('Vector3', size))
        return self._message('vision_msgs/msg/Detection3D', header=header, results=[result], bbox=box, id='')


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
    return tuple((quaternion if quaternion[0] >= 0 else -quaternion).tolist())


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


def _is_bag(path: Path) -> bool:
    """Return whether ``path`` is a folder that holds a bag and nothing else."""
    if not (path / 'metadata.yaml').is_file():
        return False
    return all(entry.is_file() and entry.suffix in _BAG_SUFFIXES for entry in path.iterdir())
