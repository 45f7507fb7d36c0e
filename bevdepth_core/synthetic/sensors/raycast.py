"""Finds the first intersection of each ray of a sensor with the shapes around the sensor. A ray is
first tested against the bounds of a solid, then against the planes or the ball of the solid.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bevdepth_core.synthetic.sensors.placement import Placed
from bevdepth_core.synthetic.shapes.catalog import Shape
from bevdepth_core.synthetic.shapes.solids import Solid

_MAX_PLANES = 10
_PARALLEL = 1e-9


@dataclass(frozen=True)
class RayGrid:
    """The rays of a rotating sensor: every beam at every azimuth, in a frame with z up.

    Attributes:
        elevations: (b,) radians, increasing.
        azimuths: (a,) radians, -pi to pi, increasing.
        directions: (b * a, 3) float32 unit vectors, beam by beam.
    """

    elevations: np.ndarray
    azimuths: np.ndarray
    directions: np.ndarray

    @classmethod
    def make(cls, elevations: np.ndarray, columns: int) -> RayGrid:
        """Return a grid with ``columns`` evenly spaced azimuths."""
        azimuths = (np.arange(columns) + 0.5) * (2 * np.pi / columns) - np.pi
        flat = np.cos(elevations)[:, None]
        up = np.broadcast_to(np.sin(elevations)[:, None], (len(elevations), columns))
        directions = np.stack((flat * np.cos(azimuths), flat * np.sin(azimuths), up), axis=-1)
        return cls(elevations, azimuths, directions.reshape(-1, 3).astype(np.float32))


@dataclass(frozen=True)
class Hits:
    """First hits of rays.

    Attributes:
        distance: (rays,) meters, infinite where nothing was hit.
        owner: (rays,) index of the object, -1 if nothing was hit.
        brightness: (rays,) mean of the color channels of the surface, 0..255.
    """

    distance: np.ndarray
    owner: np.ndarray
    brightness: np.ndarray


def cast(
    grid: RayGrid, world_from_sensor: np.ndarray, objects: list[Placed], farthest: float
) -> Hits:
    """Return the first hit of each ray within ``farthest`` meters, for a sensor with the pose
    ``world_from_sensor``.
    """
    rays = len(grid.directions)
    best, owner, brightness = (
        np.full(rays, np.inf, np.float32),
        np.full(rays, -1),
        np.zeros(rays, np.float32),
    )
    position = np.array([placed.position for placed in objects]).reshape(-1, 2)
    radius = np.array([placed.shape.radius for placed in objects])
    near = np.flatnonzero(
        np.linalg.norm(position - world_from_sensor[:2, 3], axis=1) < farthest + radius
    )
    if len(near):
        solids = _Solids.around([objects[i] for i in near], world_from_sensor)
        ray, solid = solids.candidates(grid)
        directions = _turned(
            grid.directions[ray] @ world_from_sensor[:3, :3].T.astype(np.float32),
            -solids.headings[solid],
        )
        met, distance = solids.first_hits(directions, solid)
        ray, solid = ray[met], solid[met]
        # If an index occurs several times in an assignment, the last value stays. With far hits
        # first, this is the nearest hit of each ray.
        far_first = np.argsort(-distance)
        ray, solid = ray[far_first], solid[far_first]
        best[ray], owner[ray], brightness[ray] = (
            distance[far_first],
            near[solids.owner[solid]],
            solids.brightness[solid],
        )
    beyond = best > farthest
    best[beyond], owner[beyond] = np.inf, -1
    return Hits(best, owner, brightness)


@dataclass(frozen=True)
class _Solids:
    """The n solids of all objects, and the position of the sensor relative to each solid. Each
    solid is described in the frame of its object, unless another frame is named.

    Attributes:
        owner: (n,) index of the object of each solid.
        headings: (n,) heading of the object of each solid in the world, radians.
        eye: (n, 3) position of the sensor.
        low, high: (n, 3) lowest and highest x, y and z.
        normals, offsets: (n, p, 3) and (n, p) planes; a point is inside if its dot product with
            each normal is below the offset.
        balls: (n, 4) center and radius; the radius of a solid that is not a ball is 0.
        brightness: (n,) brightness, 0..255.
        corners: (n, 8, 3) corners of the bounds in the frame of the sensor.
        nearest, farthest: (n,) smallest and largest horizontal distance from the sensor to the
            bounds, meters.
    """

    owner: np.ndarray
    headings: np.ndarray
    eye: np.ndarray
    low: np.ndarray
    high: np.ndarray
    normals: np.ndarray
    offsets: np.ndarray
    balls: np.ndarray
    brightness: np.ndarray
    corners: np.ndarray
    nearest: np.ndarray
    farthest: np.ndarray

    @classmethod
    def around(cls, objects: list[Placed], world_from_sensor: np.ndarray) -> _Solids:
        tables = [_solid_table(placed.shape) for placed in objects]
        low, high, normals, offsets, balls, brightness = (
            np.concatenate(parts) for parts in zip(*tables, strict=True)
        )
        owner = np.repeat(np.arange(len(objects)), [len(table[0]) for table in tables])
        headings = np.array([placed.heading for placed in objects])
        eye = _turned(
            world_from_sensor[:3, 3] - np.array([(*placed.position, 0.0) for placed in objects]),
            -headings,
        )
        headings, eye = headings[owner].astype(np.float32), eye[owner].astype(np.float32)
        upper = np.array(list(np.ndindex(2, 2, 2)), bool)
        corners = np.where(upper, high[:, None], low[:, None]) - eye[:, None]
        corners = _turned(corners, headings[:, None]) @ world_from_sensor[:3, :3].astype(
            np.float32
        )
        aside = np.maximum(np.maximum(low - eye, eye - high), 0)
        nearest, farthest = (
            np.hypot(aside[:, 0], aside[:, 1]),
            np.hypot(corners[..., 0], corners[..., 1]).max(axis=1),
        )
        return cls(
            owner,
            headings,
            eye,
            low,
            high,
            normals,
            offsets,
            balls,
            brightness,
            corners,
            nearest,
            farthest,
        )

    def candidates(self, grid: RayGrid) -> tuple[np.ndarray, np.ndarray]:
        """Return the (pairs,) indices of rays and of solids that may intersect."""
        lowest, highest = self.corners[..., 2].min(axis=1), self.corners[..., 2].max(axis=1)
        # Range of elevations that the bounds cover, plus one beam on each side for rounding. A
        # point below the sensor has its smallest elevation at the nearest distance, a point above
        # the sensor at the farthest distance. For the largest elevation it is the opposite.
        nearest = np.maximum(self.nearest * 0.98, 0.05)
        step = grid.elevations[1] - grid.elevations[0]
        down = np.arctan2(lowest, np.where(lowest < 0, nearest, self.farthest)) - step
        up = np.arctan2(highest, np.where(highest > 0, nearest, self.farthest)) + step
        first_beam, last_beam = (
            np.searchsorted(grid.elevations, down),
            np.searchsorted(grid.elevations, up),
        )
        first_column, columns = self._columns(len(grid.azimuths))
        # Each solid has beams x columns candidates. ``within`` counts them from 0 for each solid.
        beams = np.maximum(last_beam - first_beam, 0)
        counts = beams * columns
        solid = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(solid)) - np.repeat(np.cumsum(counts) - counts, counts)
        beam, column = np.divmod(within, columns[solid])
        total = len(grid.azimuths)
        return (first_beam[solid] + beam) * total + (first_column[solid] + column) % total, solid

    def _columns(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Return for each solid the first column of azimuths that it may cover, which may be
        negative, and the number of columns that it may cover.
        """
        # Azimuths are computed relative to the azimuth of the center, because the range may
        # contain 180 degrees, where azimuths wrap to -180 degrees.
        azimuth = np.arctan2(self.corners[..., 1], self.corners[..., 0])
        middle = np.arctan2(self.corners[..., 1].mean(axis=1), self.corners[..., 0].mean(axis=1))
        around = (azimuth - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
        first = (
            np.floor((middle + around.min(axis=1) + np.pi) / (2 * np.pi) * total).astype(int) - 1
        )
        last = np.ceil((middle + around.max(axis=1) + np.pi) / (2 * np.pi) * total).astype(int) + 1
        # A solid above or below the sensor may cover any azimuth.
        inside = self.nearest < 0.3
        return np.where(inside, 0, first), np.where(inside, total, np.minimum(last - first, total))

    def first_hits(
        self, directions: np.ndarray, solid: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the candidate pairs whose ray hits the solid, and the distances of
        these hits.

        Args:
            directions: (n, 3) direction of the ray of each pair in the frame of the object.
            solid: (n,) solid of each pair.
        """
        entry, leave = _through_bounds(self.eye, directions, self.low, self.high, solid)
        # The bounds exclude most pairs. Only the remaining pairs are tested against planes and
        # balls.
        met = np.flatnonzero((entry <= leave) & (entry > 0))
        entry, leave, solid = entry[met], leave[met], solid[met]
        eye, directions = self.eye[solid], directions[met]
        is_ball = self.balls[solid, 3] > 0
        entry[is_ball] = _into_balls(eye[is_ball], directions[is_ball], self.balls[solid[is_ball]])
        flat = np.flatnonzero(~is_ball)
        planes = self.normals, self.offsets, solid[flat]
        entry[flat], leave[flat] = _through_planes(
            eye[flat], directions[flat], *planes, entry[flat], leave[flat]
        )
        inside = (entry <= leave) & (entry > 0)
        return met[inside], entry[inside]


def _turned(vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angles), np.sin(angles)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack((cos * x - sin * y, sin * x + cos * y, z), axis=-1)


def _through_bounds(
    eye: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray, which: np.ndarray
) -> tuple:
    """Return the (n,) distances at which rays enter and leave axis-aligned bounds.

    Args:
        eye: (b, 3) start of the rays, in the frame of each of the b bounds.
        directions: (n, 3) directions of the rays.
        low: (b, 3) lowest x, y and z.
        high: (b, 3) highest x, y and z.
        which: (n,) index of the bounds with which each ray is intersected.
    """
    entry = np.full(len(directions), -np.inf, np.float32)
    leave = np.full(len(directions), np.inf, np.float32)
    for axis in range(3):
        step = directions[:, axis]
        inverse = 1 / np.where(np.abs(step) < _PARALLEL, np.float32(_PARALLEL), step)
        at_low, at_high = (
            (low[:, axis] - eye[:, axis])[which] * inverse,
            (high[:, axis] - eye[:, axis])[which] * inverse,
        )
        first, last = np.minimum(at_low, at_high), np.maximum(at_low, at_high)
        entry, leave = np.maximum(entry, first), np.minimum(leave, last)
    return entry, leave


def _through_planes(
    eye: np.ndarray,
    directions: np.ndarray,
    normals: np.ndarray,
    offsets: np.ndarray,
    which: np.ndarray,
    entry: np.ndarray,
    leave: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the distances ``entry`` and ``leave`` of each ray, limited to the section of the ray
    that is inside all planes of its solid. ``which`` contains the index of the solid of each ray.
    """
    # A convex solid is the intersection of half spaces: the ray is inside from its last entry into
    # a half space to its first exit from a half space.
    for number in range(_MAX_PLANES):
        normal = normals[which, number]
        towards = _dot(normal, directions)
        towards = np.where(np.abs(towards) < _PARALLEL, np.float32(_PARALLEL), towards)
        crossing = (offsets[which, number] - _dot(normal, eye)) / towards
        entry = np.where(towards < 0, np.maximum(entry, crossing), entry)
        leave = np.where(towards < 0, leave, np.minimum(leave, crossing))
    return entry, leave


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[:, 0] * b[:, 0] + a[:, 1] * b[:, 1] + a[:, 2] * b[:, 2]


def _into_balls(eye: np.ndarray, directions: np.ndarray, balls: np.ndarray) -> np.ndarray:
    """Return the (n,) distances along rays to (n, 4) ``balls`` (center and radius); infinite if
    the ray misses the ball.
    """
    to_center = balls[:, :3] - eye
    along = _dot(to_center, directions)
    discriminant = balls[:, 3] ** 2 - _dot(to_center, to_center) + along**2
    return np.where(discriminant > 0, along - np.sqrt(np.maximum(discriminant, 0)), np.inf)


@lru_cache(maxsize=4096)
def _solid_table(shape: Shape) -> tuple[np.ndarray, ...]:
    """Return the arrays ``low``, ``high``, ``normals``, ``offsets``, ``balls`` and ``brightness``
    of ``_Solids`` for the solids of one shape.
    """
    count = len(shape.solids)
    normals, offsets = (
        np.zeros((count, _MAX_PLANES, 3), np.float32),
        np.full((count, _MAX_PLANES), 1e6, np.float32),
    )
    balls, brightness = np.zeros((count, 4), np.float32), np.zeros(count, np.float32)
    for number, solid in enumerate(shape.solids):
        if solid.ball:
            balls[number], color = (*solid.ball.center, solid.ball.radius), solid.ball.color
        else:
            planes = _planes(solid)[:_MAX_PLANES]
            normals[number, : len(planes)], offsets[number, : len(planes)] = (
                planes[:, :3],
                planes[:, 3],
            )
            color = solid.colors[0]
        brightness[number] = np.mean(color)
    return (
        shape.bounds[:, 0].astype(np.float32),
        shape.bounds[:, 1].astype(np.float32),
        normals,
        offsets,
        balls,
        brightness,
    )


def _planes(solid: Solid) -> np.ndarray:
    """Return the planes of the faces of a solid as (p, 4) rows of normal and offset. A thin sheet
    has only two faces; for a sheet, planes along the edges of its first outline are added.
    """
    faces = np.flatnonzero(~solid.details)
    normals = solid.normals[faces]
    points = np.stack([solid.outlines[solid.face_outlines[face].start][0] for face in faces])
    if len(faces) == 2:
        outline = solid.outlines[0]
        keep = slice(None, None, -(-len(outline) // (_MAX_PLANES - 2)))
        rim = np.cross(np.roll(outline, -1, axis=0) - outline, normals[0])
        outward = np.sign(((outline - outline.mean(axis=0)) * rim).sum(axis=1, keepdims=True))
        rim = rim * outward / np.linalg.norm(rim, axis=1, keepdims=True)
        normals, points = (
            np.concatenate((normals, rim[keep])),
            np.concatenate((points, outline[keep])),
        )
    return np.column_stack((normals, (normals * points).sum(axis=1)))
