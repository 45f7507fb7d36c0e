"""Simulates the lidar on the roof; all points of a rotation are measured at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from bevdepth_core.synthetic.sensors.placement import placed_actors, placed_props
from bevdepth_core.synthetic.sensors.raycast import RayGrid, cast
from bevdepth_core.synthetic.world.scene import SyntheticScene

LOWEST_DEGREES, HIGHEST_DEGREES = -30.67, 10.67
"""Elevations of the lowest and highest beam of the nuScenes lidar; the beams are evenly spaced."""
COLUMNS = 1084
"""Number of azimuths in one rotation; there are 20 rotations per second."""
NEAREST, FARTHEST = 1.0, 70.0
"""Smallest and largest distance that is measured, meters."""

_RANGE_NOISE = 0.012
_LOST = 0.02
_GROUND_BRIGHTNESS, _BRIGHTNESS_NOISE = 46.0, 7.0
_INTENSITY_PER_BRIGHTNESS = 0.32
_ECHO_LIMIT = 0.35
"""A return of intensity i is lost if it is farther away than ``(_ECHO_LIMIT + i / 20) * FARTHEST``
meters."""


@dataclass(frozen=True)
class LidarScan:
    """One lidar scan.

    Attributes:
        points: (n, 3) float32 meters, lidar frame: x right, y forward, z up.
        intensity: (n,) float32, 0..255.
        ring: (n,) int64, number of the beam; 0 is the lowest beam.
        actor: (n,) int64 index into the scene's actors, -1 for a point that is not on an actor.
    """

    points: np.ndarray
    intensity: np.ndarray
    ring: np.ndarray
    actor: np.ndarray


@lru_cache(maxsize=4)
def _grid(beams: int) -> RayGrid:
    return RayGrid.make(np.radians(np.linspace(LOWEST_DEGREES, HIGHEST_DEGREES, beams)), COLUMNS)


def scan(
    scene: SyntheticScene, time_s: float, ego_from_lidar: np.ndarray, *, beams: int = 32, seed: int
) -> LidarScan:
    """Return the lidar scan at ``time_s``; nothing moves during the scan.

    Args:
        scene: the world.
        time_s: seconds since the start of the scene.
        ego_from_lidar: (4, 4) pose of the lidar in the ego frame.
        beams: number of beams, at least 2. The elevations of the lowest and of the highest beam do
            not depend on this number, so more beams are closer to each other.
        seed: seed of the noise.
    """
    rng = np.random.default_rng(seed)
    grid = _grid(beams)
    world_from_lidar = scene.world_from_ego(time_s) @ ego_from_lidar
    objects = [*placed_actors(scene, time_s), *placed_props(scene)]
    hits = cast(grid, world_from_lidar, objects, FARTHEST)
    down = grid.directions @ world_from_lidar[2, :3].astype(np.float32)
    to_ground = np.where(
        down < -1e-4, world_from_lidar[2, 3] / np.maximum(-down, 1e-4), np.inf
    ).astype(np.float32)
    on_ground = to_ground < hits.distance
    distance = np.where(on_ground, to_ground, hits.distance)
    brightness = np.where(on_ground, _GROUND_BRIGHTNESS, hits.brightness) + rng.normal(
        0, _BRIGHTNESS_NOISE, len(distance)
    )
    intensity = np.clip(_INTENSITY_PER_BRIGHTNESS * brightness, 1, 255)
    echo = np.minimum(1, _ECHO_LIMIT + intensity / 20)
    kept = np.flatnonzero(
        (distance > NEAREST) & (distance < FARTHEST * echo) & (rng.random(len(distance)) > _LOST)
    )
    measured = distance[kept] + rng.normal(0, _RANGE_NOISE, len(kept)).clip(
        -2 * _RANGE_NOISE, 2 * _RANGE_NOISE
    )
    owner = np.where(on_ground | (hits.owner >= len(scene.actors)), -1, hits.owner)
    points = (grid.directions[kept] * measured[:, None]).astype(np.float32)
    return LidarScan(points, intensity[kept].astype(np.float32), kept // COLUMNS, owner[kept])
