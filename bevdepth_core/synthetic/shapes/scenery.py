"""Builds barriers, traffic cones, buildings, trees and lamps."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from bevdepth_core.synthetic.shapes.solids import (
    CLOTHES,
    Color,
    Solid,
    SolidBuilder,
    ball,
    box,
    column,
    frustum,
    lerp,
    rectangle_x,
    rectangle_y,
    scaled,
    stripe,
)

_FACADE = (
    (196, 186, 170),
    (170, 128, 104),
    (206, 204, 198),
    (150, 152, 154),
    (184, 160, 126),
    (138, 112, 98),
    (214, 198, 160),
)
_LEAVES = ((74, 104, 52), (88, 112, 48), (62, 94, 58), (104, 116, 54))
_STORY = 3.4
_LIT_PANE, _DARK_PANE, _SHOP_PANE = (128, 134, 132), (70, 82, 96), (62, 70, 80)


def barrier(length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a striped barrier that stands across its heading: narrow in x, wide in y."""
    color, band = (((224, 224, 220), (206, 52, 40)), ((222, 112, 34), (236, 236, 230)))[
        rng.integers(2)
    ]
    half, side, knee = length / 2, width / 2, 0.28 * height
    foot = frustum(
        0.0, knee, (-half, half, -side, side), (-0.6 * half, 0.6 * half, -side, side), color
    )
    wall = frustum(
        knee,
        height,
        (-0.6 * half, 0.6 * half, -side, side),
        (-0.35 * half, 0.35 * half, -side, side),
        color,
    )
    edges = np.linspace(-side, side, 8)
    for sign in (-1, 1):
        (x0, z0), (x1, z1) = (
            (sign * half * lerp(0.6, 0.35, k), lerp(knee, height, k)) for k in (0.3, 0.85)
        )
        bands = [
            ((x0, a, z0), (x0, b, z0), (x1, b, z1), (x1, a, z1))
            for a, b in zip(edges[:-1:2], edges[1::2], strict=True)
        ]
        wall.detail(*bands, color=band)
    return [foot.build(), wall.build()]


def traffic_cone(
    length: float, width: float, height: float, _rng: np.random.Generator
) -> list[Solid]:
    """Return an orange cone with white rings on a dark base."""
    orange, white = (236, 92, 28), (240, 240, 236)
    base = box(-length / 2, length / 2, -width / 2, width / 2, 0.0, 0.06, (40, 40, 42)).build()
    levels, radius = (0.06, 0.42, 0.6, 0.74, 0.86, 1.0), 0.4 * length
    radii = [lerp(radius, 0.16 * radius, k) for k in levels]
    colors = (orange, white, orange, white, orange)
    return [
        base,
        *(
            column(radii[i], radii[i + 1], levels[i] * height, levels[i + 1] * height, colors[i])
            for i in range(5)
        ),
    ]


def building(length: float, depth: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a building whose long sides face streets: rows of windows above shops, and a
    cornice.
    """
    wall = _FACADE[rng.integers(len(_FACADE))]
    half, side, eaves = length / 2, depth / 2, height - 0.5
    stories = max(1, int((height - 1.2) // _STORY))
    edges = np.linspace(-half + 0.4, half - 0.4, int(length // rng.uniform(2.4, 3.6)) + 1)
    shop = CLOTHES[rng.integers(8)]
    body = box(-half, half, -side, side, 0.0, eaves, wall)
    stripe(body, -half, half, side, 0.0, 0.45, scaled(wall, 0.6))
    for y in (side, -side):
        _front_windows(body, y, edges, stories, wall, rng)
        body.detail(
            *(rectangle_y(y, a + 0.2, b - 0.2, 0.5, 2.6) for a, b in pairwise(edges)),
            color=_SHOP_PANE,
        )
        body.detail(rectangle_y(y, -half + 0.2, half - 0.2, 2.75, 3.25), color=shop)
    sills = [row * _STORY + 1.0 for row in range(1, stories)]
    for x in (half, -half):
        body.detail(
            *(
                rectangle_x(x, y - 0.6, y + 0.6, sill, sill + 1.6)
                for sill in sills
                for y in (-side / 2, side / 2)
            ),
            color=_DARK_PANE,
        )
    cornice = box(
        -half - 0.25, half + 0.25, -side - 0.25, side + 0.25, eaves, height, scaled(wall, 0.82)
    )
    return [body.build(), cornice.build()]


def _front_windows(
    body: SolidBuilder,
    y: float,
    edges: np.ndarray,
    stories: int,
    wall: Color,
    rng: np.random.Generator,
) -> None:
    windows = [
        (a + 0.45, b - 0.45, row * _STORY + 1.0, row * _STORY + 2.7)
        for row in range(1, stories)
        for a, b in pairwise(edges)
    ]
    lit = rng.random(len(windows)) < 0.25
    body.detail(
        *(rectangle_y(y, x0 - 0.1, x1 + 0.1, z0 - 0.12, z1 + 0.1) for x0, x1, z0, z1 in windows),
        color=scaled(wall, 1.15),
    )
    for chosen, color in ((lit, _LIT_PANE), (~lit, _DARK_PANE)):
        body.detail(
            *(rectangle_y(y, *window) for window, use in zip(windows, chosen, strict=True) if use),
            color=color,
        )


def tree(_length: float, width: float, height: float, rng: np.random.Generator) -> list[Solid]:
    """Return a street tree: a trunk and a crown of leafy balls."""
    green = np.array(_LEAVES[rng.integers(4)], np.float64)
    crown = width / 2
    middle = height - 1.05 * crown
    balls = [ball((0.0, 0.0, middle), 0.72 * crown, 0.8 * green, leafy=True)]
    for number in range(9):
        angle, lift = 2.4 * number + rng.uniform(-0.4, 0.4), lerp(-0.45, 0.7, number / 8)
        reach = 0.62 * crown * math.sqrt(1 - 0.8 * lift * lift)
        center = (reach * math.cos(angle), reach * math.sin(angle), middle + lift * crown)
        balls.append(
            ball(
                center,
                crown * rng.uniform(0.30, 0.46),
                green * rng.uniform(0.88, 1.14),
                leafy=True,
            )
        )
    return [column(0.16, 0.1, 0.0, 0.55 * height, (84, 68, 54), sides=6), *balls]


def lamp(length: float, _width: float, height: float, _rng: np.random.Generator) -> list[Solid]:
    """Return a lamp post whose arm points along x."""
    gray = (118, 122, 126)
    arm = box(0.0, length - 0.4, -0.05, 0.05, height - 0.25, height - 0.13, gray)
    head = box(
        length - 0.4, length + 0.2, -0.14, 0.14, height - 0.28, height - 0.12, scaled(gray, 0.7)
    )
    return [column(0.11, 0.07, 0.0, height - 0.26, gray, sides=6), arm.build(), head.build()]
