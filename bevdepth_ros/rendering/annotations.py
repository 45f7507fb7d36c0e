"""Interpolates annotated boxes, which a recording contains at 2 Hz, to any time."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np

from bevdepth_core.geometry import invert_rigid
from bevdepth_core.types import Boxes3D
from bevdepth_core.visualization import GroundTruth

MAX_GAP_NS = 1_100_000_000
"""Annotations further apart are not interpolated; nuScenes has two per second."""
SAME_TIME_NS = 60_000_000
"""Objects without an id are shown only this close to their annotation."""


@dataclass(frozen=True)
class Annotation:
    """Annotated boxes at one time.

    Attributes:
        stamp_ns: time of the annotation.
        boxes: in the world frame, velocity zero.
        labels: (n,) class index.
        ids: id of each object, the same at all times; empty for an object without id.
    """

    stamp_ns: int
    boxes: Boxes3D
    labels: np.ndarray
    ids: tuple[str, ...]


def transformed(boxes: Boxes3D, target_from_source: np.ndarray) -> Boxes3D:
    """Return boxes in another upright frame; ``target_from_source`` is (4, 4), rigid."""
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
        """Keep the newest ``longest`` annotations."""
        self._longest = longest
        self._history: list[Annotation] = []

    def __len__(self) -> int:
        return len(self._history)

    def add(self, annotation: Annotation) -> None:
        """Add an annotation; it replaces one of the same time."""
        self._history = [known for known in self._history if known.stamp_ns != annotation.stamp_ns]
        self._history.insert(bisect_left(self._stamps(), annotation.stamp_ns), annotation)
        del self._history[: -self._longest]

    def at(self, stamp_ns: int, world_from_ego: np.ndarray) -> GroundTruth | None:
        """Return the annotated boxes at a time; None if no annotation is near.

        Objects with an id are interpolated linearly between the annotations before and after, or
        extrapolated from the last two if there is no later one. Objects without an id are returned
        only close to their annotation.

        Args:
            stamp_ns: time of the boxes.
            world_from_ego: (4, 4) pose of the frame to return boxes in.
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
        """Return the annotations before and after a time, or the first or last two if all are on
        one side.
        """
        if not self._history:
            return None
        after = min(max(bisect_left(self._stamps(), stamp_ns), 1), len(self._history) - 1)
        return self._history[max(after - 1, 0)], self._history[after]


def _at(
    nearest: Annotation, pair: tuple[Annotation, Annotation], stamp_ns: int
) -> tuple[Boxes3D, np.ndarray]:
    """Return the boxes of ``nearest`` at another time, and which of them are valid there."""
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
