"""Writes the map of each scene. A map is an image that marks roads and sidewalks; nuScenes calls
this image the semantic prior.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from bevdepth_core.synthetic.world.road import CROSS_SIDEWALK_END, Road

PIXELS_PER_M = 10
"""Resolution of the map; the devkit assumes 0.1 m per pixel."""
MARGIN_M = 100.0
"""Smallest distance from the center line of the road to the edges of the map, meters. The devkit
crops a square of about 60 m around the vehicle, and this square must lie inside the map."""
_ON_ROAD = 255
_CROSSING_REACH_M = 150.0
"""Distance from the center line of the road to either end of the crossing street, meters. The
edges of the map may cut off the ends of the street."""


def map_origin(road: Road) -> np.ndarray:
    """Return the (2,) x and y of the lower left corner of the map in the synthetic world, rounded
    down to whole meters. This corner is the origin of the world frame of the dataset.
    """
    return np.floor(road.center.min(axis=0) - MARGIN_M)


def write_map(road: Road, path: Path) -> None:
    """Write the map: pixels of roads and sidewalks are 255, and all other pixels are 0.

    The lower edge of the image is y = 0 of the dataset's world frame, and the left edge is x = 0.

    Raises:
        OSError: the file cannot be written.
    """
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
    """Return the outlines of the road and, if there is one, of the crossing street; each is an
    (n, 2) array of world positions.
    """
    right, left = (road.pose(road.along, side * road.sidewalk_end)[0] for side in (-1, 1))
    outlines = [np.concatenate((right, left[::-1]))]
    if road.crossing is not None:
        corners = np.array(((-1, -1), (1, -1), (1, 1), (-1, 1))) * (
            CROSS_SIDEWALK_END,
            _CROSSING_REACH_M,
        )
        outlines.append(road.pose(road.crossing + corners[:, 0], corners[:, 1])[0])
    return outlines
