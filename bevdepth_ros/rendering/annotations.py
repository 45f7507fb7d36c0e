"""Computes annotated boxes at any time by interpolation. A recording contains annotations at only
2 Hz.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from bevdepth_core.geometry import invert_rigid
from bevdepth_core.types import Boxes3D
from bevdepth_core.visualization import GroundTruth

MAX_GAP_NS = 1_100_000_000
"""Boxes are interpolated only if the two annotations are at most this far apart in time, in
nanoseconds. nuScenes has two annotations per second."""
SAME_TIME_NS = 60_000_000
"""An object that cannot be interpolated is shown only if the time of the scene differs from the
time of its annotation by at most this, in nanoseconds. An object cannot be interpolated if it has
no id, if only one of the two annotations contains its id, or if the annotations are more than
``MAX_GAP_NS`` apart."""


@dataclass(frozen=True)
class Annotation:
    """Annotated boxes at one time.

    Attributes:
        stamp_ns: time of the annotation, nanoseconds.
        boxes: the n boxes; their velocity is 0, because annotations contain no velocity. In an
            ``AnnotationHistory``, the boxes are in the world frame.
        labels: (n,) class index of each box.
        ids: id of the object in each box. An object has the same id in all annotations. An empty
            id means that the id is unknown.
    """

    stamp_ns: int
    boxes: Boxes3D
    labels: np.ndarray
    ids: tuple[str, ...]


def transformed(boxes: Boxes3D, target_from_source: np.ndarray) -> Boxes3D:
    """Transform boxes to another frame. Only the yaw angle of the rotation changes their
    orientation, so the boxes stay upright. ``target_from_source`` is (4, 4), rigid.
    """
    rotation, shift = target_from_source[:3, :3], target_from_source[:3, 3]
    turn = np.arctan2(rotation[1, 0], rotation[0, 0])
    return Boxes3D(
        boxes.center @ rotation.T + shift,
        boxes.size,
        boxes.yaw + turn,
        boxes.velocity @ rotation[:2, :2].T,
    )


class AnnotationHistory:
    """Annotations in order of time."""

    def __init__(self, longest: int):
        """Start without annotations. ``longest`` is the largest number of stored annotations; if
        there are more, the oldest annotations are dropped.
        """
        self._longest = longest
        self._history: list[Annotation] = []

    def __len__(self) -> int:
        return len(self._history)

    def add(self, annotation: Annotation) -> None:
        """Add an annotation. If an annotation with the same stamp is stored, replace it."""
        self._history = [known for known in self._history if known.stamp_ns != annotation.stamp_ns]
        self._history.insert(bisect_left(self._stamps(), annotation.stamp_ns), annotation)
        del self._history[: -self._longest]

    def at(self, stamp_ns: int, world_from_ego: np.ndarray) -> GroundTruth | None:
        """Return the annotated boxes at a time, in the ego frame. Return None if no annotation is
        within ``MAX_GAP_NS / 2`` of this time, or if no object of the nearest annotation is valid
        at this time.

        The result has the objects of the nearest annotation. They are interpolated linearly
        between the annotation before and the annotation after this time. If all annotations are
        earlier, or all are later, the objects are extrapolated from the two nearest annotations.
        For objects that cannot be interpolated, see ``SAME_TIME_NS``.

        Args:
            stamp_ns: time of the boxes, nanoseconds.
            world_from_ego: (4, 4) pose of the ego frame at this time.
        """
        pair = self._pair(stamp_ns)
        if pair is None:
            return None
        nearest = min(pair, key=lambda known: abs(known.stamp_ns - stamp_ns))
        if abs(nearest.stamp_ns - stamp_ns) > MAX_GAP_NS / 2:
            return None
        boxes, keep = _at(nearest, pair, stamp_ns)
        if len(keep) and not keep.any():
            return None
        return transformed(boxes[keep], invert_rigid(world_from_ego)), nearest.labels[keep]

    def _stamps(self) -> list[int]:
        return [known.stamp_ns for known in self._history]

    def _pair(self, stamp_ns: int) -> tuple[Annotation, Annotation] | None:
        """Return the annotation before and the annotation after a time. If all annotations are
        later or all are earlier, return the two annotations that are nearest in time.
        """
        if not self._history:
            return None
        after = min(max(bisect_left(self._stamps(), stamp_ns), 1), len(self._history) - 1)
        return self._history[max(after - 1, 0)], self._history[after]


def _at(
    nearest: Annotation, pair: tuple[Annotation, Annotation], stamp_ns: int
) -> tuple[Boxes3D, np.ndarray]:
    """Move the boxes of ``nearest``, which is one annotation of ``pair``, to the time
    ``stamp_ns``. Return the moved boxes with their velocities, and a mask that is True for the
    boxes that are valid at this time. A box that cannot be interpolated is not moved, and has
    velocity 0.
    """
    other = pair[0] if nearest is pair[1] else pair[1]
    span_s = (other.stamp_ns - nearest.stamp_ns) * 1e-9
    rows = {name: row for row, name in enumerate(other.ids) if name}
    partners = np.array([rows.get(name, -1) for name in nearest.ids], int)
    if not 0 < abs(span_s) <= MAX_GAP_NS * 1e-9:
        partners[:] = -1
    keep = (partners >= 0) | (abs(nearest.stamp_ns - stamp_ns) <= SAME_TIME_NS)
    center, yaw, velocity = (
        nearest.boxes.center.astype(float),
        nearest.boxes.yaw.astype(float),
        np.zeros((len(partners), 2)),
    )
    known = partners >= 0
    if known.any():
        share = (stamp_ns - nearest.stamp_ns) * 1e-9 / span_s
        way = other.boxes.center[partners[known]] - center[known]
        turn = other.boxes.yaw[partners[known]] - yaw[known]
        center[known] += way * share
        yaw[known] += (np.mod(turn + np.pi, 2 * np.pi) - np.pi) * share
        velocity[known] = way[:, :2] / span_s
    return Boxes3D(center, nearest.boxes.size, yaw, velocity), keep
