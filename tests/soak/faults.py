"""Faults of the soak test: each function returns a condition of the stream; some use the random
generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from tests.soak.stream import CAMERAS, RATE_HZ, SIZE, Condition, healthy, jpeg, with_claimed_size


def _some(rng: Random) -> frozenset[str]:
    return frozenset(rng.sample(CAMERAS, rng.randint(1, 3)))


def _garbage(rng: Random) -> Condition:
    return healthy(images={camera: rng.randbytes(rng.randint(0, 5000)) for camera in _some(rng)})


def _truncated(rng: Random) -> Condition:
    return healthy(
        images={camera: (whole := jpeg())[: rng.randrange(len(whole))] for camera in _some(rng)}
    )


def _wrong_bytes(rng: Random) -> Condition:
    images = {}
    for camera in _some(rng):
        damaged = bytearray(jpeg())
        for _ in range(rng.randint(1, 50)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        images[camera] = bytes(damaged)
    return healthy(images=images)


FAULTS: dict[str, Callable[[Random], Condition]] = {
    'cameras silent': lambda rng: healthy(silent=_some(rng)),
    'all cameras silent': lambda rng: healthy(silent=frozenset(CAMERAS)),
    'images garbage': _garbage,
    'images truncated': _truncated,
    'images with wrong bytes': _wrong_bytes,
    'image of 900 megapixels': lambda rng: healthy(images={camera: with_claimed_size(jpeg(),
    30000, 30000) for camera in _some(rng)}),
    'image of another size': lambda rng: healthy(images={camera: jpeg(0, (320,
    176)) for camera in _some(rng)}),
    'stamps of a camera shifted': lambda rng: healthy(
        shift_s={rng.choice(CAMERAS): rng.choice((-5.0, -0.5, 0.5, 5.0))}
    ),
    'stamps of zero': lambda rng: healthy(unstamped=_some(rng)),
    'time jumps back': lambda rng: healthy(all_shift_s=-rng.uniform(1, 100)),
    'time jumps forward': lambda rng: healthy(all_shift_s=rng.uniform(1, 100)),
    'duplicated messages': lambda _: healthy(copies=3),
    'flood at 60 Hz': lambda _: healthy(rate_hz=60.0),
    'slow to 2 Hz': lambda _: healthy(rate_hz=2.0),
    'no ego poses': lambda _: healthy(poses=False),
    'ego poses not a number': lambda _: healthy(rotation=(math.nan,) * 4),
    'ego poses not normalized': lambda _: healthy(rotation=(0.0, 0.0, 0.0, 3.0)),
    'camera matrix zero': lambda _: healthy(focal=0.0),
    'camera matrix not a number': lambda _: healthy(focal=math.nan),
    'calibration of another size': lambda _: healthy(info_size=(2 * SIZE[0], 2 * SIZE[1])),
    'lens distortion': lambda _: healthy(distortion=(-0.3, 0.1, 0.0, 0.0, 0.0)),
    'several faults at once': lambda rng: healthy(
        silent=frozenset({rng.choice(CAMERAS)}),
        images={rng.choice(CAMERAS): rng.randbytes(100)}, copies=2, rate_hz=3 * RATE_HZ,
        poses=False, distortion=(math.nan,) * 5,
    ),
}  # fmt: skip
"""Fault functions by name."""
