"""Selects the samples of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_balanced_positions(
    labels: Sequence[np.ndarray], class_count: int, seed: int = 0
) -> np.ndarray:
    """Return sample positions in which all classes are about equally frequent (CBGS).

    Each class has a list of the samples that contain it. With C classes, 1/C of the summed length
    of all lists is sampled from each list, with replacement. Classes without samples are ignored.

    Args:
        labels: class indices of the annotations of each sample, with any point count.
        class_count: C.
        seed: seed of numpy's legacy generator, which the official code uses.
    """
    lists = [
        [position for position, present in enumerate(labels) if label in present]
        for label in range(class_count)
    ]
    total = sum(map(len, lists))
    rng = np.random.RandomState(seed)
    drawn = [
        rng.choice(positions, _draw_count(len(positions), total, class_count))
        for positions in lists
        if positions
    ]
    return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)


def _draw_count(samples: int, total: int, class_count: int) -> int:
    """Return the number of samples per class; the rounding of the official code may lose one."""
    return int(samples * ((1 / class_count) / (samples / total)))
