"""Provides three detected objects of three classes, and tracks of these objects."""

from __future__ import annotations

import math

import numpy as np

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Boxes3D, Detections3D

STAMP_NS = 1_531_883_530_425_082_368
CLASSES = ('car', 'pedestrian', 'hovercraft')


def detections(past_stamp_ns: int | None = STAMP_NS - 500_000_000) -> Detections3D:
    boxes = Boxes3D(
        center=[[10, -4, 0.8], [-20, 5, 1], [3, 3, 0]],
        size=[[4.6, 1.9, 1.7], [0.7, 0.6, 1.8], [8, 3, 2]],
        yaw=[0.5, -2.0, math.pi],
        velocity=[[6, -1], [0.1, 0], [0, 2]],
    )
    return Detections3D(boxes, [0.9, 0.5, 0.2], [0, 1, 2], CLASSES, STAMP_NS, past_stamp_ns)


def tracks(
    ids: tuple[int, ...], rows: tuple[int, ...], age_s: tuple[float, ...] | None = None
) -> Tracks3D:
    """Return one track for each of ``rows``. A row is the index of the detection whose box, score
    and class the track has. The row -1 stands for a track without a detection in this image set;
    this track has the box, score and class of the third detection.
    """
    found, count, index = detections(), len(ids), np.array(rows)
    return Tracks3D(
        boxes=found.boxes[index], ids=np.array(ids), scores=found.scores[index],
        labels=found.labels[index], pose_covariance=np.zeros((count, 4, 4)),
        velocity_covariance=np.zeros((count, 2, 2)),
        age_s=np.ones(count) if age_s is None else np.array(age_s),
        coasted_s=np.zeros(count), detections=index, class_names=CLASSES, stamp_ns=STAMP_NS,
    )  # fmt: skip
