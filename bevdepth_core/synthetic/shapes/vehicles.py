"""Builds cars, trucks, trailers, buses and excavators."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bevdepth_core.synthetic.shapes.solids import (
    CHROME,
    CLOTHES,
    GLASS,
    HEADLIGHT,
    PAINT,
    RUBBER,
    TAIL_LIGHT,
    Color,
    Solid,
    SolidBuilder,
    beam,
    box,
    disc,
    frustum,
    lerp,
    rectangle_x,
    rectangle_y,
    scaled,
    stripe,
)


def _wheels_on_sides(
    body: SolidBuilder, half_width: float, axles: Sequence[float], radius: float
) -> None:
    """Paint wheels and their arches on both sides of ``body``."""
    for y in (half_width, -half_width):
        body.detail(*(disc(x, y, 1.16 * radius, 1.16 * radius) for x in axles), color=(30, 30, 32))
        for scale, color in ((1.0, RUBBER), (0.62, CHROME), (0.22, (70, 72, 76))):
            body.detail(*(disc(x, y, radius, scale * radius) for x in axles), color=color)


def _tires(
    half_width: float, axles: Sequence[float], radius: float, clearance: float
) -> list[Solid]:
    """Return the parts of the wheels that are visible below the body."""
    solids = []
    for x in axles:
        for side in (-1, 1):
            y0, y1 = sorted((side * (half_width - 0.24), side * (half_width - 0.01)))
            solids.append(
                box(x - 0.7 * radius, x + 0.7 * radius, y0, y1, 0.0, clearance, RUBBER).build()
            )
    return solids


def _pair_of_lights(
    body: SolidBuilder,
    x: float,
    half_width: float,
    width: float,
    z0: float,
    z1: float,
    color: Color,
) -> None:
    edge = 0.96 * half_width
    body.detail(
        *(rectangle_x(x, side * edge, side * (edge - width), z0, z1) for side in (-1, 1)),
        color=color,
        glows=True,
    )


def car(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a sedan or a hatchback."""
    paint = PAINT[rng.integers(len(PAINT))]
    half, side, clearance, belt, radius = (
        length / 2,
        width / 2 - 0.02,
        0.2,
        0.56 * height,
        0.205 * height,
    )
    axles = (0.31 * length, -0.3 * length)
    body = frustum(
        clearance,
        belt,
        (-half + 0.03, half - 0.05, -side, side),
        (-half, half, -side, side),
        paint,
    )
    stripe(body, -half + 0.02, half - 0.04, side, clearance, clearance + 0.12, scaled(paint, 0.5))
    stripe(body, -0.02, 0.02, side, clearance + 0.14, belt, scaled(paint, 0.6))
    _wheels_on_sides(body, side, axles, radius)
    _pair_of_lights(body, half - 0.01, side, 0.32, 0.62 * belt, 0.86 * belt, HEADLIGHT)
    _pair_of_lights(body, -half + 0.01, side, 0.26, 0.62 * belt, 0.9 * belt, TAIL_LIGHT)
    body.detail(
        rectangle_x(half - 0.02, -0.55 * side, 0.55 * side, 0.42 * belt, 0.68 * belt),
        color=(34, 36, 38),
    )
    for x in (half - 0.02, -half + 0.01):
        body.detail(
            rectangle_x(x, -0.26, 0.26, 0.32 * belt + 0.1, 0.32 * belt + 0.2),
            color=(238, 238, 232),
        )
    return [
        *_tires(side, axles, radius, clearance),
        body.build(),
        _greenhouse(length, side, belt, height, paint, hatch=rng.random() < 0.55),
    ]


def _greenhouse(
    length: float, side: float, belt: float, height: float, paint: Color, hatch: bool
) -> Solid:
    """Return the upper part of a car: sloped windscreen and rear window, side windows between
    pillars.
    """
    low = ((-0.47 if hatch else -0.36) * length, 0.24 * length, side - 0.03)
    high = (low[0] + (0.05 if hatch else 0.11) * length, low[1] - 0.15 * length, side - 0.2)
    cabin = frustum(
        belt,
        height,
        (low[0], low[1], -low[2], low[2]),
        (high[0], high[1], -high[2], high[2]),
        paint,
    )

    def point(u: float, v: float, k: float) -> tuple[float, float, float]:
        """Return the point of the cabin at fraction ``u`` of its length, ``v`` of its half width
        and ``k`` of its height.
        """
        return (
            lerp(lerp(low[0], low[1], u), lerp(high[0], high[1], u), k),
            v * lerp(low[2], high[2], k),
            lerp(belt, height, k),
        )

    for end in (1, 0):
        cabin.detail(
            [
                point(end, v, k)
                for v, k in ((-0.9, 0.08), (0.9, 0.08), (0.88, 0.88), (-0.88, 0.88))
            ],
            color=GLASS,
        )
    for side_sign in (-1, 1):
        panes = [
            [point(u, side_sign, k) for u, k in ((a, 0.1), (b, 0.1), (b, 0.86), (a, 0.86))]
            for a, b in ((0.05, 0.48), (0.52, 0.95))
        ]
        cabin.detail(*panes, color=GLASS)
    return cabin.build()


