"""Converts published or recorded messages to boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray, LabelInfo

from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.detections.messages import BOX_FIELDS
from bevdepth_ros.rig.stamps import stamp_ns


def class_names(message: LabelInfo) -> tuple[str, ...]:
    """Return the class names in the order of the labels 0, 1, ..."""
    return tuple(
        entry.class_name for entry in sorted(message.class_map, key=lambda entry: entry.class_id)
    )


def detections_from_cloud(message: PointCloud2, names: Sequence[str]) -> Detections3D:
    """Return the detections in a message of ``~/objects``.

    If velocities are NaN, they become zero, and ``past_stamp_ns`` is None. If there are no boxes,
    ``past_stamp_ns`` is None, too. Otherwise ``past_stamp_ns`` is the stamp of the message,
    because the message does not contain the stamp of the past frame. In recordings of older
    versions, the detections have no ``track_ids``.

    Raises:
        ValueError: a field is missing, or the values are not valid boxes.
    """
    table = read_points(message)
    missing = set(BOX_FIELDS) - set(table.dtype.names or ())
    if missing:
        raise ValueError(
            f'the point cloud of objects does not have the fields {", ".join(sorted(missing))}'
        )

    def columns(*fields: str) -> np.ndarray:
        return np.stack([table[field] for field in fields], axis=-1)

    velocity = columns('vx', 'vy')
    stamp = stamp_ns(message)
    past_stamp_ns = stamp if np.isfinite(velocity).all() and len(velocity) else None
    boxes = Boxes3D(
        columns('x', 'y', 'z'),
        columns('length', 'width', 'height'),
        table['yaw'],
        np.nan_to_num(velocity),
    )
    has_tracks = 'track_id' in (table.dtype.names or ())
    return Detections3D(
        boxes,
        table['score'],
        table['label'].astype(np.int64),
        tuple(names),
        stamp,
        past_stamp_ns,
        track_ids=table['track_id'].astype(np.int64) if has_tracks else None,
    )


def boxes_from_array(
    message: Detection3DArray,
) -> tuple[Boxes3D, list[str], np.ndarray, list[str]]:
    """Return the boxes in a Detection3DArray, their class names, (n,) scores, and ids. The
    velocity of the boxes is 0, because the message does not contain velocities.

    Raises:
        ValueError: a detection has no class, or its values are not a valid box.
    """
    if not all(entry.results for entry in message.detections):
        raise ValueError('a detection has no class')
    poses = [entry.bbox.center for entry in message.detections]
    centers = [(pose.position.x, pose.position.y, pose.position.z) for pose in poses]
    sizes = [
        (entry.bbox.size.x, entry.bbox.size.y, entry.bbox.size.z) for entry in message.detections
    ]
    rotations = np.array(
        [(q.w, q.x, q.y, q.z) for q in (pose.orientation for pose in poses)]
    ).reshape(-1, 4)
    w, x, y, z = rotations.T
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    count = len(poses)
    boxes = Boxes3D(
        np.reshape(centers, (count, 3)), np.reshape(sizes, (count, 3)), yaw, np.zeros((count, 2))
    )
    hypotheses = [entry.results[0].hypothesis for entry in message.detections]
    scores = np.array([hypothesis.score for hypothesis in hypotheses])
    return (
        boxes,
        [hypothesis.class_id for hypothesis in hypotheses],
        scores,
        [entry.id for entry in message.detections],
    )
