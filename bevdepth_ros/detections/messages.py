"""Converts detections to the messages of rclpy: point cloud, markers, labels and latency.

``serialized`` creates the message of ``~/detections``. ``bags.messages`` creates the same messages
with the classes of rosbags, because bags are also written on machines without ROS.
"""

from __future__ import annotations

import array
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Pose, Quaternion, Vector3
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import ColorRGBA, Header
from vision_msgs.msg import LabelInfo, VisionClass
from visualization_msgs.msg import Marker, MarkerArray

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Detections3D
from bevdepth_core.visualization import MIN_ARROW_MPS, class_color

BOX_FIELDS = ('x', 'y', 'z', 'length', 'width', 'height', 'yaw', 'vx', 'vy', 'score', 'label')
"""Fields of ``~/objects`` that ``readings`` requires. Recordings of older versions contain only
these fields."""
TRACK_FIELDS = ('vx_variance', 'vx_vy_covariance', 'vy_variance', 'track_id')
OBJECT_FIELDS = (*BOX_FIELDS, *TRACK_FIELDS)
"""Fields of ``~/objects``. ``label`` and ``track_id`` are uint32. All other fields are float32."""

_OBJECT = np.dtype(
    [(name, '<u4' if name in ('label', 'track_id') else '<f4') for name in OBJECT_FIELDS]
)

TRAIL_MIN_M = 1.0
"""A track has a trail only if it moved at least this distance, in meters."""


def header(stamp_ns: int, frame_id: str) -> Header:
    """Return a header with the stamp ``stamp_ns``, nanoseconds, and the tf frame ``frame_id``."""
    return Header(stamp=Time(nanoseconds=stamp_ns).to_msg(), frame_id=frame_id)


def label_info(class_names: tuple[str, ...], score_threshold: float, stamp: Header) -> LabelInfo:
    """Return the table that maps each ``label`` in ``~/objects`` to the class name that
    ``class_id`` in ``~/detections`` contains.
    """
    classes = [
        VisionClass(class_id=label, class_name=name) for label, name in enumerate(class_names)
    ]
    return LabelInfo(header=stamp, class_map=classes, threshold=float(score_threshold))


def objects_cloud(
    detections: Detections3D,
    frame_id: str,
    velocity_covariance: np.ndarray | None = None,
) -> PointCloud2:
    """Return one point per box with ``OBJECT_FIELDS``.

    Args:
        detections: the boxes. If no past frame was used, vx, vy and their covariance are NaN. If
            the boxes have no track ids, ``track_id`` is 0.
        frame_id: tf frame of the boxes.
        velocity_covariance: (n, 2, 2) covariance of vx and vy, (m/s)^2. If it is None, the fields
            of the covariance are NaN.
    """
    points = np.zeros(len(detections), _OBJECT)
    boxes = detections.boxes
    columns = (
        *boxes.center.T,
        *boxes.size.T,
        boxes.yaw,
        *boxes.velocity.T,
        detections.scores,
        detections.labels,
    )
    for name, column in zip(BOX_FIELDS, columns, strict=True):
        points[name] = column
    has_velocities = detections.past_stamp_ns is not None
    if not has_velocities:
        points['vx'] = points['vy'] = np.nan
    spread = np.full((len(points), 2, 2), np.nan)
    is_dense = has_velocities and velocity_covariance is not None
    if has_velocities and velocity_covariance is not None:
        spread[:] = velocity_covariance
    points['vx_variance'], points['vy_variance'] = spread[:, 0, 0], spread[:, 1, 1]
    points['vx_vy_covariance'] = spread[:, 0, 1]
    points['track_id'] = 0 if detections.track_ids is None else detections.track_ids
    kinds = {'<f4': PointField.FLOAT32, '<u4': PointField.UINT32}
    fields = [
        PointField(name=name, offset=4 * index, datatype=kinds[_OBJECT[name].str], count=1)
        for index, name in enumerate(OBJECT_FIELDS)
    ]
    return PointCloud2(
        header=header(detections.stamp_ns, frame_id), height=1, width=len(points), fields=fields,
        is_bigendian=False,
        point_step=_OBJECT.itemsize, row_step=points.nbytes, is_dense=is_dense,
        data=array.array('B', points.tobytes()),
    )  # fmt: skip


