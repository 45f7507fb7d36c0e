"""A map for each town: where it lies, and the mask of its road as nuScenes' semantic prior."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bevdepth_core.nuscenes.synthetic.scene import Road

PIXELS_PER_M = 10
"""The devkit takes every mask for one of 0.1 m."""
MARGIN_M = 100.0
"""Around the road; the devkit cuts squares of some 60 m around the vehicle out of a map and cannot leave it."""
_ON_ROAD = 255


def map_origin(road: Road) -> np.ndarray:
    """Return the (2,) world x and y, whole metres, of the map's lower left corner, which is (0, 0) in a dataset."""
    return np.floor(road.center.min(axis=0) - MARGIN_M)


def write_map(road: Road, path: Path) -> None:
    """Write the mask, 255 where the road with its sidewalks is; the last row of the picture is y = 0."""
    origin = map_origin(road)
    width, height = np.ceil((road.center.max(axis=0) + MARGIN_M - origin) * PIXELS_PER_M).astype(int)
    mask = np.zeros((height, width), np.uint8)
    sides = [road.pose(road.along, side * road.sidewalk_end)[0] - origin for side in (-1, 1)]
    outline = np.concatenate((sides[0], sides[1][::-1])) * PIXELS_PER_M
    cv2.fillPoly(mask, [np.rint((0, height) + outline * (1, -1)).astype(np.int32)], _ON_ROAD)
    if not cv2.imwrite(str(path), mask):
        raise OSError(f'{path} could not be written: is the disk full?')
