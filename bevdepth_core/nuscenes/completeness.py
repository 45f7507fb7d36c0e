"""Refuse a half-downloaded dataset and say what is missing."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

TABLES = (
    'attribute', 'calibrated_sensor', 'category', 'ego_pose', 'instance', 'log', 'map', 'sample',
    'sample_annotation',
    'sample_data', 'scene', 'sensor', 'visibility',
)  # fmt: skip
"""The tables of nuScenes v1.0."""
_SCENE_NAME = re.compile(r'\w[\w.-]{0,99}')
NAMED_PER_FOLDER = 3
"""Missing files that a message names per folder; the exception holds all."""


class DatasetIncompleteError(ValueError):
    """A dataset lacks files.

    Attributes:
        missing: all missing files, relative to the dataset's root.
    """

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


def require_tables(dataroot: Path, version: str) -> None:
    """Raise DatasetIncompleteError unless all tables of ``version`` and the maps that they name
    are there.
    """
    if not (dataroot / version).is_dir():
        raise DatasetIncompleteError(
            f'{dataroot} has no folder {version}: check the dataset root and the version, or '
            'unpack its metadata'
        )
    _refuse(
        dataroot,
        [
            f'{version}/{table}.json'
            for table in TABLES
            if not (dataroot / version / f'{table}.json').is_file()
        ],
    )
    maps = read_json(dataroot / version / 'map.json')
    with consistent(dataroot / version):
        filenames = [record['filename'] for record in maps]
        require_inside(dataroot, filenames)
        _refuse(
            dataroot, [filename for filename in filenames if not (dataroot / filename).is_file()]
        )


@contextmanager
def consistent(tables: Path) -> Iterator[None]:
    """Raise DatasetIncompleteError for whatever tables that contradict each other or their format
    make the body raise.
    """
    try:
        yield
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
    ) as error:
        raise DatasetIncompleteError(
            f'the tables in {tables} contradict each other ({error!r}): unpack the metadata again'
        ) from error


def require_inside(dataroot: Path, filenames: Iterable[str]) -> None:
    """Raise ValueError for a file name in the tables that leads out of the dataset; links below it
    may lead anywhere.
    """
    for filename in filenames:
        path = PurePosixPath(filename if isinstance(filename, str) else '..')
        if path.is_absolute() or '..' in path.parts or '\0' in filename:
            raise ValueError(
                f'a table of {dataroot} names the file {filename!r}, which is not below it: do '
                'not use this dataset'
            )


def require_scene_names(tables: Path, names: Iterable[str]) -> None:
    """Raise ValueError for the name of a scene that cannot be the name of a file, which scenes are
    kept under.
    """
    for name in names:
        if not isinstance(name, str) or not _SCENE_NAME.fullmatch(name):
            raise ValueError(
                f'{tables} holds a scene called {name!r}: it must be letters, digits and _ - . '
                'alone, and begin with a letter or digit'
            )


def read_json(path: Path) -> list | dict:
    """Return the content of a table; raises DatasetIncompleteError when it is cut off."""
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DatasetIncompleteError(
            f'{path} is cut off ({error}): unpack the metadata again'
        ) from error


def require_files(dataroot: Path, filenames: Iterable[str]) -> None:
    """Raise DatasetIncompleteError unless all ``filenames`` are there; each folder is listed once,
    which is fast on any disk.

    Raises:
        ValueError: as ``require_inside``.
    """
    filenames = list(filenames)
    require_inside(dataroot, filenames)
    wanted = defaultdict(list)
    for filename in filenames:
        folder, name = os.path.split(filename)
        wanted[folder].append(name)
    missing = []
    for folder, names in wanted.items():
        present = set(os.listdir(dataroot / folder)) if (dataroot / folder).is_dir() else set()
        missing += [f'{folder}/{name}' for name in names if name not in present]
    _refuse(dataroot, missing)


def _refuse(dataroot: Path, missing: list[str]) -> None:
    if not missing:
        return
    by_folder = defaultdict(list)
    for filename in missing:
        by_folder[str(PurePosixPath(filename).parent)].append(PurePosixPath(filename).name)
    lines = [
        f'  {folder}: {len(names)}, such as {", ".join(names[:NAMED_PER_FOLDER])}'
        for folder, names in sorted(by_folder.items())
    ]
    raise DatasetIncompleteError(
        f'{dataroot} lacks {len(missing)} files; download or unpack them, or choose a split '
        'without them:\n' + '\n'.join(lines),
        missing,
    )
