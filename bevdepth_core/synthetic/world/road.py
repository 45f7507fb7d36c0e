"""Creates the road and the street that crosses it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

LANE_WIDTH = 3.4
BIKE_LANE_WIDTH = 1.5
PARKING_WIDTH = 2.4
SIDEWALK_WIDTH = 4.6

CROSS_HALF_WIDTH = LANE_WIDTH
"""Half width of the crossing street, meters: one lane per direction, no parking."""
CROSS_CURB = CROSS_HALF_WIDTH + 0.2
CROSS_SIDEWALK_END = CROSS_CURB + 2.6
CROSSING_CROSSWALK, CROSSING_STOP, CROSSING_CLEAR = 7.4, 10.4, 16.0
"""Distances along the road from the middle of a crossing, meters: crosswalks, stop lines, and the
start of parking lanes."""

ROAD_STEP = 0.5
_STRAIGHT, _BENDING = 30.0, 60.0


@dataclass(frozen=True, eq=False)
class Road:
    """A two-way road on flat ground. Road coordinates are the distance along the center line and
    the distance to the left of the center line, both in meters.

    Attributes:
        along: (m,) increasing distances along the center line, meters.
        center: (m, 2) world x and y of the center line.
        heading: (m,) heading of the center line, radians.
        lanes: number of lanes per direction; vehicles drive on the right.
        bike_lane: width of each bicycle lane in meters, 0 for a road without bicycle lanes.
        crossing: position along the road at which a street crosses at a right angle; the road is
            straight there. None if no street crosses.
    """

    along: np.ndarray
    center: np.ndarray
    heading: np.ndarray
    lanes: int
    bike_lane: float = 0.0
    crossing: float | None = None

    @property
    def driving_half_width(self) -> float:
        return self.lanes * LANE_WIDTH

    @property
    def parking(self) -> float:
        """Return the lateral position at which the parking lane begins."""
        return self.driving_half_width + self.bike_lane

    @property
    def curb(self) -> float:
        return self.parking + PARKING_WIDTH

    @property
    def sidewalk_end(self) -> float:
        return self.curb + SIDEWALK_WIDTH

    def lane_center(self, lane: int) -> float:
        """Return the lateral position of the center of lane number ``lane`` on the right side;
        lane 0 is next to the center line. For the oncoming lane, negate the result.
        """
        return -(lane + 0.5) * LANE_WIDTH

    def required_crossing(self) -> float:
        """Return the position of the crossing street, for code that needs a crossing street.

        Raises:
            ValueError: no street crosses this road.
        """
        if self.crossing is None:
            raise ValueError('no street crosses this road')
        return self.crossing

    def near_crossing(self, along: float, distance: float) -> bool:
        return self.crossing is not None and abs(along - self.crossing) < distance

    def pose(self, along: ArrayLike, lateral: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """Return (..., 2) world positions and (...) headings of road coordinates."""
        along, lateral = np.broadcast_arrays(
            np.asarray(along, np.float64), np.asarray(lateral, np.float64)
        )
        heading = np.interp(along, self.along, self.heading)
        x = np.interp(along, self.along, self.center[:, 0]) - np.sin(heading) * lateral
        y = np.interp(along, self.along, self.center[:, 1]) + np.cos(heading) * lateral
        return np.stack((x, y), axis=-1), heading


def make_road(rng: np.random.Generator, start: float, stop: float, crossing: float | None) -> Road:
    """Return a winding road from position ``start`` to position ``stop``, meters. The road is
    straight near the position ``crossing``.
    """
    along = np.arange(start, stop, ROAD_STEP)
    curvature = np.zeros_like(along)
    winding = rng.uniform(0.2, 1.25) * 0.0069
    for wavelength in (rng.uniform(190, 260), rng.uniform(90, 130)):
        curvature += (
            winding * rng.choice((-1, 1)) * np.cos(2 * np.pi * (along / wavelength + rng.random()))
        )
    if crossing is not None:
        curvature *= np.clip((np.abs(along - crossing) - _STRAIGHT) / (_BENDING - _STRAIGHT), 0, 1)
    heading = rng.uniform(-np.pi, np.pi) + ROAD_STEP * np.cumsum(curvature)
    steps = ROAD_STEP * np.stack((np.cos(heading), np.sin(heading)), axis=-1)
    center = rng.uniform(400, 1600, 2) + np.cumsum(steps, axis=0)
    bike_lane = BIKE_LANE_WIDTH if rng.random() < 0.6 else 0.0
    return Road(along, center, heading, int(rng.integers(1, 3)), bike_lane, crossing)
