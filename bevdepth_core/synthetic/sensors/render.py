"""Renders camera images. Each image shows the world at the exposure time of its camera, from the
ego pose at this time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from bevdepth_core.synthetic.sensors.ground import paint_ground
from bevdepth_core.synthetic.sensors.order import visible_objects
from bevdepth_core.synthetic.sensors.painter import Painter
from bevdepth_core.synthetic.sensors.placement import Placed, placed_actors, placed_props
from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S
from bevdepth_core.synthetic.sensors.sky import paint_sky
from bevdepth_core.synthetic.sensors.view import View
from bevdepth_core.synthetic.world.scene import SyntheticScene
from bevdepth_core.types import CameraRig, Frame

_SHADOW_LENGTH_LIMIT = 5.0
_SHADOW_SIGHT = 70.0
_NOISE, _NOISE_WIDTH = 2.0, 1600


def render_frame(
    scene: SyntheticScene,
    rig: CameraRig,
    time_s: float,
    *,
    start_ns: int = 0,
    width: int = 1600,
    height: int = 900,
) -> Frame:
    """Return one image set whose trigger cycle starts at ``time_s``. The stamp of an image is
    ``start_ns`` plus its exposure time since the start of the scene.

    Args:
        scene: the world to render.
        rig: cameras named as in ``EXPOSURE_OFFSET_S``, with intrinsics for images of this size.
        time_s: seconds since the start of the scene.
        start_ns: stamp of the start of the scene, nanoseconds.
        width: width of the images, pixels.
        height: height of the images, pixels.
    """
    times = [time_s + EXPOSURE_OFFSET_S[name] for name in rig.names]
    poses = [scene.world_from_ego(moment) for moment in times]
    images = [
        render_camera(scene, intrinsics, pose @ mount, moment, width=width, height=height)
        for intrinsics, mount, pose, moment in zip(
            rig.intrinsics, rig.ego_from_camera, poses, times, strict=True
        )
    ]
    stamps = np.array([start_ns + round(moment * 1e9) for moment in times], np.int64)
    return Frame(tuple(images), rig, stamps, np.array(poses))


def render_camera(
    scene: SyntheticScene,
    intrinsics: np.ndarray,
    world_from_camera: np.ndarray,
    time_s: float,
    *,
    width: int,
    height: int,
) -> np.ndarray:
    """Return the (height, width, 3) uint8 RGB image of a pinhole camera at ``time_s``."""
    view = View(intrinsics, world_from_camera, width, height)
    actors, props = placed_actors(scene, time_s), placed_props(scene)
    image = np.empty((height, width, 3), np.uint8)
    paint_sky(image, view, scene.light, scene.seed)
    near = [
        placed
        for placed in (*props, *actors)
        if math.dist(placed.position, view.position[:2]) < _SHADOW_SIGHT
    ]
    paint_ground(
        image,
        view,
        scene,
        [_shadow(placed, scene.light.to_sun) for placed in near],
        [placed.contact for placed in near],
    )
    shade, standing = _props_shade(scene), set(props)
    objects = visible_objects([*props, *actors], view)
    shaded = [
        placed not in standing and _in_shade(placed, shade, scene.light.to_sun)
        for placed in objects
    ]
    Painter(image, view, scene.light).draw(objects, shaded)
    return _expose(image, round(time_s * 1000) + scene.seed)


@lru_cache(maxsize=4096)
def _shadow(placed: Placed, to_sun: tuple[float, float, float]) -> np.ndarray:
    """Return the (n, 2) convex outline of the shadow on the ground."""
    world = placed.to_world(placed.shape.corners)
    on_ground = world[:, :2] - world[:, 2:] * _shadow_reach(to_sun)
    origin = on_ground[0]
    return cv2.convexHull((on_ground - origin).astype(np.float32))[:, 0] + origin


def _shadow_reach(to_sun: Sequence[float]) -> np.ndarray:
    """Return the (2,) horizontal vector towards the sun, meters per meter of height. The shadow of
    a point lies in the opposite direction.
    """
    return np.array(to_sun[:2]) / max(to_sun[2], 1 / _SHADOW_LENGTH_LIMIT)


@lru_cache(maxsize=4)
def _props_shade(scene: SyntheticScene) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Return the shadows of the props, and the (n, 2) lowest and highest world x and y of each
    shadow.
    """
    shadows = [_shadow(placed, scene.light.to_sun) for placed in placed_props(scene)]
    low, high = (
        np.array([end(outline, axis=0) for outline in shadows]).reshape(-1, 2)
        for end in (np.min, np.max)
    )
    return shadows, low, high


def _in_shade(
    placed: Placed, shade: tuple[list[np.ndarray], np.ndarray, np.ndarray], to_sun: Sequence[float]
) -> bool:
    """Return True if the middle of an object lies in the shadow of a prop."""
    shadows, low, high = shade
    on_ground = placed.position - placed.shape.height / 2 * _shadow_reach(to_sun)
    around = np.flatnonzero(((low < on_ground) & (on_ground < high)).all(axis=1))
    return any(
        cv2.pointPolygonTest(
            (shadows[i] - on_ground).astype(np.float32), (0, 0), measureDist=False
        )
        > 0
        for i in around
    )


@lru_cache(maxsize=4)
def _vignette(width: int, height: int) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-0.6, 0.6, height))
    return np.repeat(
        np.rint(255 * (1 - 0.16 * (x * x + y * y))).astype(np.uint8)[..., None], 3, axis=-1
    )


@lru_cache(maxsize=4)
def _sensor_noise(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the positive and the negative part of sensor noise. Both arrays are larger than the
    image, so that each image can use the noise at a different offset.

    A small image has less noise, as if its pixels were means of the pixels of a large image.
    """
    rng = np.random.default_rng(0)
    noise = rng.normal(0, _NOISE * min(1, width / _NOISE_WIDTH), (height + 64, width + 64, 3))
    return tuple(np.rint(np.maximum(part, 0)).astype(np.uint8) for part in (noise, -noise))


def _expose(image: np.ndarray, seed: int) -> np.ndarray:
    """Return the image with the effects of lens and sensor: darker corners, noise."""
    height, width = image.shape[:2]
    dimmed = cv2.multiply(image, _vignette(width, height), scale=1 / 255)
    row, column = np.random.default_rng(seed).integers(64, size=2)
    more, less = (
        part[row : row + height, column : column + width] for part in _sensor_noise(width, height)
    )
    return cv2.subtract(cv2.add(dimmed, more, dst=dimmed), less, dst=dimmed)
