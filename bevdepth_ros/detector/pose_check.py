"""Detects ego poses that jump, by comparing them with the previous motion."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

FASTEST_M_S = 100.0
"""Highest speed of a vehicle, m/s. While the previous motion is unknown, only this limit applies.
"""
MAX_DURATION_S = 1.0
"""Two poses are not compared if the time between them is longer than this, in seconds. Past frames
that are older than this are not used for fusion."""
STEP_M, STEP_DEG = 1.0, 20.0
"""Corrections of the localization up to this shift, meters, and turn, degrees, are not jumps."""
ACCELERATION_M_S2, ACCELERATION_DEG_S2 = 15.0, 300.0
"""Largest acceleration, m/s^2, and largest change of the turn rate, degrees/s^2. Together with
STEP_M and STEP_DEG, these limits give the largest deviation from the previous motion that is not a
jump."""


@dataclass(frozen=True)
class PoseJump:
    """A pose that does not continue the previous motion.

    Attributes:
        description: clause that gives the size of the jump.
        expected_pose: (4, 4) world_from_ego that would continue the previous motion.
    """

    description: str
    expected_pose: np.ndarray


@dataclass(frozen=True)
class _Motion:
    """Velocity in the world, m/s, and turn rate about the ego axes, rad/s."""

    velocity: np.ndarray
    turn_rate: np.ndarray


STANDSTILL = _Motion(np.zeros(3), np.zeros(3))


class PoseCheck:
    """Compares each ego pose with the previous pose and the previous motion."""

    def __init__(self) -> None:
        self._last: tuple[int, np.ndarray] | None = None
        self._motion: _Motion | None = None

    def jump(self, stamp_ns: int, pose: np.ndarray | None) -> PoseJump | None:
        """Return the jump if the pose does not continue the previous motion, otherwise None.

        Args:
            stamp_ns: time of the pose, nanoseconds.
            pose: (4, 4) world_from_ego; None if the pose is unknown.
        """
        last, self._last = self._last, None if pose is None else (stamp_ns, pose)
        motion, self._motion = self._motion, None
        if last is None or pose is None:
            return None
        seconds = (stamp_ns - last[0]) * 1e-9
        if not 0 < seconds <= MAX_DURATION_S:
            return None
        step = pose[:3, 3] - last[1][:3, 3]
        turn = _turn(last[1], pose)
        if self._is_continued(step, turn, seconds, motion):
            self._motion = _Motion(step / seconds, turn / seconds)
            return None
        description = (
            f'the ego pose moved by {np.linalg.norm(step):.1f} m in {seconds:.2f} s and turned by '
            f'{_degrees(turn):.0f} degrees, which does not continue its previous motion'
        )
        return PoseJump(description, _moved(last[1], motion or STANDSTILL, seconds))

    @staticmethod
    def _is_continued(
        step: np.ndarray, turn: np.ndarray, seconds: float, motion: _Motion | None
    ) -> bool:
        if np.linalg.norm(step) > FASTEST_M_S * max(seconds, 0.1):
            return False
        if motion is None:
            return True
        off_m = float(np.linalg.norm(step - motion.velocity * seconds))
        off_deg = _degrees(turn - motion.turn_rate * seconds)
        return (
            off_m <= STEP_M + ACCELERATION_M_S2 * seconds**2
            and off_deg <= STEP_DEG + ACCELERATION_DEG_S2 * seconds**2
        )


def _moved(pose: np.ndarray, motion: _Motion, seconds: float) -> np.ndarray:
    """Return the pose that ``pose`` becomes after ``seconds`` of ``motion``."""
    result = pose.copy()
    result[:3, 3] += motion.velocity * seconds
    result[:3, :3] = pose[:3, :3] @ Rotation.from_rotvec(motion.turn_rate * seconds).as_matrix()
    return result


def _turn(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Return the (3,) rotation vector from ``earlier`` to ``later`` in the axes of ``earlier``,
    radians.
    """
    turn = earlier[:3, :3].T @ later[:3, :3]
    cosine = (float(np.trace(turn)) - 1) / 2
    if cosine < -0.5:  # near half a turn, the differences below are too small to give the axis
        return Rotation.from_matrix(turn).as_rotvec()
    # The conversion by SciPy takes 0.2 ms, which would delay both detection and publication.
    vector = np.array((turn[2, 1] - turn[1, 2], turn[0, 2] - turn[2, 0], turn[1, 0] - turn[0, 1]))
    sine = float(np.linalg.norm(vector)) / 2
    return vector / 2 * (math.atan2(sine, cosine) / sine if sine else 1.0)


def _degrees(turn: np.ndarray) -> float:
    return float(np.degrees(np.linalg.norm(turn)))
