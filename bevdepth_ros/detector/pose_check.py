"""Detects ego poses that jump, by comparing them with the previous motion."""

from __future__ import annotations

import numpy as np

FASTEST_M_S = 100.0
"""No vehicle is faster; the only limit while the previous motion is unknown."""
LONGEST_S = 1.0
"""Poses further apart in time are not compared: past frames are not used either."""
STEP_M, STEP_DEG = 1.0, 20.0
"""A correction of the localization that is smaller is no jump."""
ACCELERATION_M_S2, ACCELERATION_DEG_S2 = 15.0, 300.0
"""Largest change of speed and of turn rate."""


class PoseCheck:
    """Remembers the last pose and motion."""

    def __init__(self) -> None:
        self._last: tuple[int, np.ndarray] | None = None
        self._motion: tuple[np.ndarray, float] | None = None

    def jump(self, stamp_ns: int, pose: np.ndarray | None) -> str | None:
        """Return a description of the jump if the pose does not continue the previous motion.

        Args:
            stamp_ns: time of the pose.
            pose: (4, 4) world_from_ego; None when there is none.
        """
        last, self._last = self._last, None if pose is None else (stamp_ns, pose)
        motion, self._motion = self._motion, None
        if last is None or pose is None:
            return None
        seconds = (stamp_ns - last[0]) * 1e-9
        if not 0 < seconds <= LONGEST_S:
            return None
        step = pose[:3, 3] - last[1][:3, 3]
        turn_deg = _turn_deg(last[1], pose)
        if self._is_continued(step, turn_deg, seconds, motion):
            self._motion = step / seconds, turn_deg / seconds
            return None
        return (
            f'the ego pose moved by {np.linalg.norm(step):.1f} m in {seconds:.2f} s and turned by '
            f'{turn_deg:.0f} degrees, which does not continue its previous motion'
        )

    @staticmethod
    def _is_continued(
        step: np.ndarray, turn_deg: float, seconds: float, motion: tuple[np.ndarray, float] | None
    ) -> bool:
        if np.linalg.norm(step) > FASTEST_M_S * max(seconds, 0.1):
            return False
        if motion is None:
            return True
        speed, turn_rate = motion
        off_m = float(np.linalg.norm(step - speed * seconds))
        off_deg = abs(turn_deg - turn_rate * seconds)
        return (
            off_m <= STEP_M + ACCELERATION_M_S2 * seconds**2
            and off_deg <= STEP_DEG + ACCELERATION_DEG_S2 * seconds**2
        )


def _turn_deg(earlier: np.ndarray, later: np.ndarray) -> float:
    """Return the angle of the rotation between two poses, degrees."""
    cosine = (np.trace(earlier[:3, :3].T @ later[:3, :3]) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))
