"""Writes the map of each scene: a mask of the road, the semantic prior of nuScenes."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bevdepth_core.synthetic.world.road import CROSS_SIDEWALK_END, Road

PIXELS_PER_M = 10
"""Resolution of the mask; the devkit assumes 0.1 m per pixel."""
MARGIN_M = 100.0
"""Margin around the road, meters. The devkit crops squares of about 60 m around the vehicle,
which must lie inside the map."""
_ON_ROAD = 255
_CROSSING_REACH = 150.0


def map_origin(road: Road) -> np.ndarray:
    """Return the (2,) world x and y of the lower left corner of the map, in integer meters;
    this corner is the origin of the dataset's world frame.
    """
    return np.floor(road.center.min(axis=0) - MARGIN_M)


def write_map(road: Road, path: Path) -> None:
    """Write the mask, which is 255 on roads and sidewalks; the last row of the image is y = 0."""
    origin = map_origin(road)
    width, height = np.ceil((road.center.max(axis=0) + MARGIN_M - origin) * PIXELS_PER_M).astype(
        int
    )
    mask = np.zeros((height, width), np.uint8)
    for outline in _outlines(road):
        pixels = (0, height) + (outline - origin) * (PIXELS_PER_M, -PIXELS_PER_M)
        cv2.fillPoly(mask, [np.rint(pixels).astype(np.int32)], _ON_ROAD)
    if not cv2.imwrite(str(path), mask):
        raise OSError(f'{path} could not be written: is the disk full?')


def _outlines(road: Road) -> list[np.ndarray]:
    """Return the (n, 2) world outlines of the road and of the street that crosses it."""
    right, left = (road.pose(road.along, side * road.sidewalk_end)[0] for side in (-1, 1))
    outlines = [np.concatenate((right, left[::-1]))]
    if road.crossing is not None:
        corners = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (
            CROSS_SIDEWALK_END,
            _CROSSING_REACH,
        )
        outlines.append(road.pose(road.crossing + corners[:, 0], corners[:, 1])[0])
    return outlines
