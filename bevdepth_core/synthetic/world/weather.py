"""Creates the light of a scene: time of day and weather."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bevdepth_core.synthetic.world.scene import Light

_CLEAR, _MORNING, _OVERCAST, _DUSK, _HAZE = (
    # Each row: share of scenes; elevation of the sun in degrees; sun, ambient, zenith, horizon,
    # clouds and haze_distance as in Light.
    (
        0.36,
        48,
        (0.62, 0.60, 0.55),
        (0.60, 0.63, 0.68),
        (86, 132, 190),
        (200, 213, 224),
        0.35,
        420.0,
    ),
    (
        0.20,
        24,
        (0.78, 0.66, 0.50),
        (0.54, 0.56, 0.62),
        (98, 136, 184),
        (230, 214, 194),
        0.45,
        340.0,
    ),
    (
        0.22,
        60,
        (0.12, 0.12, 0.12),
        (0.90, 0.91, 0.93),
        (172, 180, 188),
        (212, 215, 217),
        0.90,
        280.0,
    ),
    (0.10, 9, (0.42, 0.27, 0.14), (0.40, 0.42, 0.50), (58, 72, 118), (226, 168, 128), 0.55, 260.0),
    (
        0.12,
        34,
        (0.26, 0.25, 0.23),
        (0.80, 0.81, 0.82),
        (188, 192, 194),
        (214, 214, 210),
        0.80,
        110.0,
    ),
)
_KINDS = (_CLEAR, _MORNING, _OVERCAST, _DUSK, _HAZE)


def make_light(rng: np.random.Generator) -> Light:
    """Return the light of a scene: one of the kinds clear, morning, overcast, dusk and haze, with
    small random changes.
    """
    kind = _KINDS[rng.choice(len(_KINDS), p=[kind[0] for kind in _KINDS])]
    _, elevation, sun, ambient, zenith, horizon, clouds, haze_distance = kind
    angle = math.radians(elevation * rng.uniform(0.8, 1.2))
    azimuth = rng.uniform(-math.pi, math.pi)
    to_sun = (
        math.cos(angle) * math.cos(azimuth),
        math.cos(angle) * math.sin(azimuth),
        math.sin(angle),
    )
    exposure = rng.uniform(0.86, 1.12)
    clouds = float(np.clip(clouds + rng.uniform(-0.15, 0.15), 0, 1))
    return Light(
        to_sun,
        _times(sun, exposure),
        _times(ambient, exposure),
        zenith,
        horizon,
        clouds,
        haze_distance * rng.uniform(0.8, 1.25),
    )


def _times(color: Sequence[float], factor: float) -> tuple[float, float, float]:
    red, green, blue = (factor * value for value in color)
    return red, green, blue
