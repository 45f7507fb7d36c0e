"""From the tables of a nuScenes-format dataset to a compact, cached list of samples.

Loading the tables of v1.0-trainval takes the devkit a minute and gigabytes. They are walked once;
one small file per scene stays in the cache, so that an interrupted walk goes on where it stopped
and a split reads only its own scenes.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from nuscenes import NuScenes
from nuscenes.utils.splits import create_splits_scenes
from tqdm import tqdm

from bevdepth_core.files import write_atomically
from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR, label_of_category
from bevdepth_core.nuscenes.completeness import (
    TABLES,
    DatasetIncompleteError,
    consistent,
    read_json,
    require_files,
    require_scene_names,
    require_tables,
)
from bevdepth_core.nuscenes.records import Annotations, Pose, SampleRecord, SensorRecord

SENSORS = (*CAMERAS, LIDAR)
CACHE_FORMAT = 1
"""Counted up when what a cache file holds changes."""

_PER_ANNOTATION = {
    'label': (),
    'center': (3,),
    'size': (3,),
    'quaternion': (4,),
    'velocity': (3,),
    'points': (),
}
_INTEGERS = ('label', 'points')


class SampleIndex(Sequence[SampleRecord]):
    """The samples of some scenes, scene by scene in order of time.

    Kept as a few large arrays, so that data-loader workers share them and do not copy them.

    Args:
        columns: arrays with one row per sample, or per annotation, as ``_scene_columns`` makes
            them.
    """

    def __init__(self, columns: dict[str, np.ndarray]) -> None:
        self._columns = columns
        self._first_annotation = np.concatenate(([0], np.cumsum(columns['annotations'])))
        self._scene_starts = np.flatnonzero(
            np.concatenate(([True], columns['scene'][1:] != columns['scene'][:-1]))
        )

    def __len__(self) -> int:
        return len(self._columns['token'])

    def __getitem__(self, position: int) -> SampleRecord:
        """Return the record at ``position``; negative positions count from the end."""
        position = range(len(self))[position]
        columns = self._columns
        sensors = [self._sensor(position, number) for number in range(len(SENSORS))]
        rows = slice(*self._first_annotation[position : position + 2])
        return SampleRecord(
            columns['token'][position].decode(),
            columns['scene'][position].decode(),
            int(columns['stamp_us'][position]) * 1000,
            tuple(sensors[:-1]),
            sensors[-1],
            Annotations(**{name: columns[name][rows] for name in _PER_ANNOTATION}),
        )

    def _sensor(self, position: int, number: int) -> SensorRecord:
        columns = self._columns
        return SensorRecord(
            columns['filename'][position, number].decode(),
            int(columns['sensor_stamp_us'][position, number]) * 1000,
            Pose(
                columns['sensor_quaternion'][position, number],
                columns['sensor_translation'][position, number],
            ),
            Pose(
                columns['ego_quaternion'][position, number],
                columns['ego_translation'][position, number],
            ),
            tuple(columns['image_size'][position, number].tolist()),
            columns['intrinsics'][position, number],
        )

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

        Where the scene has none the sample itself is returned, even if an earlier one but fewer
        steps back exists: so does the official code.
        """
        start = self._scene_starts[np.searchsorted(self._scene_starts, position, side='right') - 1]
        return position - steps if position - steps >= start else position

    def labels(self, position: int) -> np.ndarray:
        """Return the (n,) class indices of a sample's annotations, those without points too."""
        return self._columns['label'][slice(*self._first_annotation[position : position + 2])]


def load_index(
    dataroot: str | Path, version: str, split: str, cache_dir: str | Path | None = None
) -> SampleIndex:
    """Return the samples of a split.

    Args:
        dataroot: the dataset's root, which holds ``version``, ``samples`` and ``maps``.
        version: such as ``v1.0-trainval``.
        split: a split of the devkit (``train``, ``val``, ``mini_train``, ...) or a name in
            ``<version>/splits.json``.
        cache_dir: where scene files are kept; ``~/.cache/bevdepth`` (or below ``$XDG_CACHE_HOME``)
            when None.

    Raises:
        DatasetIncompleteError: tables, maps or key-frame files are missing; the message lists
            them.
        ValueError: the split or one of its scenes is unknown.
    """
    dataroot = Path(dataroot)
    require_tables(dataroot, version)
    scenes = split_scenes(dataroot, version, split)
    folder = (
        Path(cache_dir or _default_cache_dir()) / f'{version}-{_fingerprint(dataroot / version)}'
    )
    paths = [folder / f'{scene}.npz' for scene in scenes]
    left = [scene for scene, path in zip(scenes, paths, strict=True) if not path.exists()]
    if left:
        _write_scenes(open_devkit(dataroot, version), left, folder)
    index = SampleIndex(_joined([_read(path) for path in paths]))
    require_files(dataroot, index.filenames())
    return index


def split_scenes(dataroot: str | Path, version: str, split: str) -> list[str]:
    """Return the names of a split's scenes in the order of the scene table.

    Raises:
        ValueError: the split is unknown or empty, or names scenes that the tables lack.
    """
    tables = Path(dataroot) / version
    custom = read_json(path) if (path := tables / 'splits.json').exists() else {}
    if not isinstance(custom, dict) or not all(
        isinstance(names, list) and all(isinstance(n, str) for n in names)
        for names in custom.values()
    ):
        raise ValueError(f'{path} must map names of splits to lists of scene names')
    splits = custom | create_splits_scenes()
    if not splits.get(split):
        raise ValueError(
            f'split {split!r} is not known: choose one of {", ".join(sorted(splits))}, or add it '
            f'to {path}'
        )
    with consistent(tables):
        present = [scene['name'] for scene in read_json(tables / 'scene.json')]
    require_scene_names(tables, present)
    absent = sorted(set(splits[split]) - set(present))
    if absent:
        hint = (
            f'; the devkit hides the split of that name in {path}: rename it'
            if split in custom.keys() & create_splits_scenes()
            else ''
        )
        raise ValueError(
            f'split {split!r} needs {len(absent)} scenes that {tables} does not hold, such as '
            f'{", ".join(absent[:3])}{hint}'
        )
    wanted = set(splits[split])
    return [name for name in present if name in wanted]


