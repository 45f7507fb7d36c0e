"""Defines when the sensors of a nuScenes vehicle are triggered.

The lidar rotates 20 times per second. In six of every ten rotations, each camera is triggered when
the lidar points in the direction of the camera. This gives 12 images per second and camera, 50 or
100 ms apart.
Every tenth rotation is a key frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from bevdepth_core.nuscenes.classes import LIDAR

KEY_FRAMES_PER_S = 2
TURN_S = 0.05
TURNS_PER_KEY_FRAME = 10
CAMERA_TURNS = (0, 2, 3, 5, 7, 8)
"""The rotations in which the cameras are triggered, counted from the rotation of a key frame."""
LIDAR_STAMP_S = 0.0445
"""Time from the start of a rotation to the stamp of its scan, seconds. The value comes from a real
nuScenes sample. CAM_FRONT_LEFT is exposed at the start of the rotation. The stamp of a sample
is the stamp of its scan."""


@dataclass(frozen=True)
class Shot:
    """One exposure or one lidar scan.

    Attributes:
        channel: name of the camera or lidar.
        turn: number of the lidar rotation of the shot; the rotation of the first key frame is 0.
        offset_s: time from the start of this rotation to the stamp of the shot, seconds.
    """

    channel: str
    turn: int
    offset_s: float

    @property
    def key_frame(self) -> bool:
        return self.turn % TURNS_PER_KEY_FRAME == 0

    @property
    def time_s(self) -> float:
        """Return the stamp of the shot in seconds since the start of the scene."""
        return self.turn * TURN_S + self.offset_s


def lidar_shot(turn: int) -> Shot:
    """Return the lidar scan of a rotation."""
    return Shot(LIDAR, turn, LIDAR_STAMP_S)


def key_frame_count(duration_s: float) -> int:
    """Return how many key frames a scene of ``duration_s`` seconds has, 40 for the usual 20 s."""
    return round(duration_s * KEY_FRAMES_PER_S)


def shots(key_frame: int, sweeps: bool, offsets_s: Mapping[str, float]) -> Iterator[Shot]:
    """Yield the shots of a sample, channel by channel. For each channel, yield the shots since the
    previous sample in order of time, then the shot of the key frame.

    Args:
        key_frame: number of the sample in its scene; sample 0 has no earlier shots.
        sweeps: True to include the shots since the previous sample.
        offsets_s: offset of each camera within the trigger cycle.
    """
    last = key_frame * TURNS_PER_KEY_FRAME
    first = last - TURNS_PER_KEY_FRAME + 1 if sweeps and key_frame else last
    for channel, offset_s in offsets_s.items():
        for turn in range(first, last + 1):
            if turn % TURNS_PER_KEY_FRAME in CAMERA_TURNS:
                yield Shot(channel, turn, offset_s)
    yield from map(lidar_shot, range(first, last + 1))