def marker_array(
    detections: Detections3D,
    frame_id: str,
    lifetime_s: float,
    tracks: Tracks3D | None = None,
    trails: Sequence[np.ndarray] = (),
) -> MarkerArray:
    """Return markers that replace all earlier markers: a cube and a label per box, an arrow per
    moving box if a past frame was used, and the trails of the tracks.

    Args:
        detections: the boxes. If a box has a track id, its label ends with this id.
        frame_id: tf frame of the boxes.
        lifetime_s: how long RViz shows the markers, seconds.
        tracks: tracks at the stamp of ``detections``.
        trails: (k, 3) past and present positions of each track in ``frame_id``, meters.
    """
    common = header(detections.stamp_ns, frame_id)
    lifetime = Duration(sec=int(lifetime_s), nanosec=int(lifetime_s % 1 * 1e9))
    message = MarkerArray(markers=[Marker(header=common, action=Marker.DELETEALL)])
    ids = [0] * len(detections) if detections.track_ids is None else detections.track_ids
    for index, (center, size, yaw, score, label) in enumerate(_rows(detections)):
        name = detections.class_names[label]
        identity = f' #{ids[index]}' if ids[index] else ''
        text = f'{name} {score:.2f}{identity}'
        markers = [_box(center, size, yaw, name), _text(center, size, text)]
        if detections.past_stamp_ns is not None:
            velocity = detections.boxes.velocity[index].tolist()
            markers += (
                [_arrow(center, velocity, name)] if math.hypot(*velocity) > MIN_ARROW_MPS else []
            )
        for marker in markers:
            marker.header, marker.id, marker.lifetime = common, index, lifetime
        message.markers += markers
    for marker in _trails(tracks, trails) if tracks is not None else ():
        marker.header, marker.lifetime = common, lifetime
        message.markers.append(marker)
    return message


def latency_record(
    detections: Detections3D,
    cameras: tuple[str, ...],
    all_cameras: tuple[str, ...],
    seconds: Mapping[str, float],
    frame_id: str,
) -> DiagnosticArray:
    """Return the message for ``~/latency``. The message contains the used cameras, the left-out
    cameras, the age of the past frame in seconds, and the duration of each stage in milliseconds.
    The header of the message is equal to the header of ``~/detections``.
    """
    past_ns = detections.past_stamp_ns
    values = {
        'cameras': ', '.join(cameras),
        'left_out': ', '.join(camera for camera in all_cameras if camera not in cameras) or 'none',
        'past_frame_age_s': 'none'
        if past_ns is None
        else f'{(detections.stamp_ns - past_ns) * 1e-9:.3f}',
        **{f'{stage}_ms': f'{duration * 1e3:.2f}' for stage, duration in seconds.items()},
    }
    status = DiagnosticStatus(
        name='latency', values=[KeyValue(key=key, value=value) for key, value in values.items()]
    )
    return DiagnosticArray(header=header(detections.stamp_ns, frame_id), status=[status])


def _color(name: str, alpha: float) -> ColorRGBA:
    red, green, blue = class_color(name)
    return ColorRGBA(r=red / 255, g=green / 255, b=blue / 255, a=alpha)


def _rows(detections: Detections3D) -> Iterator[tuple]:
    """Yield center, size, yaw, score and label of each box as plain Python numbers."""
    boxes = detections.boxes
    columns = (boxes.center, boxes.size, boxes.yaw, detections.scores, detections.labels)
    return zip(*(column.tolist() for column in columns), strict=True)


def _pose(center: Sequence[float], yaw: float) -> Pose:
    x, y, z = center
    return Pose(
        position=Point(x=x, y=y, z=z),
        orientation=Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2)),
    )


def _box(center: Sequence[float], size: Sequence[float], yaw: float, name: str) -> Marker:
    length, width, height = size
    scale = Vector3(x=length, y=width, z=height)
    return Marker(
        ns='boxes', type=Marker.CUBE, pose=_pose(center, yaw), scale=scale, color=_color(name, 0.5)
    )


def _text(center: Sequence[float], size: Sequence[float], text: str) -> Marker:
    x, y, z = center
    above = _pose((x, y, z + size[2] / 2 + 0.5), 0.0)
    white = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
    return Marker(
        ns='labels',
        type=Marker.TEXT_VIEW_FACING,
        pose=above,
        scale=Vector3(z=0.6),
        color=white,
        text=text,
    )


def _arrow(center: Sequence[float], velocity: Sequence[float], name: str) -> Marker:
    """Return an arrow from the center of a box to its predicted center one second later."""
    (x, y, z), (vx, vy) = center, velocity
    points = [Point(x=x, y=y, z=z), Point(x=x + vx, y=y + vy, z=z)]
    return Marker(
        ns='velocities',
        type=Marker.ARROW,
        points=points,
        scale=Vector3(x=0.15, y=0.35, z=0.4),
        color=_color(name, 1.0),
    )


def _trails(tracks: Tracks3D, trails: Sequence[np.ndarray]) -> Iterator[Marker]:
    """Yield a line for every track that has moved. The id of the marker is the id of the track."""
    for track_id, label, trail in zip(
        tracks.ids.tolist(), tracks.labels.tolist(), trails, strict=True
    ):
        if np.linalg.norm(trail[-1] - trail[0]) < TRAIL_MIN_M:
            continue
        yield Marker(
            ns='trails',
            id=track_id % 2**31,
            type=Marker.LINE_STRIP,
            points=[Point(x=x, y=y, z=z) for x, y, z in trail.tolist()],
            scale=Vector3(x=0.12),
            color=_color(tracks.class_names[label], 0.8),
        )
