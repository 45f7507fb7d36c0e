"""Shapes in their places: what the pictures, the lidar and the visibility are all made from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from bevdepth_core.nuscenes.synthetic.scene import Actor, Scene
from bevdepth_core.nuscenes.synthetic.shapes import build_shape
from bevdepth_core.nuscenes.synthetic.solids import Shape

_STRIDE_LENGTH = 1.5
_STRIDE_STEPS = 4


@dataclass(frozen=True, eq=False)
class Placed:
    """A shape standing on the ground.

    Attributes:
        shape: what.
        position: (2,) world x and y.
        heading: radians.
    """

    shape: Shape
    position: np.ndarray
    heading: float

    def world_from_local_rotation(self) -> np.ndarray:
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)))

    def to_local(self, point: np.ndarray) -> np.ndarray:
        """Return the (3,) world ``point`` in the shape's frame."""
        return (point - (*self.position, 0)) @ self.world_from_local_rotation()

    @cached_property
    def footprint(self) -> np.ndarray:
        """Return the (4, 2) world corners of the bounding rectangle, counter-clockwise."""
        low, high = self.shape.bounds[:, 0, :2].min(axis=0), self.shape.bounds[:, 1, :2].max(axis=0)
        corners = np.array(((low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])))
        return corners @ self.world_from_local_rotation()[:2, :2].T + self.position


@lru_cache(maxsize=4)
def placed_props(scene: Scene) -> tuple[Placed, ...]:
    """Return what stands beside the road."""
    placed = []
    for prop in scene.props:
        position, heading = scene.road.pose(prop.along, prop.lateral)
        placed.append(Placed(build_shape(prop.kind, prop.size, prop.appearance), position, float(heading) + prop.heading_offset))
    return tuple(placed)


def placed_actors(scene: Scene, time_s: float) -> list[Placed]:
    """Return the actors where they are at ``time_s``, walkers in the step they take."""
    return [
        Placed(build_shape(actor.class_name, actor.size, actor.appearance, actor.rider, _stride(actor, time_s)), pose[:2], float(pose[2]))
        for actor, pose in zip(scene.actors, scene.actor_poses(time_s), strict=True)
    ]


def _stride(actor: Actor, time_s: float) -> float:
    """Return the phase of a walker's step in few values, 0 for everything else."""
    if actor.class_name != 'pedestrian' or not actor.moving:
        return 0.0
    steps = actor.travelled(time_s) / _STRIDE_LENGTH + actor.appearance % 16 / 16
    return round(_STRIDE_STEPS * math.sin(2 * math.pi * steps)) / _STRIDE_STEPS
