"""The world of one drive: road, actors, props beside the road, and light."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.synthetic.world.road import Road
from bevdepth_core.types import Boxes3D

TRACK_START_S, TRACK_STEP_S = -1.0, 0.1
"""Tracks begin before the drive, so that velocities are also defined at the start of the drive."""

_VELOCITY_STEP_S = 0.05
_SWAYS = ((0.012, 11.0), (0.0035, 17.0), (0.0035, 13.0))
"""(amplitude in meters or radians, wavelength in meters) of the height, pitch and roll of
the ego vehicle."""
_DIVE, _LEAN = 0.004, 0.004
"""Radians of pitch and roll per m/s² of braking and cornering."""


@dataclass(frozen=True, eq=False)
class Actor:
    """One annotated object.

    Attributes:
        class_name: one of the ten nuScenes classes.
        size: length, width, height, meters.
        track: (t, 3) world x, y and heading every ``TRACK_STEP_S`` from ``TRACK_START_S``; (1, 3)
            for an actor that never moves.
        appearance: seed of colors and parts.
        rider: whether a bicycle or motorcycle has a rider.
    """

    class_name: str
    size: tuple[float, float, float]
    track: np.ndarray
    appearance: int = 0
    rider: bool = True

    @property
    def moving(self) -> bool:
        """Return False if the track is a single pose, because the actor never moves."""
        return len(self.track) > 1

    def pose(self, time_s: float) -> np.ndarray:
        """Return the (3,) world x, y and heading at ``time_s``."""
        return _interpolated(self.track[None], time_s)[0]

    def traveled(self, time_s: float) -> float:
        """Return the distance traveled from the start of the track until ``time_s``, meters."""
        place = np.clip((time_s - TRACK_START_S) / TRACK_STEP_S, 0, len(self.track) - 1)
        return float(np.interp(place, np.arange(len(self.track)), self._milestones))

    @cached_property
    def _milestones(self) -> np.ndarray:
        return np.concatenate(
            ((0.0,), np.cumsum(np.linalg.norm(np.diff(self.track[:, :2], axis=0), axis=1)))
        )


@dataclass(frozen=True)
class Prop:
    """An object that is not annotated. ``kind`` is building, tree or lamp. Its pose is given in
    road coordinates, and its size in meters.
    """

    kind: str
    size: tuple[float, float, float]
    along: float
    lateral: float
    heading_offset: float = 0.0
    appearance: int = 0


@dataclass(frozen=True)
class Light:
    """Light of a scene. Colors are RGB, 0..255. Strengths are multiplied by surface colors.

    Attributes:
        to_sun: unit vector in the world.
        sun: RGB strength of direct light.
        ambient: RGB strength of light from the sky.
        zenith, horizon: sky colors; haze has the color ``horizon``.
        clouds: cloud cover, from 0 (clear) to 1 (overcast).
        haze_distance: distance at which haze reduces the contrast to 1/e, meters.
    """

    to_sun: tuple[float, float, float]
    sun: tuple[float, float, float]
    ambient: tuple[float, float, float]
    zenith: tuple[float, float, float]
    horizon: tuple[float, float, float]
    clouds: float
    haze_distance: float


@dataclass(frozen=True, eq=False)
class SyntheticScene:
    """A drive of ``duration_s`` seconds.

    Attributes:
        road: the road.
        actors: annotated objects.
        props: buildings, trees, lamps.
        crosswalks: positions of the crosswalks along the road, meters.
        light: time of day and weather.
        ego_track: (t, 3) world x, y and heading of the ego vehicle, as in ``Actor.track``.
        duration_s: duration of the drive, seconds.
        seed: seed of all random values in the images.
    """

    road: Road
    actors: tuple[Actor, ...]
    props: tuple[Prop, ...]
    crosswalks: tuple[float, ...]
    light: Light
    ego_track: np.ndarray
    duration_s: float
    seed: int

    def world_from_ego(self, time_s: float) -> np.ndarray:
        """Return the (4, 4) ego pose. The ego vehicle sways slightly, pitches when it brakes and
        rolls in curves.
        """
        pose = _interpolated(self.ego_track[None], time_s)[0]
        traveled = np.hypot(*(pose[:2] - self.ego_track[0, :2]))
        height, pitch, roll = (
            amplitude * np.sin(2 * np.pi * traveled / length + self.seed)
            for amplitude, length in _SWAYS
        )
        braking, cornering = self._acceleration(time_s, pose[2])
        return _pose_matrix(
            (*pose[:2], height), pose[2], pitch - _DIVE * braking, roll + _LEAN * cornering
        )

    def _acceleration(self, time_s: float, heading: float) -> np.ndarray:
        """Return the acceleration of the ego vehicle forward and to the left, m/s²."""
        before, now, after = (
            _interpolated(self.ego_track[None], time_s + step)[0, :2] for step in (-0.4, 0.0, 0.4)
        )
        cos, sin = np.cos(heading), np.sin(heading)
        return np.array(((cos, sin), (-sin, cos))) @ (after - 2 * now + before) / 0.16

    @cached_property
    def _tracks(self) -> np.ndarray:
        """Return (actors, t, 3) tracks; the track of a standing actor repeats its pose."""
        longest = max((len(actor.track) for actor in self.actors), default=1)
        tracks = [
            np.broadcast_to(actor.track, (longest, 3)) if not actor.moving else actor.track
            for actor in self.actors
        ]
        return np.stack(tracks) if tracks else np.zeros((0, 1, 3))

    def actor_poses(self, time_s: float) -> np.ndarray:
        """Return the (actors, 3) world x, y and heading of all actors at ``time_s``."""
        return _interpolated(self._tracks, time_s)

    def actor_pose(self, actor: Actor, time_s: float) -> tuple[np.ndarray, float]:
        """Return world x and y of the center, and the heading, at ``time_s``."""
        pose = actor.pose(time_s)
        return pose[:2], float(pose[2])

    def actor_velocity(self, actor: Actor, time_s: float) -> np.ndarray:
        """Return the velocity along world x and y at ``time_s``, m/s."""
        return (actor.pose(time_s + _VELOCITY_STEP_S) - actor.pose(time_s - _VELOCITY_STEP_S))[
            :2
        ] / (2 * _VELOCITY_STEP_S)

    def ground_truth(
        self, time_s: float, max_distance: float = 55.0, *, seen: np.ndarray | None = None
    ) -> tuple[Boxes3D, np.ndarray]:
        """Return the boxes of the actors within ``max_distance`` meters in the ego frame at
        ``time_s``, and the (n,) indices of their classes in ``NUSCENES_CLASSES``.

        Args:
            time_s: seconds since the start of the scene.
            max_distance: largest horizontal distance from the origin of the ego frame, meters.
            seen: (actors,) bool, False for the actors whose boxes are never returned; None: True
                for all actors.
        """
        ego_from_world = np.linalg.inv(self.world_from_ego(time_s))
        poses = self.actor_poses(time_s)
        moved = self.actor_poses(time_s + _VELOCITY_STEP_S) - self.actor_poses(
            time_s - _VELOCITY_STEP_S
        )
        size = np.array([actor.size for actor in self.actors]).reshape(-1, 3)
        center = (
            np.column_stack((poses[:, :2], size[:, 2] / 2)) @ ego_from_world[:3, :3].T
            + ego_from_world[:3, 3]
        )
        velocity = moved[:, :2] @ ego_from_world[:2, :2].T / (2 * _VELOCITY_STEP_S)
        forward = (
            np.column_stack((np.cos(poses[:, 2]), np.sin(poses[:, 2]))) @ ego_from_world[:2, :2].T
        )
        table = np.column_stack(
            (center, size, np.arctan2(forward[:, 1], forward[:, 0]), velocity)
        ).astype(np.float32)
        labels = np.array(
            [NUSCENES_CLASSES.index(actor.class_name) for actor in self.actors], np.int64
        )
        kept = np.hypot(center[:, 0], center[:, 1]) <= max_distance
        table, labels = (
            values[kept if seen is None else kept & seen] for values in (table, labels)
        )
        return Boxes3D(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7:]), labels


def _interpolated(tracks: np.ndarray, time_s: float) -> np.ndarray:
    """Return the (n, 3) poses of (n, t, 3) tracks at ``time_s``."""
    place = min(max((time_s - TRACK_START_S) / TRACK_STEP_S, 0.0), tracks.shape[1] - 1.0)
    first = min(int(place), tracks.shape[1] - 2) if tracks.shape[1] > 1 else 0
    second = min(first + 1, tracks.shape[1] - 1)
    return tracks[:, first] + (tracks[:, second] - tracks[:, first]) * (place - first)


def _pose_matrix(position: Sequence[float], yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Return the (4, 4) transform of a frame that is rotated by roll, then pitch, then yaw."""
    (cy, sy), (cp, sp), (cr, sr) = ((np.cos(angle), np.sin(angle)) for angle in (yaw, pitch, roll))
    about_z, about_y = (
        np.array(((cy, -sy, 0), (sy, cy, 0), (0, 0, 1))),
        np.array(((cp, 0, sp), (0, 1, 0), (-sp, 0, cp))),
    )
    pose = np.eye(4)
    pose[:3, :3] = about_z @ about_y @ np.array(((1, 0, 0), (0, cr, -sr), (0, sr, cr)))
    pose[:3, 3] = position
    return pose
