"""Builds pedestrians, bicycles and motorcycles."""

from __future__ import annotations

import numpy as np

from bevdepth_core.synthetic.shapes.solids import (
    CHROME,
    CLOTHES,
    HEADLIGHT,
    PAINT,
    RUBBER,
    TAIL_LIGHT,
    Color,
    Solid,
    ball,
    bar_outline,
    beam,
    box,
    disc,
    frustum,
    lerp,
    rectangle_x,
    rectangle_y,
    scaled,
    sheet,
)

_SKIN = ((236, 196, 166), (206, 160, 124), (150, 104, 76), (96, 66, 50))
_HAIR = ((40, 30, 26), (92, 66, 40), (160, 130, 84), (60, 60, 64))
_BLACK = (40, 40, 42)

RIDERLESS_HEIGHT_SHARE = 0.66
"""Height of a bicycle or motorcycle without a rider, as a share of its height with a rider."""


def pedestrian(
    length: float, width: float, height: float, rng: np.random.Generator, swing: float
) -> list[Solid]:
    """Return a pedestrian. ``swing``, from -1 to 1, is the position of legs and arms, as a share
    of their largest swing.
    """
    shirt, trousers = CLOTHES[rng.integers(8)], scaled(CLOTHES[rng.integers(8)], 0.7)
    reach, hip, shoulder = 0.3 * length * swing, 0.47 * height, 0.83 * height
    torso = frustum(hip, shoulder, (-0.10, 0.11, -0.17, 0.17), (-0.11, 0.11, -0.21, 0.21), shirt)
    torso.detail(
        rectangle_x(0.11, -0.02, 0.02, hip + 0.05, shoulder - 0.06), color=scaled(shirt, 0.8)
    )
    legs = [_leg(side, side * reach, hip, trousers) for side in (1, -1)]
    arms = [
        _arm(
            side * min(0.26, width / 2 - 0.06),
            -side * reach,
            0.44 * height,
            shoulder - 0.02,
            scaled(shirt, 0.9),
        )
        for side in (1, -1)
    ]
    head = 0.072 * height
    face = ball((0.02, 0.0, height - 1.15 * head), head, _SKIN[rng.integers(4)])
    hair = ball((-0.02, 0.0, height - 0.95 * head), 0.96 * head, _HAIR[rng.integers(4)])
    return [*legs, torso.build(), *arms, face, hair]


def _leg(side: int, reach: float, hip: float, trousers: Color) -> Solid:
    foot = (reach - 0.09, reach + 0.11, side * 0.10 - 0.07, side * 0.10 + 0.07)
    leg = frustum(0.0, hip, foot, (-0.09, 0.09, side * 0.09 - 0.09, side * 0.09 + 0.09), trousers)
    leg.detail(rectangle_y(side * 0.17, reach - 0.09, reach + 0.13, 0.0, 0.07), color=(36, 32, 30))
    return leg.build()


def _arm(y: float, reach: float, z0: float, z1: float, color: Color) -> Solid:
    return frustum(
        z0,
        z1,
        (reach - 0.05, reach + 0.05, y - 0.05, y + 0.05),
        (-0.06, 0.06, y - 0.05, y + 0.05),
        color,
    ).build()


def _rider(x: float, saddle: float, height: float, rng: np.random.Generator) -> list[Solid]:
    shirt, trousers, helmet = (
        CLOTHES[rng.integers(8)],
        scaled(CLOTHES[rng.integers(8)], 0.7),
        PAINT[rng.integers(8)],
    )
    shoulder = lerp(saddle, height, 0.66)
    torso = frustum(
        saddle, shoulder, (x - 0.14, x + 0.12, -0.17, 0.17), (x + 0.02, x + 0.26, -0.2, 0.2), shirt
    )
    limbs = []
    for y in (-0.16, 0.16):
        thigh = (x + 0.08, x + 0.26, y - 0.06, y + 0.06), (x - 0.08, x + 0.16, y - 0.07, y + 0.07)
        limbs.append(frustum(0.36 * saddle, saddle, *thigh, trousers).build())
        hand = (x + 0.55, lerp(saddle, shoulder, 0.42))
        limbs.append(
            beam(
                (x + 0.2, shoulder - 0.06),
                hand,
                0.09,
                1.5 * y - 0.05,
                1.5 * y + 0.05,
                scaled(shirt, 0.9),
            )
        )
    radius = (height - shoulder) / 2
    return [torso.build(), *limbs, ball((x + 0.18, 0.0, height - radius), radius, helmet)]


