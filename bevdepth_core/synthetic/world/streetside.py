"""Places objects beside the road: houses, trees, lamps, parked vehicles, building sites."""

from __future__ import annotations

import math

import numpy as np

from bevdepth_core.synthetic.world.placer import TYPICAL_SIZE, Placer
from bevdepth_core.synthetic.world.road import CROSS_SIDEWALK_END, CROSSING_CLEAR, PARKING_WIDTH
from bevdepth_core.synthetic.world.scene import Prop

_PARKED = {'car': 0.78, 'truck': 0.07, 'trailer': 0.05, 'motorcycle': 0.05, 'bus': 0.05}
_SITE_LENGTH = 18.0


def place_houses(placer: Placer) -> None:
    """Place rows of houses along the road and along the crossing street."""
    rng, road = placer.rng, placer.road
    for side in (-1, 1):
        along = float(road.along[0]) + 4.0
        while along < road.along[-1] - 30:
            length, depth, height = _house_size(rng)
            middle = along + length / 2
            lateral = side * (road.sidewalk_end + rng.uniform(1.0, 5.0) + depth / 2)
            if not road.near_crossing(middle, CROSS_SIDEWALK_END + 1 + length / 2):
                _add_house(placer, length, depth, height, middle, lateral, 0.0)
            along += length + (
                rng.uniform(1.5, 4.0) if rng.random() < 0.7 else rng.uniform(9.0, 20.0)
            )
        if road.crossing is not None:
            _houses_along_crossing(placer, side)


def _houses_along_crossing(placer: Placer, side: int) -> None:
    rng, road = placer.rng, placer.road
    for end in (-1, 1):
        out = road.sidewalk_end + 20.0
        while out < 130:
            length, depth, height = _house_size(rng)
            along = road.required_crossing() + end * (
                CROSS_SIDEWALK_END + rng.uniform(0.5, 3) + depth / 2
            )
            _add_house(
                placer, length, depth, height, along, side * (out + length / 2), math.pi / 2
            )
            out += length + rng.uniform(1.5, 6.0)


def _house_size(rng: np.random.Generator) -> tuple[float, float, float]:
    return (
        float(rng.uniform(11, 26)),
        float(rng.uniform(9, 14)),
        float(3.4 * rng.integers(2, 8) + 1.2),
    )


def _add_house(
    placer: Placer,
    length: float,
    depth: float,
    height: float,
    along: float,
    lateral: float,
    turn: float,
) -> None:
    prop = Prop(
        'building',
        (length, depth, height),
        along,
        lateral,
        turn,
        int(placer.rng.integers(1 << 30)),
    )
    placer.add_prop(prop, length + 0.6, depth + 0.6)


def place_trees(placer: Placer, crosswalks: tuple[float, ...]) -> None:
    """Place trees on the sidewalks, except near the crossing street and at crosswalks."""
    rng, road = placer.rng, placer.road
    spacing = rng.choice((1.0, 1.6, 3.0))
    for side in (-1, 1):
        along = float(road.along[0])
        while along < road.along[-1]:
            along += spacing * rng.uniform(9.0, 17.0)
            height = rng.uniform(5.0, 8.5)
            if road.near_crossing(along, CROSSING_CLEAR) or any(
                abs(along - crosswalk) < 5 for crosswalk in crosswalks
            ):
                continue
            size = (0.55 * height, 0.55 * height, height)
            placer.add_prop(
                Prop(
                    'tree', size, along, side * (road.curb + 0.75), 0.0, int(rng.integers(1 << 30))
                ),
                0.3,
                0.3,
            )


def place_lamps(placer: Placer) -> None:
    """Place lamp posts every 32 m on alternating sides, with their arms over the road."""
    road = placer.road
    for number, along in enumerate(np.arange(road.along[0] + 3, road.along[-1], 32.0)):
        side = -1 if number % 2 else 1
        if not road.near_crossing(along, CROSSING_CLEAR):
            placer.add_prop(
                Prop(
                    'lamp',
                    (2.2, 0.3, 8.2),
                    float(along),
                    side * (road.curb + 0.45),
                    -side * math.pi / 2,
                ),
                0.25,
                0.25,
            )


def place_parked(placer: Placer, start: float, stop: float, crosswalks: tuple[float, ...]) -> None:
    """Place parked vehicles in the parking lanes, and bicycles and motorcycles without riders on
    the sidewalks.
    """
    rng, road = placer.rng, placer.road
    lateral = road.parking + PARKING_WIDTH / 2
    share = rng.uniform(0.35, 0.75)
    for side in (-1, 1):
        along = start + rng.uniform(0, 6)
        while along < stop:
            name = _chosen(rng, _PARKED)
            length = TYPICAL_SIZE[name][0]
            middle = along + length / 2
            free = not any(abs(middle - crosswalk) < 3.5 + length / 2 for crosswalk in crosswalks)
            if (
                free
                and rng.random() < share
                and not road.near_crossing(middle, CROSSING_CLEAR + length / 2)
            ):
                turn = (0.0 if side < 0 else math.pi) + rng.normal(0, 0.02)
                placer.add_standing(
                    name,
                    middle,
                    side * (lateral + rng.normal(0, 0.05)),
                    turn,
                    margin=0.2,
                    rider=False,
                )
            along += length + rng.uniform(1.2, 7.0)
        for place in np.arange(start, stop, rng.uniform(26.0, 60.0)):
            _parked_cycles(placer, place + rng.uniform(0, 12), side)


