"""Builds the shape of an object: its solids and the arrays with which it is drawn."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from bevdepth_core.synthetic.shapes import people, scenery, vehicles
from bevdepth_core.synthetic.shapes.solids import Solid

_BUILDERS: dict[str, Callable[..., list[Solid]]] = {
    'car': vehicles.car,
    'truck': vehicles.truck,
    'trailer': vehicles.trailer,
    'bus': vehicles.bus,
    'construction_vehicle': vehicles.construction_vehicle,
    'bicycle': people.bicycle,
    'motorcycle': people.motorcycle,
    'barrier': scenery.barrier,
    'traffic_cone': scenery.traffic_cone,
    'building': scenery.building,
    'tree': scenery.tree,
    'lamp': scenery.lamp,
}

_TOUCHES_GROUND = 0.1
"""A solid touches the ground if its lowest point is below this height, meters."""
_COVERING_VOLUME = 1.5
"""A solid is large if its bounds have more than this volume, cubic meters; see
``Shape.covers``."""


class Shape:
    """The solids of one object, and the arrays with which they are drawn.

    Attributes:
        solids: n solids in no particular order.
        bounds: (n, 2, 3) lower and upper corner of each solid.
        middles: (n, 3) centers of the bounds.
        corners: (8 n, 3) corners of the bounds.
        points: (p, 3) float32, all outlines one after the other.
        outline_ranges: per solid, per face, the ranges of its outlines in ``points``.
        face_ranges: per solid, the range of its f faces in the arrays below.
        anchors: (f, 3) float32, a point on each face.
        normals: (f, 3) float32, outward normal of each face.
        colors: (f, 3) float32, color of each face.
        glows: (f,) bool, see ``Solid``.
        details: (f,) bool, see ``Solid``.
        extents: (f,) float32, largest side of the bounds of each face's first outline, meters.
        height: height of the upright cylinder around the origin that contains the shape, meters.
        radius: radius of this cylinder, meters.
        vertices: (v, 3) corners of all solids; for balls, the corners of their bounds.
        box_corners: (8, 3) corners of the bounding box, the lower four first, counter-clockwise.
        contact_corners: (4, 3) corners of the rectangle around the parts that touch the ground.
        covers: the (k, 3) vertices of each large solid that is not a ball. These solids are used
            to find hidden objects.
    """

    def __init__(self, solids: list[Solid]) -> None:
        self.solids = tuple(solids)
        self._set_bounds()
        self._set_faces()

    def _set_bounds(self) -> None:
        self.bounds = np.stack([solid.bounds() for solid in self.solids])
        self.middles = self.bounds.mean(axis=1)
        corners = [
            np.where(upper, self.bounds[:, 1], self.bounds[:, 0]) for upper in np.ndindex(2, 2, 2)
        ]
        self.corners = np.stack(corners, axis=1).reshape(-1, 3)
        self.height = float(self.bounds[:, 1, 2].max())
        self.radius = float(np.linalg.norm(self.corners[:, :2], axis=-1).max())
        rounds = [
            self.corners[8 * i : 8 * i + 8] for i, solid in enumerate(self.solids) if solid.ball
        ]
        self.vertices = np.concatenate([solid.vertices() for solid in self.solids] + rounds)
        self.box_corners = _upright_box(
            self.bounds[:, 0].min(axis=0), self.bounds[:, 1].max(axis=0)
        )
        low = self.bounds[self.bounds[:, 0, 2] < _TOUCHES_GROUND]
        self.contact_corners = (
            _upright_box(low[:, 0].min(axis=0), low[:, 1].max(axis=0))[:4]
            if len(low)
            else np.zeros((4, 3))
        )
        large = [np.ptp(bounds, axis=0).prod() > _COVERING_VOLUME for bounds in self.bounds]
        self.covers = [
            solid.vertices()
            for solid, covers in zip(self.solids, large, strict=True)
            if covers and not solid.ball
        ]

    def _set_faces(self) -> None:
        outlines = [outline for solid in self.solids for outline in solid.outlines]
        self.points = np.concatenate([np.zeros((0, 3), np.float32), *outlines])
        edges = itertools.pairwise(itertools.accumulate(map(len, outlines), initial=0))
        ranges = [slice(start, stop) for start, stop in edges]
        self.outline_ranges, self.face_ranges = [], []
        first_outline, first_face = 0, 0
        for solid in self.solids:
            faces = [
                ranges[first_outline + part.start : first_outline + part.stop]
                for part in solid.face_outlines
            ]
            self.outline_ranges.append(faces)
            self.face_ranges.append(range(first_face, first_face + len(faces)))
            first_outline, first_face = (
                first_outline + len(solid.outlines),
                first_face + len(faces),
            )
        first_outlines = [face[0] for faces in self.outline_ranges for face in faces]
        self.anchors = np.array(
            [self.points[outline.start] for outline in first_outlines], np.float32
        ).reshape(-1, 3)
        self.extents = np.array(
            [np.ptp(self.points[outline], axis=0).max() for outline in first_outlines], np.float32
        )
        self.normals = np.concatenate([solid.normals for solid in self.solids])
        self.colors = np.concatenate([solid.colors for solid in self.solids])
        self.glows = np.concatenate([solid.glows for solid in self.solids])
        self.details = np.concatenate([solid.details for solid in self.solids])


def _upright_box(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the (8, 3) corners of a box, the lower four first, counter-clockwise."""
    ring = ((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1]))
    return np.array([(*corner, z) for z in (low[2], high[2]) for corner in ring])


@lru_cache(maxsize=4096)
def build_shape(
    kind: str,
    size: tuple[float, float, float],
    appearance: int,
    rider: bool = True,
    swing: float = 0.0,
) -> Shape:
    """Return the shape of an object.

    Args:
        kind: a nuScenes class, or building, tree or lamp.
        size: length, width, height, meters.
        appearance: seed of colors and parts.
        rider: whether a bicycle or motorcycle has a rider.
        swing: position of legs and arms of a pedestrian, from -1 to 1, as a share of their largest
            swing. Use few different values, because each value adds a shape to the cache of this
            function.
    """
    rng = np.random.default_rng(appearance)
    if kind == 'pedestrian':
        return Shape(people.pedestrian(*size, rng, swing))
    if kind in ('bicycle', 'motorcycle'):
        return Shape(_BUILDERS[kind](*size, rng, rider))
    return Shape(_BUILDERS[kind](*size, rng))
