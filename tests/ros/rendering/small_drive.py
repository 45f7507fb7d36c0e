"""Writes a short synthetic drive as two bags. The first bag has no detections. The second bag has
the ground-truth boxes as recorded detections.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader, Writer

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.synthetic import make_scene
from bevdepth_core.types import Detections3D
from bevdepth_ros.bags.writer import message_types
from bevdepth_ros.demo import Snapshot, render_drive, write_bag
from bevdepth_ros.detections.messages import objects_cloud

SIZE = (320, 180)
OBJECTS_TOPIC = '/bevdepth_detector/objects'
RESULT_DELAY_NS = 80_000_000
"""Time from the stamp of an image set to the time at which its detections are recorded."""


def draw(seconds: float, size: tuple[int, int] = SIZE) -> list[Snapshot]:
    """Return the image sets of a drive, two per second."""
    return render_drive(make_scene(8, seconds), seconds, size)


def detections(snapshot: Snapshot) -> Detections3D:
    """Return the ground-truth boxes of an image set as detections with a score of 0.9."""
    scores = np.full(len(snapshot.boxes), 0.9)
    return Detections3D(
        snapshot.boxes,
        scores,
        snapshot.labels,
        NUSCENES_CLASSES,
        snapshot.stamp_ns,
        snapshot.stamp_ns,
    )


def record(
    snapshots: list[Snapshot],
    folder: Path,
    size: tuple[int, int] = SIZE,
    left_out: str = 'nothing',
) -> tuple[Path, Path]:
    """Write a drive to ``folder`` as two bags, and return the paths of both bags.

    The first bag contains no detections. The second bag contains detections, but no topics of the
    camera ``left_out``.
    """
    plain, with_objects = folder / 'plain', folder / 'with_objects'
    write_bag(snapshots, plain, size)
    objects_messages = [
        (
            snapshot.stamp_ns + RESULT_DELAY_NS,
            serialize_message(objects_cloud(detections(snapshot), 'base_link')),
        )
        for snapshot in snapshots
    ]
    with Reader(plain) as reader, Writer(with_objects, version=8) as writer:
        copies = {
            each.id: writer.add_connection(
                each.topic,
                each.msgtype,
                typestore=message_types(),
                offered_qos_profiles=each.ext.offered_qos_profiles,
            )
            for each in reader.connections
            if not each.topic.startswith(f'/{left_out}/')
        }
        objects = writer.add_connection(
            OBJECTS_TOPIC, 'sensor_msgs/msg/PointCloud2', typestore=message_types()
        )
        rows = [
            (stamp, copies[each.id], data)
            for each, stamp, data in reader.messages()
            if each.id in copies
        ]
        rows += [(stamp, objects, data) for stamp, data in objects_messages]
        for stamp, connection, data in sorted(rows, key=lambda row: row[0]):
            writer.write(connection, stamp, data)
    return plain, with_objects
