"""Loads the samples of a dataset in nuScenes format as a compact list and caches them.

The devkit needs a minute and gigabytes of memory to load the tables of v1.0-trainval. Therefore
each scene is read from the tables only once, and stored in a small file of the cache. After an
interruption, only the scenes that are not in the cache are read. The cache contains the names of
categories, which are converted to labels when an index is loaded.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from bevdepth_core.files import write_atomically
from bevdepth_core.nuscenes.channels import Channels, dataset_channels
from bevdepth_core.nuscenes.classes import LIDAR, ClassMap
from bevdepth_core.nuscenes.columns import Columns, scene_columns
from bevdepth_core.nuscenes.completeness import (
    TABLES,
    consistent,
    read_json,
    require_files,
    require_tables,
)
from bevdepth_core.nuscenes.labels import with_labels
from bevdepth_core.nuscenes.records import Annotations, Pose, SampleRecord, SensorRecord
from bevdepth_core.nuscenes.splits import split_scenes
from bevdepth_core.nuscenes.tables import open_devkit

if TYPE_CHECKING:
    from nuscenes import NuScenes  # only for types, because this import takes seconds

CACHE_FORMAT = 4
"""Version of the cache format; increment it when the content of a cache file changes."""


@dataclass(frozen=True)
class Selection:
    """Selects classes, sensors and boxes of a dataset.

    Attributes:
        classes: class list, and the categories that belong to each class.
        cameras: channels of the cameras to use; None for all cameras. Every array with one entry
            per camera has this order.
        lidar: channel of the lidar to use; None for ``LIDAR_TOP``, or for the only lidar of a
            dataset that has no ``LIDAR_TOP``.
        min_points: boxes with fewer lidar and radar points are not ground truth; 0 accepts all
            boxes. Boxes whose point count is unknown are always accepted.
    """

    classes: ClassMap = field(default_factory=ClassMap)
    cameras: tuple[str, ...] | None = None
    lidar: str | None = None
    min_points: int = 1


class SampleIndex(Sequence[SampleRecord]):
    """The samples of some scenes. The samples of each scene are consecutive and in order of time.

    The samples are stored in a few large arrays, which data-loader workers share without copies.

    Args:
        columns: see ``scene_columns`` and ``with_labels``.
        channels: the sensors of every sample.
        class_names: names of the labels.
        excluded_categories: for each category without a class, the number of its boxes.
        out_of_view: number of boxes that are not ground truth because no camera sees them.
        is_official: whether the nuScenes devkit reads the same boxes from the tables.

    Attributes:
        channels, class_names, excluded_categories, out_of_view, is_official: see the arguments.
    """

    def __init__(
        self,
        columns: Columns,
        channels: Channels,
        class_names: tuple[str, ...],
        excluded_categories: Mapping[str, int],
        out_of_view: int,
        is_official: bool,
    ) -> None:
        self._columns = columns
        self.channels, self.class_names = channels, class_names
        self.excluded_categories, self.out_of_view = dict(excluded_categories), out_of_view
        self.is_official = is_official
        self._first_annotation = np.concatenate(([0], np.cumsum(columns['annotations'])))
        self._scene_starts = np.flatnonzero(
            np.concatenate(([True], columns['scene'][1:] != columns['scene'][:-1]))
        )

    def __len__(self) -> int:
        return len(self._columns['token'])

    def __getitem__(self, position: int) -> SampleRecord:  # type: ignore[override]
        """Return the record at ``position``; negative positions count from the end."""
        position = range(len(self))[position]
        columns = self._columns
        sensors = [
            self._sensor(position, *numbered) for numbered in enumerate(self.channels.names())
        ]
        cameras = len(self.channels.cameras)
        return SampleRecord(
            columns['token'][position].decode(),
            columns['scene'][position].decode(),
            int(columns['stamp_us'][position]) * 1000,
            tuple(sensors[:cameras]),
            sensors[cameras] if len(sensors) > cameras else None,
            self._annotations(position),
        )

    def _annotations(self, position: int) -> Annotations:
        rows = slice(*self._first_annotation[position : position + 2])
        return Annotations(
            **{name: self._columns[name][rows] for name in Annotations.__dataclass_fields__}
        )

    def _sensor(self, position: int, number: int, channel: str) -> SensorRecord:
        row = {name: self._columns[name][position, number] for name in _SENSOR_COLUMNS}
        width, height = row['image_size'].tolist()
        return SensorRecord(
            channel,
            row['filename'].decode(),
            int(row['sensor_stamp_us']) * 1000,
            Pose(row['sensor_quaternion'], row['sensor_translation']),
            Pose(row['ego_quaternion'], row['ego_translation']),
            (width, height),
            row['intrinsics'],
        )

    def image_sizes(self) -> list[tuple[int, int]]:
        """Return the sizes (width, height) of the camera images, without duplicates."""
        sizes = self._columns['image_size'][:, : len(self.channels.cameras)].reshape(-1, 2)
        return [(width, height) for width, height in np.unique(sizes, axis=0).tolist()]

    @property
    def is_annotated(self) -> bool:
        """True if the tables contain annotations of these samples."""
        return bool(len(self._columns['label']) or self.excluded_categories)

    def tokens(self) -> list[str]:
        """Return the sample tokens in order."""
        return [token.decode() for token in self._columns['token']]

    def filenames(self) -> list[str]:
        """Return every file that the samples need, relative to the dataset's root."""
        return [name.decode() for name in self._columns['filename'].ravel()]

    def scenes(self) -> list[range]:
        """Return the positions of each scene's samples."""
        edges = [*self._scene_starts.tolist(), len(self)]
        return [range(start, stop) for start, stop in itertools.pairwise(edges)]

    def position_in_past(self, position: int, steps: int) -> int:
        """Return the position of the sample ``steps`` key frames earlier.

        If the scene begins less than ``steps`` key frames earlier, ``position`` itself is
        returned, as in the official code.
        """
        start = self._scene_starts[np.searchsorted(self._scene_starts, position, side='right') - 1]
        return position - steps if position - steps >= start else position

    def labels(self, position: int) -> np.ndarray:
        """Return the (n,) labels of all annotations of a sample, including annotations without
        points.
        """
        return self._columns['label'][slice(*self._first_annotation[position : position + 2])]


