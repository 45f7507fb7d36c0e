"""Parses a polygon on the ground and finds the points inside of it."""

from __future__ import annotations

import json

import numpy as np

MAX_CORNERS = 100
EXAMPLE = '[[-10, -20], [60, -20], [60, 20], [-10, 20]]'


def parse_region(text: str) -> np.ndarray | None:
    """Return the (k, 2) corners of a polygon from a text like ``EXAMPLE``, meters. Return None if
    the text is empty.

    Raises:
        ValueError: the text is not a valid polygon; the message gives the reason.
    """
    if not text.strip():
        return None
    try:
        corners = np.array(json.loads(text), np.float64)
    except (ValueError, TypeError, OverflowError, RecursionError):
        corners = np.empty(0)
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise ValueError(
            f'region_of_interest must be a list of corners [x, y] in meters, such as {EXAMPLE}, '
            f'got {text[:200]!r}'
        )
    fault = _fault(corners)
    if fault:
        raise ValueError(f'region_of_interest {fault}, got {text[:200]!r}')
    return corners


def inside(points: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Return a (n,) mask over the (n, 2) ``points``. The mask is True for the points inside the
    polygon with the (k, 2) ``corners``.
    """
    x, y = points[:, :1], points[:, 1:]
    (x1, y1), (x2, y2) = corners.T, np.roll(corners, -1, axis=0).T
    # From a point inside, a ray along +x crosses an odd number of edges.
    spans = (y1 > y) != (y2 > y)
    height = np.where(y1 == y2, 1.0, y2 - y1)  # avoids a division by 0
    crosses = spans & (x < x1 + (y - y1) / height * (x2 - x1))
    return crosses.sum(axis=1) % 2 == 1


def _fault(corners: np.ndarray) -> str | None:
    if not np.isfinite(corners).all():
        return 'must have finite coordinates'
    if not 3 <= len(corners) <= MAX_CORNERS:
        return f'must have 3 to {MAX_CORNERS} corners'
    following = np.roll(corners, -1, axis=0)
    if not np.any(_cross(corners - corners[0], following - corners[0])):
        return 'must have an area: its corners lie on one line'
    if _edges_cross(corners, following):
        return 'must not cross itself: list the corners in their order around the region'
    return None


def _edges_cross(start: np.ndarray, end: np.ndarray) -> bool:
    """Return True if two edges cross at a point that is not a corner."""
    edge = end - start

    def side(points: np.ndarray) -> np.ndarray:
        """Return (k, k) signs. Entry (i, j) is the side of edge i on which point j lies."""
        return np.sign(_cross(edge[:, None], points[None] - start[:, None]))

    splits = side(start) * side(end) < 0
    return bool((splits & splits.T).any())


def _cross(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
