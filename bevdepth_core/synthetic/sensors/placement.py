"""Places shapes at their poses in the world. Cameras, lidar and the computation of visibility use
the placed shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from bevdepth_core.synthetic.shapes.catalog import Shape, build_shape
from bevdepth_core.synthetic.world.scene import Actor, SyntheticScene

_STRIDE_LENGTH_M = 1.5
"""Distance that a pedestrian walks in one stride, which is one step with each leg."""
_SWING_STEPS = 4
"""Swings are rounded to multiples of 1 / ``_SWING_STEPS``."""


@dataclass(frozen=True, eq=False)
class Placed:
    """A shape on the ground of the world.

    Attributes:
        shape: the shape, in its own frame.
        position: (2,) world x and y of the shape's origin, meters; z is 0.
        heading: rotation from the world's x axis to the shape's x axis, radians.
    """

    shape: Shape
    position: np.ndarray
    heading: float

    def world_from_local_rotation(self) -> np.ndarray:
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.array(((cos, -sin, 0), (sin, cos, 0), (0, 0, 1)))

    def to_local(self, point: np.ndarray) -> np.ndarray:
        """Transform the (3,) ``point`` from the world frame to the shape's frame."""
        return (point - (*self.position, 0)) @ self.world_from_local_rotation()

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Transform the (n, 3) ``points`` from the shape's frame to the world frame."""
        return points @ self.world_from_local_rotation().T + (*self.position, 0)

    @cached_property
    def corners(self) -> np.ndarray:
        """Return the (8, 3) world corners of the bounding box: the four lower corners, then the
        four upper corners, both counter-clockwise.
        """
        return self.to_world(self.shape.box_corners)

    @property
    def footprint(self) -> np.ndarray:
        """Return the (4, 2) world corners of the bounding rectangle, counter-clockwise."""
        return self.corners[:4, :2]

    @cached_property
    def contact(self) -> np.ndarray:
        """Return the (4, 2) world corners of the rectangle around all parts of the shape that
        touch the ground.
        """
        return self.to_world(self.shape.contact_corners)[:, :2]


@lru_cache(maxsize=4)
def placed_props(scene: SyntheticScene) -> tuple[Placed, ...]:
    """Return the buildings, trees and lamps beside the road at their poses."""
    placed = []
    for prop in scene.props:
        position, heading = scene.road.pose(prop.along, prop.lateral)
        placed.append(
            Placed(
                build_shape(prop.kind, prop.size, prop.appearance),
                position,
                float(heading) + prop.heading_offset,
            )
        )
    return tuple(placed)


def placed_actors(scene: SyntheticScene, time_s: float) -> list[Placed]:
    """Return the actors at their poses at ``time_s``. Legs and arms of walking pedestrians
    have their positions at this time.
    """
    standing = _standing_actors(scene)
    return [
        standing.get(number) or _placed_actor(actor, pose, time_s)
        for number, (actor, pose) in enumerate(
            zip(scene.actors, scene.actor_poses(time_s), strict=True)
        )
    ]


@lru_cache(maxsize=4)
def _standing_actors(scene: SyntheticScene) -> dict[int, Placed]:
    """Return the actors that never move; the keys are their indices in ``scene.actors``."""
    return {
        number: _placed_actor(actor, actor.track[0], 0.0)
        for number, actor in enumerate(scene.actors)
        if not actor.moving
    }


def _placed_actor(actor: Actor, pose: np.ndarray, time_s: float) -> Placed:
    shape = build_shape(
        actor.class_name, actor.size, actor.appearance, actor.rider, _swing(actor, time_s)
    )
    return Placed(shape, pose[:2], float(pose[2]))


def _swing(actor: Actor, time_s: float) -> float:
    """Return how far legs and arms of a walking pedestrian swing, from -1 to 1; 0 for other
    actors.

    The swing is rounded to a few values, because ``build_shape`` caches one shape per value.
    """
    if actor.class_name != 'pedestrian' or not actor.moving:
        return 0.0
    # The second summand gives pedestrians different phases.
    strides = actor.traveled(time_s) / _STRIDE_LENGTH_M + actor.appearance % 16 / 16
    return round(_SWING_STEPS * math.sin(2 * math.pi * strides)) / _SWING_STEPS
