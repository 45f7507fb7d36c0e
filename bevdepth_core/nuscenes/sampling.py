"""Which samples an epoch shows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES


def class_balanced_positions(labels: Sequence[np.ndarray], seed: int = 0) -> np.ndarray:
    """Return sample positions in which all classes are about equally frequent (CBGS).

    Every class draws, with replacement, about a tenth of the summed lengths of all classes' sample
    lists from its own list. Classes that no sample holds draw nothing.

    Args:
        labels: per sample the class indices of its annotations, without regard to their point
            counts.
        seed: of numpy's legacy generator, which the official code uses.
    """
    lists = [
        [position for position, present in enumerate(labels) if label in present]
        for label in range(len(NUSCENES_CLASSES))
    ]
    total = sum(map(len, lists))
    rng = np.random.RandomState(seed)
    drawn = [
        rng.choice(positions, _draws(len(positions), total)) for positions in lists if positions
    ]
    return np.concatenate(drawn) if drawn else np.zeros(0, np.int64)


def _draws(samples: int, total: int) -> int:
    """Return how often a class is drawn; rounded as the official expression rounds, which may lose
    one.
    """
    return int(samples * ((1 / len(NUSCENES_CLASSES)) / (samples / total)))
