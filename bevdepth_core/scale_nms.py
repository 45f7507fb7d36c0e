"""Scale NMS: scales the footprint of each box by a factor that depends on its class, and then
drops each box whose footprint overlaps the footprint of a kept box with a better score by more
than a limit.

Two detections of one small object, such as a traffic cone, often do not overlap; a factor above 1
makes their footprints overlap. Detections of two large objects that park side by side may overlap
because of errors of position or size; a factor below 1 separates their footprints.

Source: BEVDet (arXiv 2112.11790), section 3.3.
"""

from __future__ import annotations

import numpy as np

from bevdepth_core.types import Boxes3D


def scale_nms(boxes: Boxes3D, factors: np.ndarray, max_overlap: float) -> np.ndarray:
    """Return the (m,) int64 indices of the boxes to keep, in ascending order.

    Args:
        boxes: n boxes, best score first.
        factors: (n,) scale of length and width of each box.
        max_overlap: a box is dropped if the intersection over union of its footprint and the
            footprint of a kept box is larger than this.
    """
    footprints = _footprints(boxes, factors)
    reach = np.linalg.norm(boxes.size[:, :2], axis=1) / 2 * factors
    kept: list[int] = []
    for index, center in enumerate(boxes.center[:, :2]):
        distance = np.linalg.norm(boxes.center[kept, :2] - center, axis=1)
        near = np.asarray(kept, np.int64)[distance < reach[kept] + reach[index]]
        if all(overlap(footprints[index], footprints[other]) <= max_overlap for other in near):
            kept.append(index)
    return np.array(kept, np.int64)


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the intersection over union of two convex polygons, (n, 2) counterclockwise."""
    common = first
    for start, end in zip(second, np.roll(second, -1, axis=0), strict=True):
        common = _left_of(common, start, end)
    intersection = _area(common)
    return intersection / (_area(first) + _area(second) - intersection)


def _footprints(boxes: Boxes3D, factors: np.ndarray) -> np.ndarray:
    """Return the (n, 4, 2) float64 corners of the scaled boxes, counterclockwise."""
    signs = np.array([(1, 1), (-1, 1), (-1, -1), (1, -1)]) / 2
    local = signs * (boxes.size[:, :2].astype(np.float64) * factors[:, None])[:, None]
    cos, sin = np.cos(boxes.yaw, dtype=np.float64), np.sin(boxes.yaw, dtype=np.float64)
    rotation = np.stack((np.stack((cos, -sin), axis=-1), np.stack((sin, cos), axis=-1)), axis=1)
    return local @ rotation.swapaxes(1, 2) + boxes.center[:, None, :2]


def _left_of(polygon: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the part of a convex polygon on the left of the line from ``start`` to ``end``
    (Sutherland-Hodgman).
    """
    (dx, dy), offset = end - start, polygon - start
    side = dx * offset[:, 1] - dy * offset[:, 0]
    points: list[np.ndarray] = []
    for index, following in enumerate(np.roll(np.arange(len(polygon)), -1)):
        if side[index] >= 0:
            points.append(polygon[index])
        if side[index] * side[following] < 0:  # this edge crosses the line
            share = side[index] / (side[index] - side[following])
            points.append(polygon[index] + share * (polygon[following] - polygon[index]))
    return np.array(points).reshape(-1, 2)


def _area(polygon: np.ndarray) -> float:
    x, y = polygon.T
    return float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum() / 2)
