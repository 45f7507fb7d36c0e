"""Takes the pictures: every camera at its own moment, from its own ego pose."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from bevdepth_core.nuscenes.synthetic.ground import paint_ground
from bevdepth_core.nuscenes.synthetic.painter import Painter, visible_objects
from bevdepth_core.nuscenes.synthetic.placement import Placed, placed_actors, placed_props
from bevdepth_core.nuscenes.synthetic.rig import EXPOSURE_OFFSET_S
from bevdepth_core.nuscenes.synthetic.scene import Scene
from bevdepth_core.nuscenes.synthetic.sky import paint_sky
from bevdepth_core.nuscenes.synthetic.view import View
from bevdepth_core.types import CameraRig, Frame

_SHADOW_LENGTH_LIMIT = 5.0
_SHADOW_SIGHT, _SHADOW_GRID = 70.0, 20.0
_NOISE, _NOISE_ZERO = 2.0, 16


def render_frame(scene: Scene, rig: CameraRig, time_s: float, *, start_ns: int = 0, width: int = 1600, height: int = 900) -> Frame:
    """Return one set of images whose rotation starts at ``time_s``; stamps are ``start_ns`` plus scene time.

    Args:
        scene: what to see.
        rig: cameras named as in ``EXPOSURE_OFFSET_S``, with intrinsics for images of this size.
        time_s: seconds since the start of the scene.
        start_ns: stamp of scene time 0.
        width: pixels.
        height: pixels.
    """
    times = [time_s + EXPOSURE_OFFSET_S[name] for name in rig.names]
    poses = [scene.world_from_ego(moment) for moment in times]
    images = [
        render_camera(scene, intrinsics, pose @ mount, moment, width=width, height=height)
        for intrinsics, mount, pose, moment in zip(rig.intrinsics, rig.ego_from_camera, poses, times, strict=True)
    ]
    stamps = np.array([start_ns + round(moment * 1e9) for moment in times], np.int64)
    return Frame(tuple(images), rig, stamps, np.array(poses))


def render_camera(
    scene: Scene, intrinsics: np.ndarray, world_from_camera: np.ndarray, time_s: float, *, width: int, height: int
) -> np.ndarray:
    """Return the (height, width, 3) uint8 RGB image that a pinhole camera takes at ``time_s``."""
    view = View(intrinsics, world_from_camera, width, height)
    actors = placed_actors(scene, time_s)
    near_actors = [placed for placed in actors if np.hypot(*(placed.position - view.position[:2])) < _SHADOW_SIGHT]
    shadows = _prop_shadows(scene, tuple(np.rint(view.position[:2] / _SHADOW_GRID)))
    image = np.empty((height, width, 3), np.uint8)
    paint_sky(image, view, scene.light, scene.seed)
    actor_shadows = [_shadow(placed, scene.light.to_sun) for placed in near_actors]
    paint_ground(image, view, scene, [*shadows, *actor_shadows], [placed.footprint for placed in near_actors])
    painter = Painter(image, view, scene.light)
    for placed in visible_objects([*placed_props(scene), *actors], view):
        painter.draw(placed, in_shade=placed in near_actors and _in_shade(placed, shadows, scene.light.to_sun))
    return _expose(image, round(time_s * 1000) + scene.seed)


@lru_cache(maxsize=64)
def _prop_shadows(scene: Scene, cell: tuple[float, float]) -> list[np.ndarray]:
    """Return the shadows of the props around a place, given in cells of the shadow grid."""
    center = np.array(cell) * _SHADOW_GRID
    return [
        _shadow(placed, scene.light.to_sun)
        for placed in placed_props(scene)
        if np.hypot(*(placed.position - center)) < _SHADOW_SIGHT + _SHADOW_GRID
    ]


def _shadow(placed: Placed, to_sun) -> np.ndarray:
    """Return the (n, 2) convex outline of the shadow on the ground."""
    world = placed.shape.corners @ placed.world_from_local_rotation().T + (*placed.position, 0)
    on_ground = world[:, :2] - world[:, 2:] * _shadow_reach(to_sun)
    origin = on_ground[0]
    return cv2.convexHull((on_ground - origin).astype(np.float32))[:, 0] + origin


def _shadow_reach(to_sun) -> np.ndarray:
    """Return how far, (2,) metres per metre of height, shadows fall against the sun."""
    return np.array(to_sun[:2]) / max(to_sun[2], 1 / _SHADOW_LENGTH_LIMIT)


def _in_shade(placed: Placed, shadows: list[np.ndarray], to_sun) -> bool:
    """Return whether the middle of an object lies in one of the ``shadows``."""
    on_ground = placed.position - placed.shape.height / 2 * _shadow_reach(to_sun)
    return any(cv2.pointPolygonTest((outline - on_ground).astype(np.float32), (0, 0), measureDist=False) > 0 for outline in shadows)


@lru_cache(maxsize=4)
def _vignette(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-0.6, 0.6, height))
    return np.repeat(np.rint(255 * (1 - 0.16 * (x * x + y * y))).astype(np.uint8)[..., None], 3, axis=-1)


@lru_cache(maxsize=4)
def _sensor_noise(width: int, height: int) -> np.ndarray:
    """Return uint8 noise around ``_NOISE_ZERO``, larger than the image so that a shifted piece can be used each time."""
    rng = np.random.default_rng(0)
    return np.rint(rng.normal(_NOISE_ZERO, _NOISE, (height + 64, width + 64, 3))).clip(0, 255).astype(np.uint8)


def _expose(image: np.ndarray, seed: int) -> np.ndarray:
    """Return the image as a sensor behind a lens gives it: darker corners, noise."""
    height, width = image.shape[:2]
    dimmed = cv2.multiply(image, _vignette(width, height), scale=1 / 255)
    row, column = np.random.default_rng(seed).integers(64, size=2)
    return cv2.addWeighted(dimmed, 1, _sensor_noise(width, height)[row : row + height, column : column + width], 1, -_NOISE_ZERO)
