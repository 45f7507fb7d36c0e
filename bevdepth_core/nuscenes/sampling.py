"""Selects the samples of an epoch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_balanced_positions(
    labels: Sequence[np.ndarray], class_count: int, seed: int = 0
) -> np.ndarray:
    """Return sample positions in which all classes are about equally frequent (CBGS).

    With C classes, each class draws, with replacement, 1/C of the summed lengths of all classes'
    sample lists from its own list. Classes without samples draw nothing.

    Args:
        labels: per sample the class indices of its annotations, whatever their point counts.
        class_count: C.
        seed: of numpy's legacy generator, which the official code uses.
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
    """Return how many samples a class draws; the official expression's rounding may lose one."""
    return int(samples * ((1 / class_count) / (samples / total)))
