"""Selects the samples of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_balanced_positions(
    labels: Sequence[np.ndarray], class_count: int, seed: int = 0
) -> np.ndarray:
    """Return positions of samples, selected so that all classes are about equally frequent (CBGS).

    Each class has a list of the samples that contain the class. From each list, total / C
    positions are sampled with replacement. Here, total is the sum of the lengths of all lists, and
    C is the number of classes. Classes without samples are ignored.

    Args:
        labels: class indices of all annotations of each sample, including annotations without
            points.
        class_count: number of classes C.
        seed: seed of numpy's legacy generator, which the official code uses.
    """
    lists = [
        [position for position, present in enumerate(labels) if label in present]
        for label in range(class_count)
    ]
    total = sum(map(len, lists))
    rng = np.random.RandomState(seed)
    chosen = [
        rng.choice(positions, _count_per_class(len(positions), total, class_count))
        for positions in lists
        if positions
    ]
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)


def _count_per_class(samples: int, total: int, class_count: int) -> int:
    """Return total / class_count, computed as in the official code. Because of rounding, the
    result may be too small by one.
    """
    return int(samples * ((1 / class_count) / (samples / total)))