def _wheel(x: float, radius: float, thickness: float, half_width: float) -> Solid:
    outer, inner = (disc(x, 0.0, radius, r, sides=18) for r in (radius, radius - thickness))
    return sheet(outer, inner, color=RUBBER, half_thickness=half_width)


def bicycle(
    length: float, width: float, height: float, rng: np.random.Generator, rider: bool
) -> list[Solid]:
    """Return a bicycle with or without a rider."""
    paint, full = PAINT[rng.integers(8)], height if rider else height / RIDERLESS_HEIGHT_SHARE
    radius, saddle = 0.19 * length, 0.54 * full
    rear, front = -length / 2 + radius, length / 2 - radius
    crank, seat, head = (0.0, 0.3), (-0.1, saddle), (front - 0.14, saddle - 0.07)
    bars = (
        ((rear, radius), seat),
        (seat, crank),
        (crank, (rear, radius)),
        (seat, head),
        (crank, head),
        ((front, radius), (front - 0.16, saddle + 0.16)),
    )
    frame = [sheet(bar_outline(bar[0], bar[1], 0.055), color=paint) for bar in bars]
    handle = box(
        front - 0.24, front - 0.18, -width / 2, width / 2, saddle + 0.12, saddle + 0.17, _BLACK
    ).build()
    wheels = [_wheel(x, radius, 0.05, 0.015) for x in (rear, front)]
    return [*wheels, *frame, handle, *(_rider(-0.12, saddle, full, rng) if rider else [])]


def motorcycle(
    length: float, width: float, height: float, rng: np.random.Generator, rider: bool
) -> list[Solid]:
    """Return a motorcycle with or without a rider."""
    paint, full = PAINT[rng.integers(8)], height if rider else height / RIDERLESS_HEIGHT_SHARE
    radius, saddle = 0.155 * length, 0.5 * full
    rear, front = -length / 2 + radius, length / 2 - radius
    engine = frustum(
        0.2 * full, 0.4 * full, (-0.4, 0.36, -0.14, 0.14), (-0.5, 0.42, -0.16, 0.16), (58, 60, 64)
    )
    tank = frustum(
        0.4 * full, saddle, (-0.75, 0.38, -0.17, 0.17), (-0.85, 0.34, -0.14, 0.14), paint
    )
    tank.detail(
        rectangle_x(-0.8, -0.1, 0.1, 0.42 * full, 0.47 * full), color=TAIL_LIGHT, glows=True
    )
    fork = sheet(
        bar_outline((front, radius), (0.42, 0.58 * full), 0.1), color=CHROME, half_thickness=0.08
    )
    fairing = frustum(
        0.42 * full, 0.62 * full, (0.4, 0.68, -0.16, 0.16), (0.4, 0.5, -0.14, 0.14), paint
    )
    fairing.detail(
        rectangle_x(0.6, -0.09, 0.09, 0.46 * full, 0.54 * full), color=HEADLIGHT, glows=True
    )
    handle = box(0.34, 0.4, -width / 2, width / 2, 0.62 * full, 0.65 * full, _BLACK).build()
    wheels = [_wheel(x, radius, 0.13, 0.06) for x in (rear, front)]
    return [
        *wheels,
        fork,
        engine.build(),
        tank.build(),
        fairing.build(),
        handle,
        *(_rider(-0.22, saddle, full, rng) if rider else []),
    ]
