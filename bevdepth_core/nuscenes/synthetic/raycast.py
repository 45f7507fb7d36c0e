"""Finds where rays from one point first meet shapes: first their bounding boxes, then the convex solids inside."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bevdepth_core.nuscenes.synthetic.placement import Placed
from bevdepth_core.nuscenes.synthetic.solids import Shape, Solid

_MOST_PLANES = 12
_PARALLEL = 1e-9


@dataclass(frozen=True)
class RayGrid:
    """A turning sensor's rays: every beam at every azimuth, in a frame with z up.

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
        """Return a grid of ``columns`` equal steps of azimuth."""
        azimuths = (np.arange(columns) + 0.5) * (2 * np.pi / columns) - np.pi
        flat = np.cos(elevations)[:, None]
        up = np.broadcast_to(np.sin(elevations)[:, None], (len(elevations), columns))
        directions = np.stack((flat * np.cos(azimuths), flat * np.sin(azimuths), up), axis=-1)
        return cls(elevations, azimuths, directions.reshape(-1, 3).astype(np.float32))


@dataclass(frozen=True)
class Hits:
    """First hits of rays.

    Attributes:
        distance: (rays,) metres, infinite where nothing was hit.
        owner: (rays,) index of the object, -1 for none.
        brightness: (rays,) of the surface under light from the sensor, 0..255.
    """

    distance: np.ndarray
    owner: np.ndarray
    brightness: np.ndarray


def cast(grid: RayGrid, world_from_sensor: np.ndarray, objects: list[Placed], farthest: float) -> Hits:
    """Return what the rays of a sensor at ``world_from_sensor`` meet first within ``farthest`` metres."""
    rays = len(grid.directions)
    best, owner, brightness = np.full(rays, np.inf, np.float32), np.full(rays, -1), np.zeros(rays, np.float32)
    near = [
        i for i, placed in enumerate(objects) if np.hypot(*(placed.position - world_from_sensor[:2, 3])) < farthest + placed.shape.radius
    ]
    if near:
        boxes = _Boxes.around([objects[i] for i in near], world_from_sensor)
        ray, box = boxes.candidates(grid)
        local = boxes.local_directions(grid.directions[ray] @ world_from_sensor[:3, :3].T.astype(np.float32), box)
        entry, leave = _through_bounds(boxes.eye[box], local, boxes.low[box], boxes.high[box])
        met = np.flatnonzero((entry <= leave) & (leave > 0) & (entry < farthest))
        pair, distance, surface = _first_solids(boxes, box[met], local[met], farthest)
        pair = met[pair]
        far_first = np.argsort(-distance)
        ray, box = ray[pair][far_first], box[pair][far_first]
        best[ray], owner[ray], brightness[ray] = distance[far_first], np.array(near)[box], surface[far_first]
    return Hits(best, owner, brightness)


