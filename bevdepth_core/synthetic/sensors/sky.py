"""Paints sky, clouds and far hills."""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np

from bevdepth_core.synthetic.sensors.view import View, fill
from bevdepth_core.synthetic.world.scene import Light

_COARSE_WIDTH = 100
_CLOUD_HEIGHT = 0.35
_HILLS = ((0.075, 0.80, (112, 128, 120)), (0.042, 0.55, (92, 108, 88)))
"""For each range of hills: tangent of its elevation, share of haze, color."""


@lru_cache(maxsize=8)
def smooth_noise(seed: int, size: int, octaves: tuple[int, ...]) -> np.ndarray:
    """Return a (size, size) float32 texture with mean 0 and standard deviation 1 that can be
    repeated; ``octaves`` contains the number of noise cells per side for each octave.
    """
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size), np.float32)
    for cells in octaves:
        grid = np.pad(rng.standard_normal((cells, cells)).astype(np.float32), 2, mode='wrap')
        scale = size // cells
        fine = cv2.resize(grid, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[
            2 * scale : -2 * scale, 2 * scale : -2 * scale
        ]
        total += fine / cells**0.9
    return (total - total.mean()) / total.std()


def paint_sky(image: np.ndarray, view: View, light: Light, seed: int) -> None:
    """Paint the rows of ``image`` that show sky: gradient, sun glow and clouds, then hills
    along the horizon.
    """
    coarse = view.resized(_COARSE_WIDTH)
    rise = coarse.rise(np.array((0, coarse.width - 1)), np.arange(coarse.height)).max(axis=1)
    rows = min(coarse.height, np.count_nonzero(rise > 0) + 3)
    rays = coarse.world_rays(np.arange(coarse.width), np.arange(rows))
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    up = np.clip(rays[..., 2], 0, 1)[..., None]
    horizon, zenith = np.array(light.horizon, np.float32), np.array(light.zenith, np.float32)
    colors = horizon + (zenith - horizon) * up**0.55
    colors += _sun_glow(rays, light)
    clouds = _cloud_cover(rays, light, seed)[..., None]
    colors += (np.minimum(horizon + 24, 252) - colors) * clouds
    sky_rows = min(view.height, math.ceil(rows * view.height / coarse.height))
    image[:sky_rows] = cv2.resize(
        np.clip(colors, 0, 255).astype(np.uint8),
        (view.width, sky_rows),
        interpolation=cv2.INTER_LINEAR,
    )
    _paint_hills(image, view, light, seed)


def _sun_glow(rays: np.ndarray, light: Light) -> np.ndarray:
    cosine = np.clip(rays @ np.array(light.to_sun, np.float32), 0, 1)[..., None]
    warm = np.array((255, 236, 200), np.float32)
    return warm * (light.sun[0] * (0.10 * cosine**6 + 0.22 * cosine**48 + 0.9 * cosine**1500))


def _cloud_cover(rays: np.ndarray, light: Light, seed: int) -> np.ndarray:
    # A ray meets the cloud layer at a distance inversely proportional to the rise of the ray.
    # _CLOUD_HEIGHT is added to the rise to keep this distance finite at the horizon.
    texture = smooth_noise(seed % 7, 512, (4, 8, 16, 32, 64))
    scale = 120.0 / (np.clip(rays[..., 2], 0, 1) + _CLOUD_HEIGHT)
    noise = cv2.remap(
        texture,
        rays[..., 0] * scale,
        rays[..., 1] * scale,
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    cover = np.clip(0.55 * (noise + 4.0 * light.clouds - 1.9), 0, 1)
    return cover * np.clip(rays[..., 2] * 9, 0, 1) * 0.85


def _paint_hills(image: np.ndarray, view: View, light: Light, seed: int) -> None:
    forward = view.world_from_camera[:3, 2]
    azimuths = np.arctan2(forward[1], forward[0]) + np.linspace(-1.2, 1.2, 120)
    for layer, (height, haze, color) in enumerate(_HILLS):
        tops = height * (1 + 0.45 * _skyline(azimuths, seed + layer))
        ridge = np.stack((np.cos(azimuths), np.sin(azimuths), tops), axis=-1)
        foot = ridge[::-1] * (1, 1, 0) - (0, 0, 0.05)
        outline = view.outline_pixels(
            np.concatenate((ridge, foot)) @ view.world_from_camera[:3, :3] * 100
        )
        if outline is not None:
            fill(
                image,
                [outline],
                [float(c) for c in np.array(color) * (1 - haze) + np.array(light.horizon) * haze],
            )


def _skyline(azimuths: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    waves = [np.sin(k * azimuths + rng.uniform(0, 6.3)) / k**0.6 for k in (2, 3, 5, 9, 14, 23)]
    return np.sum(waves, axis=0) / 2