def _truck_cab(x0: float, x1: float, side: float, z0: float, z1: float, paint: Color) -> Solid:
    """Return the driver's cab of a truck."""
    cab = frustum(z0, z1, (x0, x1, -side, side), (x0, x1 - 0.22, -side, side), paint)
    low, high = lerp(z0, z1, 0.5), lerp(z0, z1, 0.9)
    cab.detail(
        [
            (x1 - 0.22 * k, v * side, lerp(z0, z1, k))
            for k, v in ((0.5, -0.9), (0.5, 0.9), (0.9, 0.9), (0.9, -0.9))
        ],
        color=GLASS,
    )
    stripe(cab, lerp(x0, x1, 0.35), x1 - 0.28, side, low, high, GLASS)
    cab.detail(
        rectangle_x(x1 - 0.04, -0.7 * side, 0.7 * side, lerp(z0, z1, 0.18), lerp(z0, z1, 0.42)),
        color=(40, 42, 44),
    )
    _pair_of_lights(cab, x1 - 0.02, side, 0.28, lerp(z0, z1, 0.05), lerp(z0, z1, 0.15), HEADLIGHT)
    return cab.build()


def truck(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a truck with a closed cargo body."""
    paint = PAINT[rng.integers(len(PAINT))]
    cargo_paint = PAINT[rng.integers(3)] if rng.random() < 0.7 else paint
    half, side, clearance, radius, floor = length / 2, width / 2 - 0.03, 0.42, 0.46, 0.9
    split = half - 0.27 * length
    axles = (half - 0.15 * length, -half + 0.22 * length)
    chassis = box(-half, half - 0.1, -side, side, clearance, floor, (48, 50, 54))
    _wheels_on_sides(chassis, side, axles, radius)
    _pair_of_lights(chassis, -half, side, 0.3, 0.6, 0.78, TAIL_LIGHT)
    cab = _truck_cab(split, half, side, floor, min(0.9 * height, 2.9), paint)
    cargo = box(-half, split - 0.12, -side - 0.02, side + 0.02, floor, height, cargo_paint)
    stripe(
        cargo,
        -half + 0.3,
        split - 0.4,
        side + 0.02,
        lerp(floor, height, 0.34),
        lerp(floor, height, 0.52),
        CLOTHES[rng.integers(8)],
    )
    _rear_doors(cargo, -half, side, floor, height, cargo_paint)
    return [*_tires(side, axles, radius, clearance), chassis.build(), cab, cargo.build()]


def _rear_doors(
    cargo: SolidBuilder, x: float, side: float, floor: float, height: float, paint: Color
) -> None:
    doors = (
        rectangle_x(x, sign * 0.04, sign * 0.92 * side, floor + 0.1, height - 0.12)
        for sign in (-1, 1)
    )
    cargo.detail(*doors, color=scaled(paint, 0.86))


def trailer(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a semi-trailer with support legs and without a truck."""
    paint = PAINT[rng.integers(3)]
    half, side, radius, clearance, floor = length / 2, width / 2 - 0.03, 0.5, 0.55, 1.15
    axles = tuple(-half + 0.14 * length + 1.25 * i for i in range(3))
    chassis = box(-half, half, -side + 0.05, side - 0.05, clearance, floor, (58, 60, 64))
    _wheels_on_sides(chassis, side - 0.05, axles, radius)
    _pair_of_lights(chassis, -half, side, 0.32, 0.75, 0.95, TAIL_LIGHT)
    legs = [
        box(
            0.26 * length, 0.26 * length + 0.14, y - 0.07, y + 0.07, 0.0, clearance, (70, 72, 76)
        ).build()
        for y in (-0.8, 0.8)
    ]
    cargo = box(-half, half, -side, side, floor, height, paint)
    stripe(
        cargo,
        -half + 0.4,
        half - 0.4,
        side,
        lerp(floor, height, 0.1),
        lerp(floor, height, 0.28),
        CLOTHES[rng.integers(8)],
    )
    stripe(
        cargo,
        0.05 * length,
        0.42 * length,
        side,
        lerp(floor, height, 0.45),
        lerp(floor, height, 0.8),
        scaled(paint, 0.8),
    )
    _rear_doors(cargo, -half, side, floor, height, paint)
    return [*_tires(side - 0.05, axles, radius, clearance), *legs, chassis.build(), cargo.build()]


def bus(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a city bus."""
    paint = ((206, 60, 44), (38, 96, 160), (236, 236, 232), (44, 124, 92), (232, 178, 52))[
        rng.integers(5)
    ]
    half, side, clearance, radius = length / 2, width / 2 - 0.02, 0.34, 0.48
    axles = (half - 0.23 * length, -half + 0.27 * length)
    body = frustum(
        clearance,
        height,
        (-half, half, -side, side),
        (-half + 0.05, half - 0.12, -side, side),
        paint,
    )
    low, high = 0.42 * height, 0.8 * height
    edges = np.linspace(-half + 0.4, half - 1.5, 8)
    stripe(body, -half + 0.25, half - 0.35, side, low - 0.06, high + 0.06, scaled(GLASS, 0.7))
    for y in (side, -side):
        body.detail(
            *(rectangle_y(y, a + 0.05, b - 0.05, low, high) for a, b in pairwise(edges)),
            color=GLASS,
        )
    body.detail(
        rectangle_y(-side, half - 1.4, half - 0.4, clearance + 0.1, high), color=(60, 72, 84)
    )
    stripe(body, -half + 0.1, half - 1.45, side, 0.3 * height, 0.35 * height, (240, 240, 236))
    _wheels_on_sides(body, side, axles, radius)
    body.detail(
        rectangle_x(half - 0.06, -0.92 * side, 0.92 * side, 0.36 * height, high), color=GLASS
    )
    body.detail(
        rectangle_x(half - 0.1, -0.6 * side, 0.6 * side, 0.84 * height, 0.93 * height),
        color=(250, 190, 70),
        glows=True,
    )
    body.detail(
        rectangle_x(-half + 0.02, -0.8 * side, 0.8 * side, 0.5 * height, high), color=GLASS
    )
    _pair_of_lights(body, half, side, 0.36, 0.2 * height, 0.27 * height, HEADLIGHT)
    _pair_of_lights(body, -half, side, 0.3, 0.2 * height, 0.3 * height, TAIL_LIGHT)
    return [*_tires(side, axles, radius, clearance), body.build()]


def construction_vehicle(
    length: float, width: float, height: float, rng: np.random.Generator
) -> list[Solid]:
    """Return an excavator: tracks, house, cab, and an arm with a bucket in front."""
    yellow = ((232, 172, 32), (226, 132, 36))[rng.integers(2)]
    half, side = length / 2, width / 2
    house = box(-half + 0.1, -0.12 * half, -side + 0.15, side - 0.15, 0.9, 0.62 * height, yellow)
    house.detail(
        rectangle_x(-half + 0.1, -0.6 * side, 0.6 * side, 1.05, 0.5 * height), color=(54, 54, 56)
    )
    stripe(house, -half + 0.4, -0.4 * half, side - 0.15, 1.1, 1.25, (40, 40, 42))
    boom = beam(
        (-0.05 * half, 0.62 * height), (0.62 * half, 0.96 * height), 0.36, -0.55, -0.2, yellow
    )
    stick = beam(
        (0.64 * half, 0.95 * height), (half - 0.25, 0.4 * height), 0.28, -0.52, -0.24, yellow
    )
    bucket = frustum(
        0.05,
        0.36 * height,
        (half - 0.8, half - 0.15, -0.9, 0.1),
        (half - 0.6, half, -0.9, 0.1),
        (72, 70, 66),
    )
    return [
        *_tracks(half, side),
        house.build(),
        _operator_cab(half, side, height, yellow),
        boom,
        stick,
        bucket.build(),
    ]


def _tracks(half: float, side: float) -> list[Solid]:
    tracks = []
    for sign in (-1, 1):
        y0, y1 = sorted((sign * side, sign * (side - 0.55)))
        track = frustum(
            0.0,
            0.85,
            (-half + 0.3, 0.3 * half, y0, y1),
            (-half, 0.36 * half, y0, y1),
            (44, 44, 46),
        )
        track.detail(
            *(disc(x, sign * side, 0.42, 0.3) for x in np.linspace(-half + 0.6, 0.15 * half, 4)),
            color=(92, 92, 96),
        )
        tracks.append(track.build())
    return tracks


def _operator_cab(half: float, side: float, height: float, paint: Color) -> Solid:
    cab = frustum(
        0.9,
        height,
        (-0.11 * half, 0.34 * half, 0.0, side - 0.12),
        (-0.11 * half, 0.26 * half, 0.0, side - 0.12),
        paint,
    )
    cab.detail(
        rectangle_x(0.3 * half, 0.1, side - 0.24, 0.52 * height, 0.93 * height), color=GLASS
    )
    for y in (side - 0.12, 0.0):
        cab.detail(
            rectangle_y(y, -0.06 * half, 0.24 * half, 0.5 * height, 0.93 * height), color=GLASS
        )
    return cab.build()
