"""When the sensors of a nuScenes vehicle are triggered.

The lidar turns 20 times a second; a camera is triggered as the lidar sweeps past its view, in six
turns of every ten, which makes 12 Hz in steps of 50 and 100 ms. Every tenth turn is a key frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bevdepth_core.nuscenes.classes import LIDAR
from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S

KEY_FRAMES_PER_S = 2
TURN_S = 0.05
TURNS_PER_KEY_FRAME = 10
CAMERA_TURNS = (0, 2, 3, 5, 7, 8)
"""The turns in which the cameras are triggered, counted from a key frame's."""
LIDAR_STAMP_S = 0.0445
"""From the start of a turn, CAM_FRONT_LEFT's exposure, to its end, the stamp of the sweep and of
the sample; as in a real sample."""
MEASURED_S = sum(EXPOSURE_OFFSET_S.values()) / len(EXPOSURE_OFFSET_S)
"""From the start of a turn to the moment that sweep and boxes show.

A real lidar meets every object about when the camera there exposes, and boxes are fitted to its
points. One moment stands for the whole turn here, and it is the mean of the exposures.
"""


@dataclass(frozen=True)
class Shot:
    """One exposure or one sweep.

    Attributes:
        channel: camera or lidar.
        turn: the lidar's turn that it belongs to, 0 is the first key frame's.
    """

    channel: str
    turn: int

    @property
    def key_frame(self) -> bool:
        return self.turn % TURNS_PER_KEY_FRAME == 0

    @property
    def time_s(self) -> float:
        """Return its stamp in seconds since the start of the scene."""
        return self.turn * TURN_S + (
            LIDAR_STAMP_S if self.channel == LIDAR else EXPOSURE_OFFSET_S[self.channel]
        )


def key_frame_count(duration_s: float) -> int:
    """Return how many key frames a scene of ``duration_s`` seconds has, 40 for the usual 20 s."""
    return round(duration_s * KEY_FRAMES_PER_S)


def shots(key_frame: int, sweeps: bool) -> Iterator[Shot]:
    """Yield what belongs to a sample, channel by channel in order of time: its own shots, and
    before them those since the last one.

    Args:
        key_frame: number of the sample in its scene; nothing comes before the first.
        sweeps: whether what comes before is wanted.
    """
    last = key_frame * TURNS_PER_KEY_FRAME
    first = last - TURNS_PER_KEY_FRAME + 1 if sweeps and key_frame else last
    for channel in (*EXPOSURE_OFFSET_S, LIDAR):
        for turn in range(first, last + 1):
            if channel == LIDAR or turn % TURNS_PER_KEY_FRAME in CAMERA_TURNS:
                yield Shot(channel, turn)


def measured_s(turn: int) -> float:
    """Return the moment, in seconds since the start of the scene, that the sweep of ``turn`` and
    its boxes show.
    """
    return turn * TURN_S + MEASURED_S