def open_devkit(dataroot: str | Path, version: str) -> NuScenes:
    """Return the devkit's view of the dataset, loaded quietly.

    Raises:
        DatasetIncompleteError: a table or map is missing or cut off, or they contradict each
            other.
    """
    require_tables(Path(dataroot), version)
    try:
        return NuScenes(version, str(dataroot), verbose=False)
    except Exception as error:  # the devkit raises many types, among them Exception itself
        tables = Path(dataroot) / version
        raise DatasetIncompleteError(
            f'the tables in {tables} are cut off or contradict each other ({error!r}): unpack '
            'them again'
        ) from error


def _default_cache_dir() -> Path:
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'bevdepth'


def _fingerprint(tables: Path) -> str:
    """Return a name for this state of the tables."""
    states = [
        (name, (stat := (tables / f'{name}.json').stat()).st_size, stat.st_mtime_ns)
        for name in TABLES
    ]
    return hashlib.sha256(repr((CACHE_FORMAT, SENSORS, states)).encode()).hexdigest()[:16]


def _write_scenes(devkit: NuScenes, names: list[str], folder: Path) -> None:
    records = {scene['name']: scene for scene in devkit.scene}
    for name in tqdm(names, desc='indexing scenes', unit='scene', disable=None):
        with consistent(Path(devkit.dataroot) / devkit.version):
            columns = _scene_columns(devkit, records[name])
        write_atomically(folder / f'{name}.npz', partial(_write, columns))


def _write(columns: dict[str, np.ndarray], path: str) -> None:
    with open(path, 'wb') as file:  # an open one, for numpy adds an ending to names
        np.savez_compressed(file, **columns)


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as columns:
        return dict(columns)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _scene_columns(devkit: NuScenes, scene: dict) -> dict[str, np.ndarray]:
    """Return the arrays of one scene: n samples of 7 sensors, and their annotations one after the
    other.
    """
    samples = list(_samples(devkit, scene))
    annotations = [_annotations(devkit, sample) for sample in samples]
    columns = {
        'token': np.array([sample['token'].encode() for sample in samples]),
        'scene': np.array([scene['name'].encode()] * len(samples)),
        'stamp_us': np.array([sample['timestamp'] for sample in samples], np.int64),
        'annotations': np.array([len(rows) for rows in annotations], np.int64),
    }
    columns |= _sensor_columns(
        [_sensor_row(devkit, sample, name) for sample in samples for name in SENSORS]
    )
    rows = [row for sample_rows in annotations for row in sample_rows]
    for name, shape in _PER_ANNOTATION.items():
        dtype = np.int64 if name in _INTEGERS else np.float64
        columns[name] = np.array([row[name] for row in rows], dtype).reshape(len(rows), *shape)
    return columns


def _samples(devkit: NuScenes, scene: dict) -> Iterator[dict]:
    token, left = scene['first_sample_token'], len(devkit.sample)
    while token:
        if not left:
            raise ValueError(
                f'the samples of {scene["name"]} run in a circle: unpack the metadata again'
            )
        sample = devkit.get('sample', token)
        yield sample
        token, left = sample['next'], left - 1


def _sensor_row(devkit: NuScenes, sample: dict, channel: str) -> dict:
    if channel not in sample['data']:
        raise ValueError(
            f'sample {sample["token"]} has no key frame of {channel}; every sample needs all of '
            f'{", ".join(SENSORS)}'
        )
    data = devkit.get('sample_data', sample['data'][channel])
    sensor = devkit.get('calibrated_sensor', data['calibrated_sensor_token'])
    ego = devkit.get('ego_pose', data['ego_pose_token'])
    return {
        'filename': data['filename'].encode(),
        'sensor_stamp_us': data['timestamp'],
        'sensor_quaternion': sensor['rotation'],
        'sensor_translation': sensor['translation'],
        'ego_quaternion': ego['rotation'],
        'ego_translation': ego['translation'],
        'image_size': (data['width'] or 0, data['height'] or 0),
        'intrinsics': sensor['camera_intrinsic'] or np.zeros((3, 3)),
    }


def _sensor_columns(rows: list[dict]) -> dict[str, np.ndarray]:
    dtypes = dict.fromkeys(rows[0], np.float64) | {
        'filename': None,
        'sensor_stamp_us': np.int64,
        'image_size': np.int32,
    }
    columns = {
        name: np.array([row[name] for row in rows], dtype) for name, dtype in dtypes.items()
    }
    return {
        name: column.reshape(-1, len(SENSORS), *column.shape[1:])
        for name, column in columns.items()
    }


def _annotations(devkit: NuScenes, sample: dict) -> list[dict]:
    records = [devkit.get('sample_annotation', token) for token in sample['anns']]
    labelled = [(record, label_of_category(record['category_name'])) for record in records]
    return [
        _annotation_row(devkit, record, label) for record, label in labelled if label is not None
    ]


def _annotation_row(devkit: NuScenes, record: dict, label: int) -> dict:
    return {
        'label': label,
        'center': record['translation'],
        'size': record['size'],
        'quaternion': record['rotation'],
        'velocity': np.nan_to_num(devkit.box_velocity(record['token'])),
        'points': record['num_lidar_pts'] + record['num_radar_pts'],
    }
