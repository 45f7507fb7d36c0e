"""The world of one drive: a road, who moves on it, what stands beside it, and the light."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D

LANE_WIDTH = 3.4
PARKING_WIDTH = 2.4
SIDEWALK_WIDTH = 3.6

_VELOCITY_STEP_S = 0.01


@dataclass(frozen=True, eq=False)
class Road:
    """A two-way road on flat ground; road coordinates are metres along its centre line and metres to the left of it.

    Attributes:
        along: (m,) increasing.
        center: (m, 2) world x and y of the centre line.
        heading: (m,) radians.
        lanes: lanes per direction; traffic keeps right.
    """

    along: np.ndarray
    center: np.ndarray
    heading: np.ndarray
    lanes: int

    @property
    def driving_half_width(self) -> float:
        return self.lanes * LANE_WIDTH

    @property
    def curb(self) -> float:
        return self.driving_half_width + PARKING_WIDTH

    @property
    def sidewalk_end(self) -> float:
        return self.curb + SIDEWALK_WIDTH

    def lane_center(self, lane: int) -> float:
        """Return the lateral position of right-hand lane ``lane``, 0 next to the centre line; negate it for oncoming traffic."""
        return -(lane + 0.5) * LANE_WIDTH

    def pose(self, along, lateral) -> tuple[np.ndarray, np.ndarray]:
        """Return (..., 2) world positions and (...) headings of road coordinates."""
        along, lateral = np.broadcast_arrays(np.asarray(along, np.float64), np.asarray(lateral, np.float64))
        heading = np.interp(along, self.along, self.heading)
        x = np.interp(along, self.along, self.center[:, 0]) - np.sin(heading) * lateral
        y = np.interp(along, self.along, self.center[:, 1]) + np.cos(heading) * lateral
        return np.stack((x, y), axis=-1), heading


@dataclass(frozen=True)
class Actor:
    """One annotated object, in steady motion in road coordinates.

    Attributes:
        class_name: one of the ten nuScenes classes.
        size: length, width, height, metres.
        along, lateral: road coordinates at time 0, metres.
        speed, lateral_speed: their rates, m/s.
        heading_offset: heading relative to the road, radians.
        appearance: seed of colours and parts.
    """

    class_name: str
    size: tuple[float, float, float]
    along: float
    lateral: float
    speed: float = 0.0
    lateral_speed: float = 0.0
    heading_offset: float = 0.0
    appearance: int = 0

    def road_position(self, time_s):
        return self.along + self.speed * time_s, self.lateral + self.lateral_speed * time_s

    def road_half_extent(self) -> tuple[float, float]:
        """Return half of what the actor covers along and across the road."""
        cos, sin = abs(np.cos(self.heading_offset)), abs(np.sin(self.heading_offset))
        length, width, _ = self.size
        return (length * cos + width * sin) / 2, (length * sin + width * cos) / 2

    @property
    def moving(self) -> bool:
        return self.speed != 0 or self.lateral_speed != 0


@dataclass(frozen=True)
class Prop:
    """Something that is never annotated: ``kind`` is building, tree or lamp; pose in road coordinates, size in metres."""

    kind: str
    size: tuple[float, float, float]
    along: float
    lateral: float
    heading_offset: float = 0.0
    appearance: int = 0


@dataclass(frozen=True)
class Light:
    """Colours are RGB in 0..255, strengths factors on surface colours.

    Attributes:
        to_sun: unit vector in the world.
        sun: RGB strength of direct light.
        ambient: RGB strength of light from the sky.
        zenith, horizon: sky colours; haze fades to ``horizon``.
        clouds: 0 clear to 1 closed.
        haze_distance: metres after which contrast has fallen to 1/e.
    """

    to_sun: tuple[float, float, float]
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    clouds: float
    haze_distance: float


@dataclass(frozen=True, eq=False)
class Scene:
    """A drive of ``duration_s`` seconds.

    Attributes:
        road: where everything is.
        actors: annotated objects.
        props: buildings, trees, lamps.
        crosswalks: positions along the road, metres.
        light: time of day and weather.
        ego_along: road coordinate of the vehicle at time 0, metres.
        ego_lateral: its lane centre, metres.
        ego_speed: m/s along the road.
        duration_s: how long the drive was laid out for.
        seed: of everything random in the pictures.
    """

    road: Road
    actors: tuple[Actor, ...]
    props: tuple[Prop, ...]
    crosswalks: tuple[float, ...]
    light: Light
    ego_along: float
    ego_lateral: float
    ego_speed: float
    duration_s: float
    seed: int

    def world_from_ego(self, time_s: float) -> np.ndarray:
        """Return the (4, 4) pose of the vehicle."""
        position, heading = self.road.pose(self.ego_along + self.ego_speed * time_s, self.ego_lateral)
        return planar_pose(position, heading)

    def actor_pose(self, actor: Actor, time_s: float) -> tuple[np.ndarray, float]:
        """Return world x and y of the centre, and the heading."""
        position, heading = self.road.pose(*actor.road_position(time_s))
        return position, float(heading) + actor.heading_offset

    def actor_velocity(self, actor: Actor, time_s: float) -> np.ndarray:
        """Return world x and y velocity, m/s."""
        before, _ = self.actor_pose(actor, time_s - _VELOCITY_STEP_S)
        after, _ = self.actor_pose(actor, time_s + _VELOCITY_STEP_S)
        return (after - before) / (2 * _VELOCITY_STEP_S)

    def ground_truth(self, time_s: float, max_distance: float = 55.0) -> tuple[Boxes3D, np.ndarray]:
        """Return the boxes within ``max_distance`` metres, in the ego frame of ``time_s``, and their nuScenes labels (n,)."""
        world_from_ego = self.world_from_ego(time_s)
        ego_position, ego_from_world = world_from_ego[:2, 3], world_from_ego[:2, :2].T
        ego_heading = np.arctan2(world_from_ego[1, 0], world_from_ego[0, 0])
        rows, labels = [], []
        for actor in self.actors:
            position, heading = self.actor_pose(actor, time_s)
            if np.hypot(*(position - ego_position)) > max_distance:
                continue
            center = ego_from_world @ (position - ego_position)
            velocity = ego_from_world @ self.actor_velocity(actor, time_s)
            yaw = (heading - ego_heading + np.pi) % (2 * np.pi) - np.pi
            rows.append((*center, actor.size[2] / 2, *actor.size, yaw, *velocity))
            labels.append(NUSCENES_CLASSES.index(actor.class_name))
        table = np.array(rows, np.float32).reshape(-1, 9)
        return Boxes3D(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7:]), np.array(labels, np.int64)


def planar_pose(position, heading) -> np.ndarray:
    """Return the (4, 4) transform of a frame on the ground at ``position`` (x, y) turned by ``heading``."""
    cos, sin = np.cos(heading), np.sin(heading)
    return np.array(((cos, -sin, 0, position[0]), (sin, cos, 0, position[1]), (0, 0, 1, 0), (0, 0, 0, 1)), np.float64)
