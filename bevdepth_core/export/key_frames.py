"""Loads key frames of a dataset in nuScenes format, which calibrate the scales of INT8."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.dataset import load_frame
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.types import Frame


@dataclass(frozen=True)
class KeyFrames:
    """Selects key frames of a dataset.

    Attributes:
        root: folder of the dataset.
        version: name of the folder of tables in ``root``.
        split: split from which key frames are selected.
        count: largest number of key frames. They are evenly spaced over the split.
    """

    root: Path
    version: str
    split: str
    count: int

    def load(self) -> Iterator[Frame]:
        """Yield the key frames in order.

        Raises:
            ValueError: the split is unknown, or the dataset is incomplete.
            OSError: an image cannot be read.
        """
        index = load_index(self.root, self.version, self.split)
        places = np.linspace(0, len(index) - 1, min(self.count, len(index))).round().astype(int)
        for place in places.tolist():
            yield load_frame(index[place], self.root)