_SENSOR_COLUMNS = (
    'filename', 'sensor_stamp_us', 'sensor_quaternion', 'sensor_translation', 'ego_quaternion',
    'ego_translation', 'image_size', 'intrinsics',
)  # fmt: skip


def load_index(
    dataroot: str | Path,
    version: str,
    split: str,
    cache_dir: str | Path | None = None,
    selection: Selection | None = None,
) -> SampleIndex:
    """Return the samples of a split.

    Args:
        dataroot: the dataset's root, which contains ``version`` and ``samples``.
        version: version of the dataset, such as ``v1.0-trainval``.
        split: a split of the devkit (``train``, ``val``, ``mini_train``, ...) or a name in
            ``<version>/splits.json``.
        cache_dir: folder of the cache; None for ``$XDG_CACHE_HOME/bevdepth`` or, if this variable
            is not set, ``~/.cache/bevdepth``.
        selection: classes, sensors and boxes; None for the defaults of ``Selection``.

    Raises:
        DatasetIncompleteError: tables are missing or damaged, or key-frame files are missing. The
            attribute ``missing`` lists the missing files.
        InvalidAnnotationError: a box that is used has an impossible size, position or rotation.
        ValueError: the split, one of its scenes, a class or a channel is unknown; see also
            ``scene_columns``.
    """
    dataroot, selection = Path(dataroot), selection or Selection()
    require_tables(dataroot, version)
    scenes = split_scenes(dataroot, version, split)
    channels = dataset_channels(dataroot / version, selection.cameras, selection.lidar)
    _require_classes(dataroot / version, selection.classes)
    columns = _cached_columns(dataroot, version, scenes, channels, cache_dir)
    labeled = with_labels(
        columns, selection.classes, channels, selection.min_points, dataroot / version
    )
    index = SampleIndex(
        labeled.columns,
        channels,
        selection.classes.class_names,
        labeled.excluded_categories,
        labeled.out_of_view,
        labeled.is_official and channels.lidar == LIDAR and selection.min_points == 1,
    )
    require_files(dataroot, index.filenames())
    return index


def _require_classes(tables: Path, classes: ClassMap) -> None:
    with consistent(tables):
        categories = [record['name'] for record in read_json(tables / 'category.json')]
        classes.require_known(categories)


def _cached_columns(
    dataroot: Path,
    version: str,
    scenes: Sequence[str],
    channels: Channels,
    cache_dir: str | Path | None,
) -> Columns:
    fingerprint = _fingerprint(dataroot / version, channels)
    folder = Path(cache_dir or _default_cache_dir()) / f'{version}-{fingerprint}'
    paths = [folder / f'{scene}.npz' for scene in scenes]
    left = [scene for scene, path in zip(scenes, paths, strict=True) if not path.exists()]
    if left:
        _write_scenes(open_devkit(dataroot, version), left, channels, folder)
    return _joined([_read(path) for path in paths])


def _default_cache_dir() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'bevdepth'


def _fingerprint(tables: Path, channels: Channels) -> str:
    """Return a name that changes if a table or the selected sensors change."""
    paths = [tables / f'{name}.json' for name in TABLES]
    states = [
        (path.name, (stat := path.stat()).st_size, stat.st_mtime_ns)
        for path in paths
        if path.is_file()
    ]
    text = repr((CACHE_FORMAT, channels.names(), channels.lidar, states))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write_scenes(devkit: NuScenes, names: list[str], channels: Channels, folder: Path) -> None:
    records = {scene['name']: scene for scene in devkit.scene}
    for name in tqdm(names, desc='indexing scenes', unit='scene', disable=None):
        with consistent(Path(devkit.dataroot) / devkit.version):
            columns = scene_columns(devkit, records[name], channels)
        write_atomically(folder / f'{name}.npz', partial(_write, columns))


def _write(columns: Columns, path: str) -> None:
    with open(path, 'wb') as file:  # numpy would append a suffix to a file name
        np.savez_compressed(file, **columns)


def _read(path: Path) -> Columns:
    with np.load(path) as columns:
        return dict(columns)


def _joined(parts: list[Columns]) -> Columns:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