def _parked_cycles(placer: Placer, along: float, side: int) -> None:
    rng, road = placer.rng, placer.road
    name = 'bicycle' if rng.random() < 0.6 else 'motorcycle'
    turn = math.pi / 2 * rng.choice((-1, 1)) + rng.normal(0, 0.12)
    if road.near_crossing(along, CROSSING_CLEAR):
        return
    for number in range(int(rng.integers(1, 4))):
        placer.add_standing(
            name, along + number * 0.95, side * (road.curb + 1.45), turn, margin=0.03, rider=False
        )


def place_sites(placer: Placer, start: float, stop: float) -> None:
    """Place building sites in the parking lanes, except near the crossing street."""
    rng, road = placer.rng, placer.road
    along = start
    while along < stop:
        if not road.near_crossing(along + _SITE_LENGTH / 2, CROSSING_CLEAR + _SITE_LENGTH / 2 + 2):
            _place_site(placer, along, side=-1 if rng.random() < 0.6 else 1)
        along += rng.uniform(42.0, 70.0)


def _place_site(placer: Placer, start: float, side: int) -> None:
    """Place a construction vehicle, workers, cones beside the traffic, and barriers at both ends.
    Some sites also have a truck or a trailer, or barriers along the sidewalk.
    """
    middle = side * (placer.road.parking + placer.road.curb) / 2
    _place_machines(placer, start, middle, side)
    _place_end_barriers(placer, start, middle)
    _place_cones(placer, start, side)
    _place_workers(placer, start, middle)
    _place_sidewalk_barriers(placer, start, side)


def _place_machines(placer: Placer, start: float, middle: float, side: int) -> None:
    rng = placer.rng
    towards = float(rng.choice((0.0, math.pi)))
    placer.add_standing(
        'construction_vehicle',
        start + 6.5,
        middle + side * 0.35,
        towards + rng.normal(0, 0.06),
        margin=0.02,
    )
    if rng.random() < 0.4:
        name, turn = str(rng.choice(('truck', 'trailer'))), float(rng.choice((0.0, math.pi)))
        placer.add_standing(name, start + 25.0, middle + side * 0.1, turn, margin=0.05)


def _place_end_barriers(placer: Placer, start: float, middle: float) -> None:
    rng = placer.rng
    for end in (start, start + _SITE_LENGTH):
        placer.add_standing(
            'barrier',
            end,
            middle,
            rng.normal(0, 0.08) + float(rng.choice((0, math.pi))),
            margin=0.02,
        )


def _place_cones(placer: Placer, start: float, side: int) -> None:
    """Place two rows of cones. One row lies along the site. The other row lies before the start of
    the site; it is 9 m long and leads from the curb to the inner edge of the parking lane.
    """
    rng, inner = placer.rng, side * placer.road.parking
    spacing = rng.uniform(1.8, 3.2)
    for along in np.arange(start + 1.0, start + _SITE_LENGTH - 0.6, spacing):
        placer.add_standing(
            'traffic_cone',
            along,
            inner - side * 0.08 + rng.normal(0, 0.04),
            rng.uniform(-0.5, 0.5),
            margin=0.02,
        )
    for along in np.arange(start - 9.0, start - 0.5, 2.2):
        placer.add_standing(
            'traffic_cone',
            along,
            inner + side * (start - along) / 9 * (PARKING_WIDTH - 0.4),
            margin=0.02,
        )


def _place_workers(placer: Placer, start: float, middle: float) -> None:
    rng = placer.rng
    for along in (start + 1.8, start + 12.0, start + 15.0):
        placer.add_standing(
            'pedestrian',
            along,
            middle + rng.uniform(-0.6, 0.6),
            rng.uniform(-math.pi, math.pi),
            margin=0.05,
        )


def _place_sidewalk_barriers(placer: Placer, start: float, side: int) -> None:
    rng, outer = placer.rng, side * placer.road.curb
    if rng.random() < 0.7:
        for along in np.arange(start + 20, start + rng.uniform(28, 44), rng.uniform(2.7, 3.0)):
            placer.add_standing(
                'barrier', along, outer + side * 0.45, math.pi / 2 * side, margin=0.02
            )


def _chosen(rng: np.random.Generator, shares: dict[str, float]) -> str:
    return str(rng.choice(list(shares), p=list(shares.values())))