@dataclass(frozen=True)
class _Boxes:
    """Bounding boxes of n objects in their own frames, the sensor there, and how they lie around the sensor."""

    shapes: list[Shape]
    eye: np.ndarray
    low: np.ndarray
    high: np.ndarray
    headings: np.ndarray
    corners: np.ndarray
    nearest: np.ndarray
    farthest: np.ndarray

    @classmethod
    def around(cls, objects: list[Placed], world_from_sensor: np.ndarray) -> _Boxes:
        shapes = [placed.shape for placed in objects]
        headings = np.array([placed.heading for placed in objects])
        low, high = np.stack([s.bounds[:, 0].min(axis=0) for s in shapes]), np.stack([s.bounds[:, 1].max(axis=0) for s in shapes])
        offset = world_from_sensor[:3, 3] - np.array([(*placed.position, 0.0) for placed in objects])
        eye = _turned(offset, -headings)
        upper = np.array(list(np.ndindex(2, 2, 2)), bool)
        corners = np.where(upper, high[:, None], low[:, None]) - eye[:, None]
        aside = np.maximum(np.maximum(low - eye, eye - high), 0)[:, :2]
        corners = _turned(corners, headings[:, None]) @ world_from_sensor[:3, :3]
        farthest = np.hypot(corners[..., 0], corners[..., 1]).max(axis=1)
        return cls(shapes, *(v.astype(np.float32) for v in (eye, low, high, headings, corners)), np.hypot(*aside.T), farthest)

    def candidates(self, grid: RayGrid) -> tuple[np.ndarray, np.ndarray]:
        """Return (pairs,) rays and (pairs,) boxes: generously all that may meet."""
        lowest, highest = self.corners[..., 2].min(axis=1), self.corners[..., 2].max(axis=1)
        nearest = np.maximum(self.nearest * 0.98, 0.05)
        step = grid.elevations[1] - grid.elevations[0]
        down = np.arctan2(lowest, np.where(lowest < 0, nearest, self.farthest)) - step
        up = np.arctan2(highest, np.where(highest > 0, nearest, self.farthest)) + step
        first_beam, last_beam = np.searchsorted(grid.elevations, down), np.searchsorted(grid.elevations, up)
        first_column, columns = self._columns(len(grid.azimuths))
        beams = np.maximum(last_beam - first_beam, 0)
        counts = beams * columns
        box = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(box)) - np.repeat(np.cumsum(counts) - counts, counts)
        beam, column = np.divmod(within, columns[box])
        total = len(grid.azimuths)
        return (first_beam[box] + beam) * total + (first_column[box] + column) % total, box

    def _columns(self, total: int) -> tuple[np.ndarray, np.ndarray]:
        """Return each box's first column, maybe negative, and number of columns."""
        azimuth = np.arctan2(self.corners[..., 1], self.corners[..., 0])
        middle = np.arctan2(self.corners[..., 1].mean(axis=1), self.corners[..., 0].mean(axis=1))
        around = (azimuth - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
        first = np.floor((middle + around.min(axis=1) + np.pi) / (2 * np.pi) * total).astype(int) - 1
        last = np.ceil((middle + around.max(axis=1) + np.pi) / (2 * np.pi) * total).astype(int) + 1
        inside = self.nearest < 0.3
        return np.where(inside, 0, first), np.where(inside, total, np.minimum(last - first, total))

    def local_directions(self, world: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Return (pairs, 3) directions in the frames of their boxes."""
        return _turned(world, -self.headings[box])


def _turned(vectors: np.ndarray, angles: np.ndarray) -> np.ndarray:
    cos, sin = np.cos(angles), np.sin(angles)
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    return np.stack((cos * x - sin * y, sin * x + cos * y, z), axis=-1)


def _through_bounds(eye: np.ndarray, directions: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n,) distances at which rays enter and leave axis-aligned bounds."""
    inverse = 1 / np.where(np.abs(directions) < _PARALLEL, np.float32(_PARALLEL), directions)
    one, other = (low - eye) * inverse, (high - eye) * inverse
    return np.minimum(one, other).max(axis=1), np.maximum(one, other).min(axis=1)


def _first_solids(boxes: _Boxes, box: np.ndarray, directions: np.ndarray, farthest: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which of the (pairs,) rays meet a solid of their box, (hits,) indices with repeats, where, and how bright."""
    tables = [_solid_table(shape) for shape in boxes.shapes]
    low, high, normals, offsets, balls, colours = (np.concatenate(parts) for parts in zip(*tables, strict=True))
    sizes = np.array([len(table[0]) for table in tables])
    counts = sizes[box]
    pair = np.repeat(np.arange(len(box)), counts)
    solid = np.arange(len(pair)) - np.repeat(np.cumsum(counts) - counts, counts) + (np.cumsum(sizes) - sizes)[box[pair]]
    eye, heading = boxes.eye[box], directions
    entry, leave = _through_bounds(eye[pair], heading[pair], low[solid], high[solid])
    met = np.flatnonzero((entry <= leave) & (leave > 0) & (entry < farthest))
    pair, solid, entry, leave = pair[met], solid[met], entry[met], leave[met]
    entry, leave = _through_planes(eye[pair], heading[pair], normals[solid], offsets[solid], entry, leave)
    round_entry = _into_balls(eye[pair], heading[pair], balls[solid])
    entry = np.where(balls[solid, 3] > 0, round_entry, entry)
    met = np.flatnonzero((entry <= leave) & (entry > 0))
    return pair[met], entry[met], colours[solid[met]]


def _through_planes(eye, directions, normals, offsets, entry, leave) -> tuple[np.ndarray, np.ndarray]:
    """Return ``entry`` and ``leave`` narrowed to the inside of (n, p) planes."""
    towards = np.einsum('npc,nc->np', normals, directions)
    towards = np.where(np.abs(towards) < _PARALLEL, np.float32(_PARALLEL), towards)
    crossing = (offsets - np.einsum('npc,nc->np', normals, eye)) / towards
    entering = towards < 0
    return (
        np.maximum(entry, np.where(entering, crossing, -np.inf).max(axis=1)),
        np.minimum(leave, np.where(entering, np.inf, crossing).min(axis=1)),
    )


def _into_balls(eye: np.ndarray, directions: np.ndarray, balls: np.ndarray) -> np.ndarray:
    """Return (n,) distances to (n, 4) centres and radii, infinite where the ray passes by."""
    to_center = balls[:, :3] - eye
    along = np.einsum('nc,nc->n', to_center, directions)
    under_root = balls[:, 3] ** 2 - np.einsum('nc,nc->n', to_center, to_center) + along**2
    return np.where(under_root > 0, along - np.sqrt(np.maximum(under_root, 0)), np.inf)


@lru_cache(maxsize=4096)
def _solid_table(shape: Shape) -> tuple[np.ndarray, ...]:
    """Return per solid: lower and upper bounds, planes' normals and offsets (inside is below), ball, brightness."""
    count = len(shape.solids)
    normals, offsets = np.zeros((count, _MOST_PLANES, 3), np.float32), np.full((count, _MOST_PLANES), 1e6, np.float32)
    balls, brightness = np.zeros((count, 4), np.float32), np.zeros(count, np.float32)
    for number, solid in enumerate(shape.solids):
        if solid.ball:
            balls[number], colour = (*solid.ball.center, solid.ball.radius), solid.ball.colour
        else:
            planes = _planes(solid)[:_MOST_PLANES]
            normals[number, : len(planes)], offsets[number, : len(planes)] = planes[:, :3], planes[:, 3]
            colour = solid.colours[0]
        brightness[number] = np.mean(colour)
    return shape.bounds[:, 0].astype(np.float32), shape.bounds[:, 1].astype(np.float32), normals, offsets, balls, brightness


def _planes(solid: Solid) -> np.ndarray:
    """Return (p, 4) planes n x <= d around a solid; a thin sheet is closed along the rim of its first outline."""
    faces = np.flatnonzero(~solid.details)
    normals = solid.normals[faces]
    points = np.stack([solid.outlines[solid.face_outlines[face].start][0] for face in faces])
    if len(faces) == 2:
        outline = solid.outlines[0]
        keep = slice(None, None, -(-len(outline) // (_MOST_PLANES - 2)))
        rim = np.cross(np.roll(outline, -1, axis=0) - outline, normals[0])
        outward = np.sign(((outline - outline.mean(axis=0)) * rim).sum(axis=1, keepdims=True))
        rim = rim * outward / np.linalg.norm(rim, axis=1, keepdims=True)
        normals, points = np.concatenate((normals, rim[keep])), np.concatenate((points, outline[keep]))
    return np.column_stack((normals, (normals * points).sum(axis=1)))
