"""Creates the messages of bags from arrays, with the message classes of rosbags and without
ROS.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from bevdepth_core.geometry import quaternion_from_rotation
from bevdepth_core.visualization import class_color

_VISION_MESSAGES = {
    'vision_msgs/msg/ObjectHypothesis': 'string class_id\nfloat64 score\n',
    'vision_msgs/msg/ObjectHypothesisWithPose': (
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose\n'
    ),
    'vision_msgs/msg/BoundingBox3D': 'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\n',
    'vision_msgs/msg/Detection3D': (
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] '
        'results\nvision_msgs/BoundingBox3D bbox\nstring id\n'
    ),
    'vision_msgs/msg/Detection3DArray': (
        'std_msgs/Header header\nvision_msgs/Detection3D[] detections\n'
    ),
    'vision_msgs/msg/VisionClass': 'uint16 class_id\nstring class_name\n',
    'vision_msgs/msg/LabelInfo': (
        'std_msgs/Header header\nvision_msgs/VisionClass[] class_map\nfloat32 threshold\n'
    ),
}
"""Interfaces of vision_msgs 4, which rosbags does not include."""

LIDAR_POINT = np.dtype(
    [('x', '<f4'), ('y', '<f4'), ('z', '<f4'), ('intensity', '<f4'), ('ring', '<u2')], align=True
)
"""Layout of one point in the clouds of lidar drivers."""
_POINT_KINDS = {'<f4': 7, '<u2': 4}
"""Maps numpy types to the constants FLOAT32 and UINT16 of sensor_msgs/PointField."""
_CUBE, _DELETE_ALL = 1, 3
"""Values of the fields ``type`` and ``action`` of visualization_msgs/Marker."""
_MARKER_LIFETIME_S = 0.6
"""Lifetime of the markers, a little longer than the 0.5 s between two key frames."""
_MARKER_ALPHA = 0.4


@dataclass(frozen=True)
class Annotated:
    """Annotated boxes at one time, with poses in one tf frame.

    Attributes:
        center: (n, 3) geometric center, meters.
        size: (n, 3) full length, width, height, meters.
        quaternion: (n, 4) w x y z.
        class_names: n names.
        ids: n ids of the objects. The id of an object is the same at all times; an empty text
            means that the id is unknown.
    """

    center: np.ndarray
    size: np.ndarray
    quaternion: np.ndarray
    class_names: Sequence[str]
    ids: Sequence[str]

    def rows(self) -> Iterator[tuple[list[float], list[float], list[float], str, str]]:
        """Yield center, size, quaternion, class name and id of each box as plain Python values."""
        columns = (self.center, self.size, self.quaternion)
        return zip(
            *(np.asarray(column, np.float64).tolist() for column in columns),
            self.class_names,
            self.ids,
            strict=True,
        )


def quaternions_of_yaw(yaw: np.ndarray) -> np.ndarray:
    """Return (n, 4) quaternions w x y z for (n,) yaw angles, radians."""
    half = np.asarray(yaw, np.float64) / 2
    return np.stack(
        (np.cos(half), np.zeros_like(half), np.zeros_like(half), np.sin(half)), axis=-1
    )


@cache
def message_types() -> Typestore:
    """Return the message types of ROS 2 for rosbags, including vision_msgs."""
    typestore = get_typestore(Stores.ROS2_HUMBLE)
    for name, definition in _VISION_MESSAGES.items():
        typestore.register(get_types_from_msg(definition, name))
    return typestore


def message(message_type: str, **fields: Any) -> Any:
    """Return a message of ``message_type``, such as ``sensor_msgs/msg/Image``; ``fields`` must
    contain every field.
    """
    return message_types().types[message_type](**fields)


def header(stamp_ns: int, frame_id: str) -> Any:
    """Return a Header with the stamp ``stamp_ns``, nanoseconds, and the frame ``frame_id``."""
    seconds, nanoseconds = divmod(int(stamp_ns), 1_000_000_000)
    stamp = message('builtin_interfaces/msg/Time', sec=seconds, nanosec=nanoseconds)
    return message('std_msgs/msg/Header', stamp=stamp, frame_id=frame_id)


def vector(kind: str, values: Iterable[float]) -> Any:
    """Return a message of the type geometry_msgs/``kind``, which has the fields x, y and z."""
    x, y, z = (float(value) for value in values)
    return message(f'geometry_msgs/msg/{kind}', x=x, y=y, z=z)


def quaternion(values: Iterable[float]) -> Any:
    """Return a Quaternion message; ``values`` are w x y z."""
    w, x, y, z = (float(value) for value in values)
    return message('geometry_msgs/msg/Quaternion', x=x, y=y, z=z, w=w)


def pose(position: Iterable[float], orientation: Iterable[float]) -> Any:
    """Return a Pose message for a position in meters and an orientation, quaternion w x y z."""
    return message(
        'geometry_msgs/msg/Pose',
        position=vector('Point', position),
        orientation=quaternion(orientation),
    )


def transform(stamp_ns: int, parent: str, child: str, parent_from_child: np.ndarray) -> Any:
    """Return a TransformStamped for the rigid transform ``parent_from_child`` (4, 4), meters."""
    content = message(
        'geometry_msgs/msg/Transform',
        translation=vector('Vector3', parent_from_child[:3, 3]),
        rotation=quaternion(quaternion_from_rotation(parent_from_child[:3, :3])),
    )
    return message(
        'geometry_msgs/msg/TransformStamped',
        header=header(stamp_ns, parent),
        child_frame_id=child,
        transform=content,
    )


def camera_info(
    stamp_ns: int,
    frame_id: str,
    intrinsics: np.ndarray,
    width: int,
    height: int,
    distortion: Sequence[float] = (),
) -> Any:
    """Return the CameraInfo of a camera; ``intrinsics`` (3, 3) pixels, ``width`` and ``height``
    pixels, ``distortion`` up to 8 coefficients in the order of OpenCV.
    """
    count = 5 if len(distortion) <= 5 else 8
    coefficients = np.zeros(count)
    coefficients[: len(distortion)] = distortion
    matrix = np.asarray(intrinsics, np.float64)
    return message(
        'sensor_msgs/msg/CameraInfo',
        header=header(stamp_ns, frame_id),
        height=height,
        width=width,
        distortion_model='plumb_bob' if count == 5 else 'rational_polynomial',
        d=coefficients,
        k=matrix.ravel(),
        r=np.eye(3).ravel(),
        p=np.column_stack((matrix, np.zeros(3))).ravel(),
        binning_x=0,
        binning_y=0,
        roi=message(
            'sensor_msgs/msg/RegionOfInterest',
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )


def compressed_image(stamp_ns: int, frame_id: str, jpeg_bytes: bytes) -> Any:
    """Return a CompressedImage that contains the bytes of a JPEG file."""
    data = np.frombuffer(jpeg_bytes, np.uint8)
    return message(
        'sensor_msgs/msg/CompressedImage',
        header=header(stamp_ns, frame_id),
        format='jpeg',
        data=data,
    )


def raw_image(stamp_ns: int, frame_id: str, pixels: np.ndarray, encoding: str = 'rgb8') -> Any:
    """Return an Image with the ``pixels`` (H, W, 3) uint8; ``encoding`` states the order of the
    color channels.
    """
    height, width = pixels.shape[:2]
    data = np.ascontiguousarray(pixels, np.uint8).ravel()
    fields = {
        'height': height,
        'width': width,
        'encoding': encoding,
        'is_bigendian': 0,
        'step': 3 * width,
        'data': data,
    }
    return message('sensor_msgs/msg/Image', header=header(stamp_ns, frame_id), **fields)


def point_cloud(stamp_ns: int, frame_id: str, points: np.ndarray) -> Any:
    """Return a PointCloud2 with the layout ``LIDAR_POINT``; ``points`` (n, 5) are x y z in meters,
    intensity and ring.
    """
    cloud = np.zeros(len(points), LIDAR_POINT)
    layout: Mapping[str, tuple] = LIDAR_POINT.fields or {}
    for name, column in zip(layout, np.asarray(points).T, strict=True):
        cloud[name] = column
    fields = [
        message(
            'sensor_msgs/msg/PointField',
            name=name,
            offset=offset,
            datatype=_POINT_KINDS[kind.str],
            count=1,
        )
        for name, (kind, offset, *_) in layout.items()
    ]
    return message(
        'sensor_msgs/msg/PointCloud2', header=header(stamp_ns, frame_id), height=1,
        width=len(cloud), fields=fields, is_bigendian=False,
        point_step=LIDAR_POINT.itemsize, row_step=cloud.nbytes, data=cloud.view(np.uint8),
        is_dense=True,
    )  # fmt: skip


def detection_array(stamp_ns: int, frame_id: str, boxes: Annotated) -> Any:
    """Return annotations as detections with score 1. The field ``id`` of a detection is the id of
    the annotated object.
    """
    common = header(stamp_ns, frame_id)
    detections = [_detection(common, *row) for row in boxes.rows()]
    return message('vision_msgs/msg/Detection3DArray', header=common, detections=detections)


def _detection(
    common: Any,
    center: Iterable[float],
    size: Iterable[float],
    orientation: Iterable[float],
    class_name: str,
    name: str,
) -> Any:
    where = pose(center, orientation)
    uncertain = message(
        'geometry_msgs/msg/PoseWithCovariance', pose=where, covariance=np.zeros(36)
    )
    hypothesis = message('vision_msgs/msg/ObjectHypothesis', class_id=class_name, score=1.0)
    result = message(
        'vision_msgs/msg/ObjectHypothesisWithPose', hypothesis=hypothesis, pose=uncertain
    )
    box = message('vision_msgs/msg/BoundingBox3D', center=where, size=vector('Vector3', size))
    return message(
        'vision_msgs/msg/Detection3D', header=common, results=[result], bbox=box, id=name
    )


def marker_array(stamp_ns: int, frame_id: str, boxes: Annotated) -> Any:
    """Return markers that delete all earlier markers and show one cube per box. RViz keeps the
    cubes at their positions in ``frame_id`` when this frame moves.
    """
    common = header(stamp_ns, frame_id)
    clear = _marker(common, 0, _DELETE_ALL, (0, 0, 0), (1, 1, 1), (1, 0, 0, 0), '')
    cubes = [_marker(common, index, 0, *row[:4]) for index, row in enumerate(boxes.rows())]
    return message('visualization_msgs/msg/MarkerArray', markers=[clear, *cubes])


def _marker(
    common: Any,
    index: int,
    action: int,
    center: Iterable[float],
    size: Iterable[float],
    orientation: Iterable[float],
    class_name: str,
) -> Any:
    red, green, blue = (value / 255 for value in class_color(class_name))
    seconds, rest = divmod(_MARKER_LIFETIME_S, 1)
    color = message('std_msgs/msg/ColorRGBA', r=red, g=green, b=blue, a=_MARKER_ALPHA)
    lifetime = message(
        'builtin_interfaces/msg/Duration', sec=int(seconds), nanosec=math.floor(rest * 1e9)
    )
    texture = message(
        'sensor_msgs/msg/CompressedImage', header=header(0, ''), format='', data=_NO_BYTES
    )
    return message(
        'visualization_msgs/msg/Marker', header=common, ns='annotations', id=index, type=_CUBE,
        action=action, pose=pose(center, orientation),
        scale=vector('Vector3', size), color=color, lifetime=lifetime,
        frame_locked=True,
        points=[], colors=[], texture_resource='', texture=texture, uv_coordinates=[], text='',
        mesh_resource='',
        mesh_file=message('visualization_msgs/msg/MeshFile', filename='', data=_NO_BYTES),
        mesh_use_embedded_materials=False,
    )  # fmt: skip


_NO_BYTES = np.zeros(0, np.uint8)
