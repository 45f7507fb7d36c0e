"""Builds convex solids with flat colored faces. All objects consist of such solids.

The origin of a shape's frame is on the ground, below the center of the shape; for a lamp, it is
below the post. x points forward, y to the left and z upwards. Lengths are in meters. Colors are
RGB, 0..255, before lighting.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

GLASS = (52, 62, 74)
RUBBER = (26, 26, 28)
CHROME = (168, 170, 174)
HEADLIGHT = (250, 246, 226)
TAIL_LIGHT = (196, 30, 28)
PAINT = (
    (232, 232, 230),
    (198, 202, 206),
    (122, 126, 132),
    (44, 46, 50),
    (150, 26, 30),
    (34, 66, 122),
    (64, 96, 84),
    (190, 176, 148),
)
CLOTHES = (
    (46, 58, 92),
    (120, 40, 44),
    (66, 72, 66),
    (188, 186, 178),
    (38, 38, 42),
    (162, 122, 58),
    (86, 116, 142),
    (104, 76, 110),
)

Color = Sequence[float] | np.ndarray
"""Red, green and blue, 0..255."""
Outline = tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Ball:
    """A sphere; a ``leafy`` sphere is drawn with a ragged outline and leaves."""

    center: np.ndarray
    radius: float
    color: np.ndarray
    leafy: bool = False


@dataclass(frozen=True)
class Solid:
    """A convex solid; a ball has no faces.

    Attributes:
        outlines: closed outlines, each (k, 3) float32, meters.
        face_outlines: per face, the range of its outlines in ``outlines``. The outlines of a face
            are filled together in one color; an outline inside another outline is a hole.
        normals: (f, 3) float32, outward.
        colors: (f, 3) float32.
        glows: (f,) bool, True for faces whose color does not depend on the light.
        details: (f,) bool, True for faces that are painted on an earlier face. In an image, such
            a face is drawn only if it is large enough.
        ball: the sphere; None if the solid is not a ball.
    """

    outlines: tuple[np.ndarray, ...]
    face_outlines: tuple[slice, ...]
    normals: np.ndarray
    colors: np.ndarray
    glows: np.ndarray
    details: np.ndarray
    ball: Ball | None = None

    def bounds(self) -> np.ndarray:
        """Return the (2, 3) lower and upper corner of the solid without its details. Details such
        as wheels may extend beyond these bounds.
        """
        if self.ball:
            return self.ball.center + self.ball.radius * np.array(((-1,), (1,)), np.float32)
        points = self.vertices()
        return np.stack((points.min(axis=0), points.max(axis=0)))

    def vertices(self) -> np.ndarray:
        """Return the (n, 3) corners of the faces that are not details. Corners that several faces
        share are repeated. The result is empty for a ball.
        """
        sides = [
            part
            for part, detail in zip(self.face_outlines, self.details, strict=True)
            if not detail
        ]
        return np.concatenate(
            [
                np.zeros((0, 3), np.float32),
                *(outline for part in sides for outline in self.outlines[part]),
            ]
        )


@dataclass
class SolidBuilder:
    """Collects the faces of one convex solid; ``build`` computes the outward face normals."""

    outlines: list[np.ndarray] = field(default_factory=list)
    faces: list[tuple] = field(default_factory=list)

    def face(self, *outlines: ArrayLike, color: Color, glows: bool = False) -> None:
        """Add one face of the solid."""
        self._add(outlines, color, glows, detail=False)

    def detail(self, *outlines: ArrayLike, color: Color, glows: bool = False) -> None:
        """Paint outlines on a face that was added before. The outlines must lie in or near the
        plane of the face.
        """
        self._add(outlines, color, glows, detail=True)

    def _add(self, outlines: Sequence[ArrayLike], color: Color, glows: bool, detail: bool) -> None:
        if not outlines:
            return
        first = len(self.outlines)
        self.outlines.extend(np.asarray(outline, np.float32) for outline in outlines)
        self.faces.append((slice(first, len(self.outlines)), color, glows, detail))

    def build(self) -> Solid:
        """Return the solid."""
        points = np.concatenate(self.outlines)
        middle = (points.min(axis=0) + points.max(axis=0)) / 2
        face_outlines, colors, glows, details = zip(*self.faces, strict=True)
        normals = [
            _outward_normal(self.outlines[outlines.start], middle) for outlines in face_outlines
        ]
        return Solid(
            tuple(self.outlines),
            face_outlines,
            np.array(normals, np.float32),
            np.array(colors, np.float32),
            np.array(glows, bool),
            np.array(details, bool),
        )


def _outward_normal(outline: np.ndarray, middle: np.ndarray) -> np.ndarray:
    center = outline.mean(axis=0)
    normal = np.cross(outline - center, np.roll(outline, -1, axis=0) - center).sum(axis=0)
    normal = normal / max(np.linalg.norm(normal), 1e-9)
    return normal if normal @ (center - middle) >= 0 else -normal


def scaled(color: Color, factor: float) -> tuple[float, float, float]:
    """Return ``color`` times ``factor``. A factor below 1 gives a darker color."""
    red, green, blue = (factor * value for value in color)
    return red, green, blue


def lerp(low: float, high: float, k: float) -> float:
    """Return the linear interpolation between ``low`` (k = 0) and ``high`` (k = 1)."""
    return low + (high - low) * k


def frustum(
    z0: float, z1: float, bottom: Sequence[float], top: Sequence[float], color: Color
) -> SolidBuilder:
    """Return the builder of a solid between the rectangle ``bottom`` at height ``z0`` and the
    rectangle ``top`` at height ``z1``. Each rectangle is (x0, x1, y0, y1).
    """
    (a, b, c, d), (e, f, g, h) = (
        [(x, y, z) for x, y in ((r[0], r[2]), (r[1], r[2]), (r[1], r[3]), (r[0], r[3]))]
        for r, z in ((bottom, z0), (top, z1))
    )
    builder = SolidBuilder()
    for outline in (
        (b, c, g, f),
        (a, d, h, e),
        (d, c, g, h),
        (a, b, f, e),
        (e, f, g, h),
        (a, b, c, d),
    ):
        builder.face(outline, color=color)
    return builder


def box(
    x0: float, x1: float, y0: float, y1: float, z0: float, z1: float, color: Color
) -> SolidBuilder:
    """Return the builder of an upright box."""
    return frustum(z0, z1, (x0, x1, y0, y1), (x0, x1, y0, y1), color)


def column(
    radius_low: float,
    radius_high: float,
    z0: float,
    z1: float,
    color: Color,
    sides: int = 8,
) -> Solid:
    """Return an upright round column about the z axis."""
    angles = np.arange(sides) * 2 * math.pi / sides
    ring = np.stack((np.cos(angles), np.sin(angles), np.zeros(sides)), axis=-1)
    low, high = ring * radius_low + (0, 0, z0), ring * radius_high + (0, 0, z1)
    builder = SolidBuilder()
    for i in range(sides):
        j = (i + 1) % sides
        builder.face((low[i], low[j], high[j], high[i]), color=color)
    builder.face(high, color=color)
    return builder.build()


def ball(center: ArrayLike, radius: float, color: Color, leafy: bool = False) -> Solid:
    """Return a sphere."""
    sphere = Ball(np.array(center, np.float32), float(radius), np.array(color, np.float32), leafy)
    nothing = np.zeros((0, 3), np.float32)
    return Solid((), (), nothing, nothing, np.zeros(0, bool), np.zeros(0, bool), sphere)


def beam(
    start: Sequence[float],
    end: Sequence[float],
    thickness: float,
    y0: float,
    y1: float,
    color: Color,
) -> Solid:
    """Return a bar from the point ``start`` to the point ``end``, each (x, z). Along y, the bar
    extends from ``y0`` to ``y1``.
    """
    profile = bar_outline(start, end, thickness)
    left, right = ([(x, y, z) for x, _, z in profile] for y in (y1, y0))
    builder = SolidBuilder()
    builder.face(left, color=color)
    builder.face(right, color=color)
    for i in range(4):
        j = (i + 1) % 4
        builder.face((left[i], left[j], right[j], right[i]), color=color)
    return builder.build()


def sheet(
    *outlines: ArrayLike, color: Color, y: float = 0.0, half_thickness: float = 0.015
) -> Solid:
    """Return a thin upright sheet, parallel to the xz plane, with the given outlines on both
    sides.
    """
    builder = SolidBuilder()
    for side in (-1, 1):
        shift = np.array((0, y + side * half_thickness, 0))
        builder.face(*(np.asarray(outline) + shift for outline in outlines), color=color)
    return builder.build()


def bar_outline(
    start: Sequence[float], end: Sequence[float], thickness: float
) -> list[tuple[float, float, float]]:
    """Return the outline, in the plane y = 0, of a bar from ``start`` to ``end``, each (x, z)."""
    first, last = np.array(start), np.array(end)
    across = np.array((first[1] - last[1], last[0] - first[0]))
    across = across / np.linalg.norm(across) * thickness / 2
    return [(x, 0.0, z) for x, z in (first + across, last + across, last - across, first - across)]


def disc(x: float, y: float, z: float, radius: float, sides: int = 14) -> np.ndarray:
    """Return a round outline in a plane of constant ``y``."""
    angles = np.arange(sides) * 2 * math.pi / sides
    return np.stack(
        (x + radius * np.cos(angles), np.full(sides, y), z + radius * np.sin(angles)), axis=-1
    )


def rectangle_x(x: float, y0: float, y1: float, z0: float, z1: float) -> Outline:
    """Return the outline of a rectangle in a plane of constant ``x``."""
    return ((x, y0, z0), (x, y1, z0), (x, y1, z1), (x, y0, z1))


def rectangle_y(y: float, x0: float, x1: float, z0: float, z1: float) -> Outline:
    """Return the outline of a rectangle in a plane of constant ``y``."""
    return ((x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1))


def stripe(
    solid: SolidBuilder,
    x0: float,
    x1: float,
    side: float,
    z0: float,
    z1: float,
    color: Color,
) -> None:
    """Paint a rectangle on the left side (y = ``side``) and on the right side of ``solid``."""
    for y in (side, -side):
        solid.detail(rectangle_y(y, x0, x1, z0, z1), color=color)
