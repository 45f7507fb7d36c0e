"""Places pedestrians and cyclists: walking, waiting, crossing, riding."""

from __future__ import annotations

import math

import numpy as np

from bevdepth_core.synthetic.world.placer import Placer
from bevdepth_core.synthetic.world.road import CROSSING_CROSSWALK

_CROSSWALK_HALF_WIDTH = 1.6


def place_walkers(placer: Placer, start: float, stop: float) -> None:
    """Add people who walk on the sidewalks, alone or in pairs, and groups of people who stand."""
    rng, road = placer.rng, placer.road
    length = stop - start
    for _ in range(int(length * rng.uniform(0.16, 0.36))):
        side, direction = rng.choice((-1, 1)), rng.choice((-1, 1))
        along, speed = rng.uniform(start, stop), direction * rng.uniform(0.7, 1.8)
        first = rng.uniform(road.curb + 2.75, road.sidewalk_end - 0.3)
        for lateral in (first, first - 0.95)[: 2 if rng.random() < 0.3 else 1]:
            path = along + speed * placer.times
            drift = 0.12 * np.sin(path / 5 + along)
            if (
                lateral > road.curb + 2.7
                and not road.near_crossing(path[0], 9)
                and not road.near_crossing(path[-1], 9)
            ):
                placer.add_moving('pedestrian', path, side * (lateral + drift), margin=0.08)
    for _ in range(int(length * rng.uniform(0.01, 0.03)) + 1):
        _place_group(placer, rng.uniform(start, stop), rng.choice((-1, 1)))


def _place_group(placer: Placer, along: float, side: int) -> None:
    rng, road = placer.rng, placer.road
    middle = side * rng.uniform(road.curb + 2.2, road.sidewalk_end - 0.6)
    count = int(rng.integers(2, 5))
    first = rng.uniform(0, 2 * math.pi)
    for number in range(count):
        angle = first + number * 2 * math.pi / count + rng.normal(0, 0.15)
        reach = 0.75 + 0.1 * count
        place = along + reach * math.cos(angle), middle + reach * math.sin(angle)
        placer.add_standing(
            'pedestrian', *place, angle + math.pi + rng.normal(0, 0.3), margin=0.04
        )


def place_crossers(placer: Placer, crosswalk: float, from_s: float, until_s: float) -> None:
    """Add people who wait at the curb and then cross the road. Each person starts to cross at a
    random time between ``from_s`` and ``until_s``, in seconds.
    """
    rng, road = placer.rng, placer.road
    for _ in range(int(rng.integers(2, 7))):
        direction, speed = rng.choice((-1, 1)), rng.uniform(1.1, 1.7)
        starts = rng.uniform(from_s, max(from_s + 0.1, until_s))
        edge = road.curb + rng.uniform(0.5, 1.2)
        gone = np.clip((placer.times - starts) * speed, 0, None)
        before = np.clip(placer.times - starts + 6, None, 0) * speed
        lateral = direction * (-edge + np.minimum(gone, 2 * edge + 1.2) + np.maximum(before, -1.2))
        along = np.full_like(
            lateral, crosswalk + rng.uniform(-_CROSSWALK_HALF_WIDTH, _CROSSWALK_HALF_WIDTH)
        )
        placer.add_moving('pedestrian', along, lateral, margin=0.1)


def place_side_crossers(placer: Placer, from_s: float, until_s: float) -> None:
    """Add people who walk along the road and cross the side street. Each person starts to cross
    at a random time between ``from_s`` and ``until_s``, in seconds.
    """
    rng, road = placer.rng, placer.road
    if until_s < from_s + 1:
        return
    for _ in range(int(rng.integers(2, 6))):
        direction, speed, side = rng.choice((-1, 1)), rng.uniform(1.1, 1.6), rng.choice((-1, 1))
        starts = rng.uniform(from_s, until_s)
        along = road.crossing + direction * (
            -CROSSING_CROSSWALK
            + np.clip((placer.times - starts) * speed, -3, 2 * CROSSING_CROSSWALK + 3)
        )
        lateral = side * (road.curb + rng.uniform(0.8, 2.6))
        placer.add_moving('pedestrian', along, np.full_like(along, lateral), margin=0.1)


def place_cyclists(placer: Placer, start: float, stop: float) -> None:
    """Add cyclists in the bicycle lanes, or at the edges of a road without bicycle lanes."""
    rng, road = placer.rng, placer.road
    lateral = road.driving_half_width + (road.bike_lane / 2 if road.bike_lane else -0.45)
    count = int((stop - start) * rng.uniform(0.05, 0.10)) if road.bike_lane else 8
    for _ in range(count):
        side, speed = rng.choice((-1, 1)), rng.uniform(3.2, 6.0)
        path = rng.uniform(start, stop) - side * speed * placer.times
        wobble = 0.08 * np.sin(path / 3)
        placer.add_moving('bicycle', path, side * (lateral + wobble), margin=0.08)
