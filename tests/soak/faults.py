"""Faults of the soak test.

Each function in ``FAULTS`` gets a random generator and returns the attributes for
``Stream.fault``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from random import Random

from bevdepth_ros.rig.stamps import stamp_ns
from tests.ros.camera_stream import CAMERAS, HEIGHT, WIDTH
from tests.ros.messages import compressed, encoded, noise_image, stamped, with_claimed_size

PERIOD_S = 1 / 12
"""Length of the trigger cycle if no fault changes it, seconds."""
JPEG = encoded(noise_image(0))
SECOND_NS = 10**9


def _some(rng: Random) -> list[str]:
    return rng.sample(CAMERAS, rng.randint(1, 3))


def _changed(change: Callable, cameras: Collection[str] = CAMERAS) -> dict[str, Callable]:
    """Return hooks for images and CameraInfo of ``cameras``.

    ``change`` gets a message and returns the list of messages that replace this message.
    """

    def hook(camera: str, message) -> list:
        return change(message) if camera in cameras else [message]

    return {'image': hook, 'info': hook}


def _silent(cameras: Collection[str]) -> dict[str, Callable]:
    return _changed(lambda message: [], cameras)


def _restamped(new_ns: Callable[[int], int], cameras: Collection[str]) -> dict[str, Callable]:
    return _changed(lambda m: [stamped(m, m.header.frame_id, new_ns(stamp_ns(m)))], cameras)


def _files(files: dict[str, bytes]) -> dict[str, Callable]:
    """Return a hook that replaces the JPEG files of the cameras in ``files``."""

    def hook(camera: str, image) -> list:
        if camera in files:
            image = stamped(compressed(files[camera]), camera, stamp_ns(image))
        return [image]

    return {'image': hook}


def _info(**fields) -> dict[str, Callable]:
    """Return a hook that replaces ``fields`` of each CameraInfo."""

    def hook(_: str, info) -> list:
        for name, value in fields.items():
            setattr(info, name, value)
        return [info]

    return {'info': hook}


def _focal(focal: float) -> dict[str, Callable]:
    return _info(k=(focal, 0.0, WIDTH / 2, 0.0, focal, HEIGHT / 2, 0.0, 0.0, 1.0))


def _rotated(*quaternion: float) -> dict[str, Callable]:
    """Return a hook that sets the rotation of each ego pose to ``quaternion`` (x, y, z, w)."""

    def hook(pose) -> list:
        rotation = pose.transform.rotation
        rotation.x, rotation.y, rotation.z, rotation.w = quaternion
        return [pose]

    return {'pose': hook}


def _wrong_bytes(rng: Random) -> bytes:
    damaged = bytearray(JPEG)
    for _ in range(rng.randint(1, 50)):
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
    return bytes(damaged)


def _shifted_camera(rng: Random) -> dict[str, Callable]:
    shift_ns = round(rng.choice((-5.0, -0.5, 0.5, 5.0)) * SECOND_NS)
    return _restamped(lambda stamp: stamp + shift_ns, [rng.choice(CAMERAS)])


def _several(rng: Random) -> dict[str, object]:
    silent, broken = rng.choice(CAMERAS), rng.choice(CAMERAS)
    image = _files({broken: rng.randbytes(100)})['image']
    info = _info(d=(math.nan,) * 5)['info']
    return {
        'image': lambda camera, message: [] if camera == silent else 2 * image(camera, message),
        'info': lambda camera, message: [] if camera == silent else 2 * info(camera, message),
        'pose': lambda pose: [],
        'period_s': PERIOD_S / 3,
    }


FAULTS: dict[str, Callable[[Random], dict]] = {
    'cameras silent': lambda rng: _silent(_some(rng)),
    'all cameras silent': lambda _: _silent(CAMERAS),
    'images garbage': lambda rng: _files(
        {camera: rng.randbytes(rng.randint(0, 5000)) for camera in _some(rng)}
    ),
    'images truncated': lambda rng: _files(
        {camera: JPEG[: rng.randrange(len(JPEG))] for camera in _some(rng)}
    ),
    'images with wrong bytes': lambda rng: _files(
        {camera: _wrong_bytes(rng) for camera in _some(rng)}
    ),
    'image of 900 megapixels': lambda rng: _files(
        dict.fromkeys(_some(rng), with_claimed_size(JPEG, 30000, 30000))
    ),
    'image of another size': lambda rng: _files(
        dict.fromkeys(_some(rng), encoded(noise_image(0, 320, 176)))
    ),
    'stamps of a camera shifted': _shifted_camera,
    'stamps of zero': lambda rng: _restamped(lambda _: 0, _some(rng)),
    'time jumps back': lambda rng: {'shift_ns': -round(rng.uniform(1, 100) * SECOND_NS)},
    'time jumps forward': lambda rng: {'shift_ns': round(rng.uniform(1, 100) * SECOND_NS)},
    'duplicated messages': lambda _: _changed(lambda message: [message] * 3),
    'flood at 60 Hz': lambda _: {'period_s': 1 / 60},
    'slow to 2 Hz': lambda _: {'period_s': 1 / 2},
    'no ego poses': lambda _: {'pose': lambda pose: []},
    'ego poses not a number': lambda _: _rotated(*[math.nan] * 4),
    'ego poses not normalized': lambda _: _rotated(0.0, 0.0, 0.0, 3.0),
    'camera matrix zero': lambda _: _focal(0.0),
    'camera matrix not a number': lambda _: _focal(math.nan),
    'calibration of another size': lambda _: _info(width=2 * WIDTH, height=2 * HEIGHT),
    'lens distortion': lambda _: _info(d=(-0.3, 0.1, 0.0, 0.0, 0.0)),
    'several faults at once': _several,
}
"""For each fault, the function that returns the attributes of ``Stream`` during the fault."""
