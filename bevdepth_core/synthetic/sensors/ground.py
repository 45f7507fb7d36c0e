"""Renders the ground, the plane z = 0: flat markings, shadows, grain and haze."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np

from bevdepth_core.synthetic.sensors.pavement import Flat, layers_around, lit_flat
from bevdepth_core.synthetic.sensors.sky import smooth_noise
from bevdepth_core.synthetic.sensors.view import NEAR, View, fill, fixed_point, plain_image
from bevdepth_core.synthetic.world.scene import Light, SyntheticScene

_GRASS, _CONTACT = (104, 116, 74), (40, 40, 43)
_HORIZON_DISTANCE = 500.0
_TEXTURE_SIZE = 512
_GRAIN_TEXELS_PER_M, _STAINS_TEXELS_PER_M = 60, 7
_GRAIN_FADE_M, _STAINS_FADE_M = 7.0, 60.0
_LAYER_WIDTH = 400
"""Width of the layers of shadows, stains and haze, pixels; they are enlarged to the size of the
image. The layer of grain is twice as wide."""


def paint_ground(
    image: np.ndarray,
    view: View,
    scene: SyntheticScene,
    shadows: list[np.ndarray],
    contacts: list[np.ndarray],
) -> None:
    """Paint everything below the horizon of ``image``.

    Args:
        image: (height, width, 3) uint8, in which the sky is already painted.
        view: the camera.
        scene: the world; its road and its light are used.
        shadows: outlines of the shadows on the ground, each (n, 2) world x and y.
        contacts: outlines of the places where objects touch the ground. These places are painted
            dark gray.
    """
    first, first_full = _rows_with_ground(view)
    if first == view.height:
        return
    lower = view.part(first)
    canvas = plain_image(lower, lit_flat(_GRASS, scene.light))
    flat, colors = layers_around(scene, view.position[:2])
    _fill_flat(canvas, lower, flat, colors)
    _fill_flat(canvas, lower, Flat.of(contacts), [lit_flat(_CONTACT, scene.light)] * len(contacts))
    small = lower.resized(_LAYER_WIDTH)
    ground = _ground_under_pixels(small)
    gain, haze = _gain(small, *ground, scene.light, shadows), _haze(ground[0], scene.light)
    gain, haze = (cv2.resize(layer, canvas.shape[1::-1]) for layer in (gain, haze))
    cv2.add(cv2.multiply(canvas, gain, dst=canvas, scale=1 / 128), haze, dst=canvas)
    if first_full > first:
        mask = _below_horizon(view, first, first_full)
        cv2.copyTo(canvas[: first_full - first], mask, image[first:first_full])
    image[first_full:] = canvas[first_full - first :]


def _rows_with_ground(view: View) -> tuple[int, int]:
    """Return the first row with at least one ground pixel, and the first row with only ground
    pixels. If the image has no such row, the image height is returned instead of the row.
    """
    rise = view.rise(np.array((0, view.width - 1)), np.arange(view.height))
    first, first_full = (
        np.append(np.flatnonzero(seen), view.height)[0]
        for seen in ((rise < 0).any(axis=1), (rise < 0).all(axis=1))
    )
    return int(first), int(first_full)


def _below_horizon(view: View, first: int, stop: int) -> np.ndarray:
    """Return the (stop - first, width) uint8 mask of ground pixels: 1 on the ground."""
    return (view.rise(np.arange(view.width), np.arange(first, stop)) < 0).astype(np.uint8)


def _ground_under_pixels(view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the ground point that each pixel shows: its horizontal distance from the camera, and
    its world x and y relative to the camera, meters; each (height, width) float32.

    If a ray meets the ground at a larger depth than ``_HORIZON_DISTANCE`` or does not meet the
    ground, the point at this depth on the ray is used instead.
    """
    rays = view.world_rays(np.arange(view.width), np.arange(view.height))
    depth = np.float32(view.position[2]) / np.maximum(
        -rays[..., 2], np.float32(view.position[2] / _HORIZON_DISTANCE)
    )
    x, y = rays[..., 0] * depth, rays[..., 1] * depth
    return cv2.magnitude(x, y), x, y


def _gain(
    view: View,
    distance: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    light: Light,
    shadows: list[np.ndarray],
) -> np.ndarray:
    """Return the factors by which ground colors are multiplied, (rows, columns, 3) uint8 in units
    of 1/128. The array has twice the width and height of ``view``.

    Args:
        view: the camera with an image of low resolution.
        distance: horizontal distance of the ground point of each pixel of ``view``, meters.
        x: world x of these points relative to the camera, meters.
        y: world y of these points relative to the camera, meters.
        light: light of the scene.
        shadows: outlines of the shadows on the ground, each (n, 2) world x and y.
    """
    mask = np.zeros((view.height, view.width), np.uint8)
    _fill_flat(mask, view, Flat.of(shadows), [(255.0,)] * len(shadows))
    shade = cv2.multiply(
        _shade(mask, light),
        cv2.merge([_transmittance(distance, light)] * 3),
        scale=1,
        dtype=cv2.CV_8U,
    )
    size = (2 * view.width, 2 * view.height)
    return cv2.multiply(
        cv2.resize(shade, size), cv2.merge([_grain(distance, x, y, size)] * 3), scale=1 / 255
    )


