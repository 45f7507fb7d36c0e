"""Selects key frames: times, about 0.5 s apart, at which every sensor has a measurement."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PERIOD_NS = 500_000_000
"""nuScenes has two key frames per second, so networks are trained with past frames that are 0.5 s
old."""
TOLERANCE_NS = 100_000_000
"""Largest deviation from ``PERIOD_NS``. The detector uses past frames that are 0.4 to 0.6 s
old."""


def nearest(stamps_ns: np.ndarray, times_ns: np.ndarray) -> np.ndarray:
    """Return, for each time, the index of the nearest stamp in the sorted (n,) ``stamps_ns``.
    There must be at least one stamp.
    """
    after = np.searchsorted(stamps_ns, times_ns).clip(1, max(len(stamps_ns) - 1, 1))
    after = np.minimum(after, len(stamps_ns) - 1)
    before = np.maximum(after - 1, 0)
    is_before = times_ns - stamps_ns[before] <= stamps_ns[after] - times_ns
    return np.where(is_before, before, after)


def complete_times(
    times_ns: np.ndarray, sensors: Sequence[np.ndarray], slop_ns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the times at which every sensor has a measurement.

    Args:
        times_ns: (n,) candidates, sorted, nanoseconds.
        sensors: for each of s sensors, the sorted stamps of its measurements, nanoseconds.
        slop_ns: largest difference between a candidate and the stamp of a measurement,
            nanoseconds.

    Returns:
        (m,) times, and for each time the (m, s) indices of the nearest measurements.
    """
    if any(len(stamps) == 0 for stamps in sensors):
        return times_ns[:0], np.zeros((0, len(sensors)), np.int64)
    chosen = np.stack([nearest(stamps, times_ns) for stamps in sensors], axis=1)
    distances = np.stack(
        [np.abs(stamps[chosen[:, i]] - times_ns) for i, stamps in enumerate(sensors)], axis=1
    )
    is_complete = (distances <= slop_ns).all(axis=1)
    return times_ns[is_complete], chosen[is_complete]


def select(times_ns: np.ndarray) -> list[list[int]]:
    """Return the positions of key frames in the sorted ``times_ns``, scene by scene.

    Within a scene, key frames are 0.5 s apart, with a tolerance of 0.1 s. A new scene begins after
    a longer gap, so that the past frame of a sample has the age that the network expects.
    """
    scenes: list[list[int]] = []
    position = 0
    while position < len(times_ns):
        scene = [position]
        while (following := _following(times_ns, scene[-1])) is not None:
            scene.append(following)
        scenes.append(scene)
        end_ns = times_ns[scene[-1]] + PERIOD_NS + TOLERANCE_NS
        position = int(np.searchsorted(times_ns, end_ns, side='right'))
    return scenes


def _following(times_ns: np.ndarray, position: int) -> int | None:
    """Return the position of the key frame that follows the key frame at ``position``. Return None
    if no time is 0.5 s later, within the tolerance.
    """
    due_ns = times_ns[position] + PERIOD_NS
    first = int(np.searchsorted(times_ns, due_ns - TOLERANCE_NS, side='left'))
    stop = int(np.searchsorted(times_ns, due_ns + TOLERANCE_NS, side='right'))
    if first == stop:
        return None
    return first + int(nearest(times_ns[first:stop], np.array([due_ns]))[0])
