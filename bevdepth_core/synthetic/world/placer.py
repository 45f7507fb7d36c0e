"""Collects objects, and rejects objects that would touch an earlier object."""

from __future__ import annotations

from typing import Any

import numpy as np

from bevdepth_core.synthetic.shapes.people import RIDERLESS_HEIGHT_SHARE
from bevdepth_core.synthetic.world.road import Road
from bevdepth_core.synthetic.world.scene import TRACK_START_S, TRACK_STEP_S, Actor, Prop

TYPICAL_SIZE = {
    'car': (4.6, 1.92, 1.66),
    'truck': (7.2, 2.5, 3.0),
    'construction_vehicle': (6.4, 2.7, 3.1),
    'bus': (11.2, 2.85, 3.4),
    'trailer': (11.6, 2.65, 3.8),
    'barrier': (0.5, 2.4, 1.0),
    'motorcycle': (2.1, 0.8, 1.6),
    'bicycle': (1.75, 0.62, 1.65),
    'pedestrian': (0.72, 0.68, 1.75),
    'traffic_cone': (0.42, 0.42, 0.95),
}
"""Mean length, width and height of each class, meters."""
SIZE_SPREAD = 0.12
"""Largest relative difference from the mean size; length, width and height are strongly
correlated."""
_STEPS_BETWEEN_CHECKS = 2
_SLOWEST_STEP = 0.01


def random_size(rng: np.random.Generator, class_name: str) -> tuple[float, float, float]:
    """Return a random length, width and height of an object of a class, meters."""
    common, independent = rng.uniform(-1, 1), rng.uniform(-1, 1, 3)
    factors = 1 + SIZE_SPREAD * (0.6 * common + 0.4 * independent)
    length, width, height = (np.array(TYPICAL_SIZE[class_name]) * factors).tolist()
    return length, width, height


class Placer:
    """Collects the actors and props of a scene.

    Args:
        rng: random generator of sizes and appearances.
        road: the road, in whose coordinates objects are placed.
        duration_s: duration of the scene, seconds.
    """

    def __init__(self, rng: np.random.Generator, road: Road, duration_s: float) -> None:
        self.rng, self.road = rng, road
        self.times = np.arange(TRACK_START_S, duration_s + 1.5, TRACK_STEP_S)
        self.actors: list[Actor] = []
        self.props: list[Prop] = []
        checks = len(self.times[::_STEPS_BETWEEN_CHECKS])
        self._poses, self._halves = np.zeros((0, checks, 3)), np.zeros((0, 2))

    def block(self, track: np.ndarray, length: float, width: float, margin: float = 0.15) -> bool:
        """Reserve the area that a rectangle covers while it moves along a (t, 3) track, or stands
        at the pose of a (1, 3) track, if this area is free. Return True if the area was free.
        """
        poses = np.broadcast_to(track[::_STEPS_BETWEEN_CHECKS], (self._poses.shape[1], 3))
        half = np.array((length / 2, width / 2)) + margin
        if self._touches(poses, half):
            return False
        self._poses, self._halves = (
            np.concatenate((self._poses, poses[None])),
            np.concatenate((self._halves, half[None])),
        )
        return True

    def _touches(self, poses: np.ndarray, half: np.ndarray) -> bool:
        distance = np.hypot(*np.moveaxis(self._poses[..., :2] - poses[..., :2], -1, 0))
        other, moment = np.nonzero(distance < np.hypot(*half) + np.hypot(*self._halves.T)[:, None])
        return bool(
            rectangles_touch(
                poses[moment], half, self._poses[other, moment], self._halves[other]
            ).any()
        )

    def add(
        self,
        class_name: str,
        track: np.ndarray,
        *,
        size: tuple[float, float, float] | None = None,
        margin: float = 0.15,
        rider: bool = True,
    ) -> bool:
        """Add an actor unless its rectangle, enlarged by ``margin``, would touch another
        object. Return True if the actor was added.
        """
        size = size or random_size(self.rng, class_name)
        if not rider and class_name in ('bicycle', 'motorcycle'):
            size = (*size[:2], size[2] * RIDERLESS_HEIGHT_SHARE)
        appearance = int(self.rng.integers(1 << 30))
        if not self.block(track, size[0], size[1], margin):
            return False
        self.actors.append(Actor(class_name, size, track, appearance, rider))
        return True

    def add_standing(
        self, class_name: str, along: float, lateral: float, turn: float = 0.0, **options: Any
    ) -> bool:
        """Add an actor that never moves; its heading is the heading of the road plus ``turn``,
        radians.
        """
        position, heading = self.road.pose(along, lateral)
        return self.add(class_name, np.array([(*position, heading + turn)]), **options)

    def add_moving(
        self, class_name: str, along: np.ndarray, lateral: np.ndarray, **options: Any
    ) -> bool:
        """Add an actor that moves and faces its direction of motion; ``along`` and ``lateral`` are
        its (t,) road coordinates at each of ``times``.
        """
        position, heading = self.road.pose(along, lateral)
        step = np.gradient(position, axis=0)
        moves = np.hypot(*step.T) > _SLOWEST_STEP
        headings = np.unwrap(np.arctan2(step[moves, 1], step[moves, 0]))
        if len(headings):
            heading = np.interp(self.times, self.times[moves], headings)
        return self.add(class_name, np.column_stack((position, heading)), **options)

    def add_prop(self, prop: Prop, length: float, width: float) -> bool:
        """Add a prop if its rectangle on the ground is free. Return True if the prop was added."""
        position, heading = self.road.pose(prop.along, prop.lateral)
        if not self.block(np.array([(*position, heading + prop.heading_offset)]), length, width):
            return False
        self.props.append(prop)
        return True


def rectangles_touch(
    poses: np.ndarray, half: np.ndarray, other_poses: np.ndarray, other_half: np.ndarray
) -> np.ndarray:
    """Return a (n,) mask of pairs of rectangles that overlap or touch.

    Args:
        poses: (n, 3) x, y and heading of the first rectangle of each pair.
        half: (n, 2) or (2,) half of the length and width of the first rectangle.
        other_poses: (n, 3) x, y and heading of the second rectangle of each pair.
        other_half: (n, 2) or (2,) half of the length and width of the second rectangle.
    """
    offset = other_poses[:, :2] - poses[:, :2]
    turn = other_poses[:, 2] - poses[:, 2]
    cos, sin = np.abs(np.cos(turn)), np.abs(np.sin(turn))
    mixed = np.stack((cos, sin, sin, cos), axis=-1).reshape(-1, 2, 2)
    half, other_half = (
        np.broadcast_to(half, offset.shape),
        np.broadcast_to(other_half, offset.shape),
    )
    apart = np.zeros(len(offset), bool)
    for heading, near, far in (
        (poses[:, 2], half, other_half),
        (other_poses[:, 2], other_half, half),
    ):
        axes = np.stack(
            (np.cos(heading), np.sin(heading), -np.sin(heading), np.cos(heading)), axis=-1
        ).reshape(-1, 2, 2)
        reach = near + np.einsum('nij,nj->ni', mixed, far)
        apart |= (np.abs(np.einsum('nij,nj->ni', axes, offset)) > reach).any(axis=1)
    return ~apart