def _transmittance(distance: np.ndarray, light: Light) -> np.ndarray:
    """Return the share of the light that is not lost in the haze."""
    return cv2.exp(distance * np.float32(-1 / light.haze_distance))


def _haze(distance: np.ndarray, light: Light) -> np.ndarray:
    """Return the light that haze adds, (height, width, 3) uint8."""
    share = 1 - _transmittance(distance, light)
    return cv2.merge([cv2.convertScaleAbs(share, alpha=color) for color in light.horizon])


def _fill_flat(
    canvas: np.ndarray, view: View, flat: Flat, colors: list[tuple[float, ...]]
) -> None:
    """Fill outlines on the ground, one after the other; later outlines cover earlier outlines."""
    if not colors:
        return
    points = view.to_camera(flat.points)
    across, depth = points @ view.intrinsics[0], points[:, 2]
    outside = np.stack((depth < NEAR, across < 0, across > view.width * depth), axis=-1)
    unseen = np.logical_and.reduceat(outside, flat.ends[:-1]).any(axis=1)
    cut = np.logical_or.reduceat(outside[:, 0], flat.ends[:-1])
    pixels = fixed_point(view.project(np.maximum(points, (-np.inf, -np.inf, NEAR))))
    for number in np.flatnonzero(~unseen).tolist():
        part = slice(flat.ends[number], flat.ends[number + 1])
        outline = view.outline_pixels(points[part]) if cut[number] else pixels[part]
        if outline is not None:
            fill(canvas, [outline], colors[number])


@lru_cache(maxsize=4)
def _texture(seed: int, octaves: tuple[int, ...], contrast: float) -> np.ndarray:
    """Return a (_TEXTURE_SIZE + 1, _TEXTURE_SIZE + 1) uint8 texture with values around 128. The
    last row and column equal the first row and column, so that the texture can be repeated.
    """
    texture = np.clip(128 + contrast * smooth_noise(seed, _TEXTURE_SIZE, octaves), 0, 255).astype(
        np.uint8
    )
    return np.pad(texture, ((0, 1), (0, 1)), mode='wrap')


def _grain(
    distance: np.ndarray, x: np.ndarray, y: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Return the brightness that grain and stains give to the ground, as uint8; 128 is neutral.

    Grain and stains fade out at distances at which they would flicker.

    Args:
        distance: horizontal distance of the ground point of each pixel, meters.
        x: world x of these points relative to the camera, meters.
        y: world y of these points relative to the camera, meters.
        size: width and height of the result. The result may be larger than ``distance``.
    """
    stains = _sampled(
        _texture(2, (8, 16, 32, 64, 128), 5.0), x * _STAINS_TEXELS_PER_M, y * _STAINS_TEXELS_PER_M
    ) * _fade(distance / _STAINS_FADE_M)
    layers = (
        x * _GRAIN_TEXELS_PER_M,
        y * _GRAIN_TEXELS_PER_M,
        _fade(distance / _GRAIN_FADE_M),
        stains,
    )
    fine_x, fine_y, fade, stains = (cv2.resize(layer, size) for layer in layers)
    fine = _sampled(_texture(1, (128, 256, 512), 7.0), fine_x, fine_y)
    return cv2.convertScaleAbs(cv2.add(cv2.multiply(fine, fade), stains) + 128)


def _sampled(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the values of ``texture`` at the coordinates ``x`` and ``y`` in texels, as float32
    around 0. The texture repeats every ``_TEXTURE_SIZE`` texels.
    """
    integer, fraction = cv2.convertMaps(x, y, cv2.CV_16SC2)
    values = cv2.remap(texture, integer & (_TEXTURE_SIZE - 1), fraction, cv2.INTER_LINEAR)
    return values.astype(np.float32) - 128


def _fade(distance: np.ndarray) -> np.ndarray:
    """Return a weight that decreases with distance: 1 at 0, 0.5 at 1, and 0.06 at 2."""
    square = distance * distance
    return 1 / (1 + square * square)


def _shade(mask: np.ndarray, light: Light) -> np.ndarray:
    """Return the brightness of the ground, (height, width, 3) uint8: 255 where ``mask`` is 0, and
    darkest where ``mask`` is 255, that is, in the shade.
    """
    lit = np.array(light.ambient) + np.array(light.sun) * light.to_sun[2]
    darkest = np.array(light.ambient) * 0.95 / lit
    gains = np.rint(255 - np.arange(256)[:, None] * (1 - darkest)).astype(np.uint8)
    return cv2.LUT(cv2.merge([cv2.blur(mask, (3, 3))] * 3), gains[None])
