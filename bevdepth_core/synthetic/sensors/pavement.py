"""Outlines and colors of flat parts of the ground: grass, pavement, asphalt, markings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bevdepth_core.synthetic.world.road import (
    CROSS_CURB,
    CROSS_SIDEWALK_END,
    CROSSING_STOP,
    LANE_WIDTH,
    Road,
)
from bevdepth_core.synthetic.world.scene import Light, SyntheticScene

_VERGE_GREEN, _PAVING, _CURB, _JOINT = (
    (126, 128, 102),
    (178, 174, 166),
    (202, 200, 194),
    (156, 152, 146),
)
_PARKING, _ASPHALT, _TRACK, _PATCH, _TAR = (
    (124, 123, 121),
    (112, 113, 116),
    (103, 104, 107),
    (97, 98, 101),
    (66, 66, 68),
)
_PAINT_WHITE = (232, 232, 228)
_VERGE = 3.0
_DASH, _DASH_PERIOD = 3.0, 9.0
_STRIPE_WIDTH = 0.14
_PAVING_JOINT, _PAVING_SIGHT = 3.0, 45.0
_SIGHT, _CELL, _CROSS_REACH = 130.0, 10.0, 150.0


@dataclass(frozen=True, eq=False)
class Flat:
    """Outlines on the ground.

    Attributes:
        points: (p, 3) world points, one outline after the other.
        ends: (n + 1,) indices into ``points``; outline i is ``points[ends[i] : ends[i + 1]]``.
    """

    points: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, outlines: list[np.ndarray]) -> Flat:
        """Join (k, 2) world outlines."""
        flat = np.concatenate([np.zeros((0, 2)), *outlines])
        return cls(
            np.column_stack((flat, np.zeros(len(flat)))),
            np.cumsum([0, *(len(outline) for outline in outlines)]),
        )


def lit_flat(color: Sequence[float], light: Light) -> tuple[float, ...]:
    """Return the color of a level surface in the light of the scene."""
    gain = np.array(light.ambient) + np.array(light.sun) * light.to_sun[2]
    return tuple(float(value) for value in np.minimum(np.array(color) * gain, 250))


def layers_around(
    scene: SyntheticScene, place: np.ndarray
) -> tuple[Flat, list[tuple[float, ...]]]:
    """Return the flat layers around the (2,) world position ``place``, lowest first, and their lit
    colors.
    """
    nearest = scene.road.along[np.argmin(((scene.road.center - place) ** 2).sum(axis=1))]
    return _layers(scene, round(nearest / _CELL) * _CELL)


@lru_cache(maxsize=16)
def _layers(scene: SyntheticScene, nearest: float) -> tuple[Flat, list[tuple[float, ...]]]:
    """Return outlines around a position on the road, lowest first, and their lit colors."""
    road = scene.road
    along = np.arange(
        max(nearest - _SIGHT, road.along[0]), min(nearest + _SIGHT, road.along[-1]), 2.0
    )
    walk, curb, drive = road.sidewalk_end, road.curb, road.driving_half_width
    joints = np.arange(np.ceil(along[0] / _PAVING_JOINT) * _PAVING_JOINT, along[-1], _PAVING_JOINT)
    joints = joints[np.abs(joints - nearest) < _PAVING_SIGHT]
    lanes = [
        lane * LANE_WIDTH + offset
        for lane in range(-road.lanes, road.lanes)
        for offset in (0.85, 2.55)
    ]
    layers = [
        ([_strip(road, along, -walk - _VERGE, walk + _VERGE)], _VERGE_GREEN),
        ([_strip(road, along, -walk, walk), *_crossing(road, CROSS_SIDEWALK_END)], _PAVING),
        (
            [
                _rectangle(road, a, a + 0.03, *side)
                for a in joints
                for side in ((curb, walk), (-walk, -curb))
            ],
            _JOINT,
        ),
        (
            [_strip(road, along, -curb - 0.18, curb + 0.18), *_crossing(road, CROSS_CURB + 0.18)],
            _CURB,
        ),
        ([_strip(road, along, -curb, curb)], _PARKING),
        ([_strip(road, along, -drive, drive), *_crossing(road, CROSS_CURB)], _ASPHALT),
        ([_strip(road, along, lateral - 0.3, lateral + 0.3) for lateral in lanes], _TRACK),
        (_patches(scene, along), _PATCH),
        (_cracks(scene, along), _TAR),
        (_markings(scene, along), _PAINT_WHITE),
    ]
    colors = [lit_flat(color, scene.light) for outlines, color in layers for _ in outlines]
    return Flat.of([outline for outlines, _ in layers for outline in outlines]), colors


def _crossing(road: Road, half_width: float) -> list[np.ndarray]:
    """Return the outline of the crossing street, which extends ``half_width`` meters to both sides
    of its center line; an empty list if there is no crossing.
    """
    if road.crossing is None:
        return []
    return [
        _rectangle(
            road,
            road.crossing - half_width,
            road.crossing + half_width,
            -_CROSS_REACH,
            _CROSS_REACH,
        )
    ]


def _patches(scene: SyntheticScene, along: np.ndarray) -> list[np.ndarray]:
    """Return repaired patches of the road."""
    rng = np.random.default_rng(scene.seed)
    road, reach = scene.road, scene.road.curb - 2
    places = zip(
        np.arange(road.along[0], road.along[-1], 21.0),
        rng.uniform((-reach, 1.5, 0.8), (reach, 5.0, 1.6), (100, 3)),
        strict=False,
    )
    return [
        _rectangle(road, a, a + length, middle - width, middle + width)
        for a, (middle, length, width) in places
        if along[0] < a < along[-1]
    ]


def _cracks(scene: SyntheticScene, along: np.ndarray) -> list[np.ndarray]:
    """Return tarred cracks that wind along the road."""
    rng = np.random.default_rng(scene.seed + 1)
    road, outlines = scene.road, []
    for start in np.arange(road.along[0], road.along[-1] - 12, 17.0):
        lateral = rng.uniform(-road.curb, road.curb) + np.cumsum(rng.normal(0, 0.18, 9))
        if along[0] < start < along[-1]:
            steps = start + np.linspace(0, 10, 9)
            outlines.append(
                np.concatenate(
                    (road.pose(steps, lateral)[0], road.pose(steps[::-1], lateral[::-1] + 0.05)[0])
                )
            )
    return outlines


def _markings(scene: SyntheticScene, along: np.ndarray) -> list[np.ndarray]:
    """Return all white markings, including crosswalks."""
    road, outlines = scene.road, []
    for piece in _pieces(road, along):
        outlines += _lines_along(road, piece)
    for crosswalk in scene.crosswalks:
        if along[0] < crosswalk < along[-1]:
            outlines += _crosswalk(road, crosswalk)
    if road.crossing is not None and along[0] < road.crossing < along[-1]:
        outlines += _crossing_lines(road)
    return outlines


def _pieces(road: Road, along: np.ndarray) -> list[np.ndarray]:
    """Return the parts of the road positions ``along`` that are outside the crossing."""
    if road.crossing is None:
        return [along]
    pieces = (
        along[along < road.crossing - CROSSING_STOP],
        along[along > road.crossing + CROSSING_STOP],
    )
    return [piece for piece in pieces if len(piece) > 1]


def _lines_along(road: Road, along: np.ndarray) -> list[np.ndarray]:
    half, drive = _STRIPE_WIDTH / 2, road.driving_half_width
    edges = (drive, drive + road.bike_lane) if road.bike_lane else (drive,)
    outlines = [
        _strip(road, along, side * edge - half, side * edge + half)
        for side in (-1, 1)
        for edge in edges
    ]
    outlines += [_strip(road, along, offset - half, offset + half) for offset in (-0.14, 0.14)]
    dashes = np.arange(
        np.ceil(along[0] / _DASH_PERIOD) * _DASH_PERIOD, along[-1] - _DASH, _DASH_PERIOD
    )
    dividers = [side * lane * LANE_WIDTH for lane in range(1, road.lanes) for side in (-1, 1)]
    return outlines + [
        _rectangle(road, a, a + _DASH, lateral - half, lateral + half)
        for a in dashes
        for lateral in dividers
    ]


def _crosswalk(road: Road, middle: float) -> list[np.ndarray]:
    """Return the zebra stripes of a crosswalk, and a stop line for each direction of traffic. A
    crosswalk at a crossing only has the stop line for the vehicles that drive into the crossing.
    """
    curb, drive = road.curb, road.driving_half_width
    outlines = [
        _rectangle(road, middle - 1.8, middle + 1.8, a, a + 0.5)
        for a in np.arange(0.45 - curb, curb - 0.6, 1.0)
    ]
    before, beyond = (
        _rectangle(road, middle + a, middle + a + 0.4, *side)
        for a, side in ((-3.0, (-drive + 0.2, -0.4)), (2.6, (0.4, drive - 0.2)))
    )
    if not road.near_crossing(middle, CROSSING_STOP):
        return [*outlines, before, beyond]
    return [*outlines, before if middle < road.required_crossing() else beyond]


def _crossing_lines(road: Road) -> list[np.ndarray]:
    """Return the crossing street's center line, zebra stripes and stop lines."""
    outlines, half, curb, crossing = [], _STRIPE_WIDTH / 2, road.curb, road.required_crossing()
    for side in (-1, 1):
        ends = sorted((side * (curb + 5.5), side * _CROSS_REACH))
        outlines.append(_rectangle(road, crossing - half, crossing + half, *ends))
        walk, stop = (
            sorted((side * (curb + 0.6), side * (curb + 3.2))),
            sorted((side * (curb + 4.4), side * (curb + 4.8))),
        )
        for a in np.arange(0.3 - CROSS_CURB, CROSS_CURB - 0.6, 1.0):
            outlines.append(_rectangle(road, crossing + a, crossing + a + 0.5, *walk))
        incoming = sorted((crossing - side * 0.3, crossing - side * (CROSS_CURB - 0.3)))
        outlines.append(_rectangle(road, *incoming, *stop))
    return outlines


def _strip(road: Road, along: np.ndarray, right: float, left: float) -> np.ndarray:
    return np.concatenate((road.pose(along, right)[0], road.pose(along[::-1], left)[0]))


def _rectangle(road: Road, start: float, stop: float, right: float, left: float) -> np.ndarray:
    return road.pose((start, stop, stop, start), (right, right, left, left))[0]
