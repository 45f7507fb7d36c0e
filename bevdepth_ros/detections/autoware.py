"""Converts detections and tracks to messages of Autoware.

``autoware_perception_msgs`` is not a dependency: the functions take its module ``msg`` as an
argument, and ``autoware_messages`` returns the module if the package is installed.
"""

from __future__ import annotations

import importlib
import math
import uuid
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from geometry_msgs.msg import (
    Point,
    Pose,
    PoseWithCovariance,
    Quaternion,
    Twist,
    TwistWithCovariance,
    Vector3,
)

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import BoxCovariance
from bevdepth_ros.detections.messages import header
from bevdepth_ros.detections.serialized import pose_covariance

LABELS = (
    'CAR', 'TRUCK', 'BUS', 'TRAILER', 'MOTORCYCLE', 'BICYCLE', 'PEDESTRIAN', 'ANIMAL', 'HAZARD',
    'OVER_DRIVABLE', 'UNDER_DRIVABLE',
)  # fmt: skip
"""Labels of Autoware. A class whose name is equal to a label, ignoring case, has this label."""
OTHER_LABELS = {'CONSTRUCTION_VEHICLE': 'TRUCK'}
"""Labels of classes whose names are not labels. The label of all remaining classes is UNKNOWN."""


def autoware_messages() -> ModuleType | None:
    """Return the module of Autoware's perception messages, or None if it is not installed."""
    try:
        return importlib.import_module('autoware_perception_msgs.msg')
    except ImportError:
        return None


def detected_objects(
    msg: Any, detections: Detections3D, covariance: BoxCovariance, frame_id: str
) -> Any:
    """Return a DetectedObjects message.

    Args:
        msg: module that ``autoware_messages`` returned.
        detections: the boxes. If no past frame was used, the message contains no twist.
        covariance: covariance of the boxes.
        frame_id: tf frame of the boxes.
    """
    result = msg.DetectedObjects(header=header(detections.stamp_ns, frame_id))
    has_twist = detections.past_stamp_ns is not None
    rows = _rows(msg, detections, covariance.pose, covariance.velocity)
    for score, classification, shape, pose, twist in rows:
        kinematics = msg.DetectedObjectKinematics(
            pose_with_covariance=pose,
            has_position_covariance=True,
            orientation_availability=msg.DetectedObjectKinematics.AVAILABLE,
            has_twist=has_twist,
            has_twist_covariance=has_twist,
        )
        if has_twist:
            kinematics.twist_with_covariance = twist
        result.objects.append(
            msg.DetectedObject(
                existence_probability=score,
                classification=[classification],
                kinematics=kinematics,
                shape=shape,
            )
        )
    return result


def tracked_objects(msg: Any, tracks: Tracks3D, namespace: uuid.UUID, frame_id: str) -> Any:
    """Return a TrackedObjects message.

    Args:
        msg: module that ``autoware_messages`` returned.
        tracks: the tracks.
        namespace: namespace from which the UUIDs of the objects are computed. Each tracker needs a
            different namespace, because the track ids of every tracker begin with 1.
        frame_id: tf frame of the tracks.
    """
    result = msg.TrackedObjects(header=header(tracks.stamp_ns, frame_id))
    rows = _rows(msg, tracks, tracks.pose_covariance, tracks.velocity_covariance)
    for track_id, (score, classification, shape, pose, twist) in zip(
        tracks.ids.tolist(), rows, strict=True
    ):
        kinematics = msg.TrackedObjectKinematics(
            pose_with_covariance=pose,
            twist_with_covariance=twist,
            orientation_availability=msg.TrackedObjectKinematics.AVAILABLE,
        )
        tracked = msg.TrackedObject(
            existence_probability=score,
            classification=[classification],
            kinematics=kinematics,
            shape=shape,
        )
        identity = uuid.uuid5(namespace, str(track_id))
        tracked.object_id.uuid = np.frombuffer(identity.bytes, np.uint8)
        result.objects.append(tracked)
    return result


def _rows(
    msg: Any, objects: Detections3D | Tracks3D, pose: np.ndarray, velocity: np.ndarray
) -> Iterator[tuple[float, Any, Any, PoseWithCovariance, TwistWithCovariance]]:
    """Yield existence probability, classification, shape, pose and twist of each object. ``pose``
    is (n, 4, 4), the covariances of x, y, z and yaw; ``velocity`` is (n, 2, 2).
    """
    boxes, full = objects.boxes, pose_covariance(pose)
    twists = _twists(boxes, velocity)
    labels = [_label(msg, name) for name in objects.class_names]
    for index, twist in enumerate(twists):
        length, width, height = boxes.size[index].tolist()
        yield (
            float(objects.scores[index]),
            msg.ObjectClassification(label=labels[objects.labels[index]], probability=1.0),
            msg.Shape(
                type=msg.Shape.BOUNDING_BOX, dimensions=Vector3(x=length, y=width, z=height)
            ),
            _pose(boxes.center[index].tolist(), float(boxes.yaw[index]), full[index]),
            twist,
        )


def _label(msg: Any, class_name: str) -> int:
    name = class_name.upper()
    name = OTHER_LABELS.get(name, name if name in LABELS else 'UNKNOWN')
    kind = msg.ObjectClassification
    return getattr(kind, name, kind.UNKNOWN)  # older versions have fewer labels


def _pose(center: list[float], yaw: float, covariance: np.ndarray) -> PoseWithCovariance:
    x, y, z = center
    pose = Pose(
        position=Point(x=x, y=y, z=z),
        orientation=Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2)),
    )
    return PoseWithCovariance(pose=pose, covariance=covariance.ravel())


def _twists(boxes: Boxes3D, covariance: np.ndarray) -> Iterator[TwistWithCovariance]:
    """Yield the twist of each box as Autoware defines it: the velocity over ground, expressed in
    the axes of the box, x forward.
    """
    cos, sin = np.cos(boxes.yaw.astype(float)), np.sin(boxes.yaw.astype(float))
    box_from_frame = np.stack((cos, sin, -sin, cos), axis=-1).reshape(-1, 2, 2)
    velocity = (box_from_frame @ boxes.velocity[..., None])[..., 0]
    full = np.zeros((len(boxes), 6, 6))
    full[:, :2, :2] = box_from_frame @ covariance @ box_from_frame.transpose(0, 2, 1)
    for (x, y), matrix in zip(velocity.tolist(), full, strict=True):
        yield TwistWithCovariance(twist=Twist(linear=Vector3(x=x, y=y)), covariance=matrix.ravel())
