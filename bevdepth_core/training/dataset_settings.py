"""Settings of the dataset for training or evaluation, and a report of its boxes."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from bevdepth_core.config import ModelConfig
from bevdepth_core.nuscenes.box_counts import count_boxes
from bevdepth_core.nuscenes.classes import ClassMap, read_categories
from bevdepth_core.nuscenes.index import SampleIndex, Selection, load_index

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetSettings:
    """A split of a nuScenes-format dataset.

    Attributes:
        root: folder of the dataset.
        version: name of the folder of tables, such as ``v1.0-trainval``.
        split: name of the split whose scenes are used; a split of the devkit or of
            ``splits.json``.
        cache_dir: folder of the cached index; ``~/.cache/bevdepth`` if null.
        categories: file with lines such as ``van: car``, which map further categories to classes.
            Categories of nuScenes, and categories with the name of a class, need no line.
        cameras: channels to use, in this order; null for all cameras of the dataset.
        lidar: channel of the lidar; null: ``LIDAR_TOP``, or the only lidar of the dataset.
        min_points: a box is excluded if its lidar and radar points together are fewer than this;
            0: all boxes are used. Boxes whose point count is unknown are always used.
    """

    root: str = 'data/nuscenes'
    version: str = 'v1.0-trainval'
    split: str = 'train'
    cache_dir: str | None = None
    categories: str | None = None
    cameras: list[str] | None = None
    lidar: str | None = None
    min_points: int = 1

    def load(self, network: ModelConfig) -> SampleIndex:
        """Return the samples, with labels for the class list of ``network``.

        Raises:
            ValueError: the dataset or a setting is invalid; see ``load_index``.
        """
        selection = Selection(
            ClassMap(network.class_names, read_categories(self.categories)),
            None if self.cameras is None else tuple(self.cameras),
            self.lidar,
            self.min_points,
        )
        return load_index(self.root, self.version, self.split, self.cache_dir, selection)

    def description(self) -> str:
        """Return the name of this split for messages."""
        return f'{self.root} {self.version}, split {self.split}'


def report_boxes(
    index: SampleIndex, settings: DatasetSettings, network: ModelConfig, needs_boxes: bool
) -> None:
    """Log how many boxes of a dataset are used, and why the remaining boxes are excluded.

    Raises:
        ValueError: no box is used, and ``needs_boxes`` is True.
    """
    name = settings.description()
    counts = count_boxes(index, network.grid)
    if needs_boxes:
        counts.require_boxes(name)
    _LOG.info('%s: %d samples; %s', name, len(index), counts.summary())
    absent = [class_name for class_name, count in counts.used.items() if not count]
    if needs_boxes and absent:
        _LOG.warning('%s has no boxes of the classes %s', name, ', '.join(absent))
    if index.channels.lidar is None:
        _LOG.warning('%s has no lidar: training with this dataset has no depth loss', name)
