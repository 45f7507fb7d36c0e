"""Rejects incomplete and contradictory datasets, with a message that names files and remedy."""

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
OPTIONAL_TABLES = ('attribute', 'log', 'map', 'visibility')
"""Tables that may be absent. The tables ``log`` and ``map`` are never read."""
_SCENE_NAME = re.compile(r'\w[\w.-]{0,99}')
MAX_NAMED_PER_FOLDER = 3
"""Largest number of missing files that a message lists per folder.
``DatasetIncompleteError.missing`` contains all missing files."""


class DatasetIncompleteError(ValueError):
    """Files of a dataset are missing, or its tables are damaged.

    Attributes:
        missing: all missing files, relative to the dataset's root.
    """

    def __init__(self, message: str, missing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.missing = tuple(missing)


def require_tables(dataroot: Path, version: str) -> None:
    """Raise DatasetIncompleteError unless the folder ``version`` contains all tables except
    ``OPTIONAL_TABLES``.
    """
    if not dataroot.is_dir():
        problem = 'is not a folder' if dataroot.exists() else 'does not exist'
        raise DatasetIncompleteError(f'{dataroot} {problem}: set the dataset root to a dataset')
    if not (dataroot / version).is_dir():
        raise DatasetIncompleteError(f'{dataroot} has no folder {version}: {_remedy(dataroot)}')
    required = [f'{version}/{name}.json' for name in TABLES if name not in OPTIONAL_TABLES]
    _require_none_missing(dataroot, [name for name in required if not (dataroot / name).is_file()])


def _remedy(dataroot: Path) -> str:
    """Return the remedy for a ``dataroot`` that does not contain the folder of tables."""
    if (dataroot / 'sample_data.json').is_file():
        parent = dataroot.absolute().parent
        return f'this folder itself contains tables; set the dataset root to {parent}'
    versions = sorted(path.parent.name for path in dataroot.glob('*/sample_data.json'))
    if versions:
        return f'the root contains {", ".join(versions)}; set the version to one of these folders'
    return 'check the dataset root and the version, or unpack the metadata of this version'


@contextmanager
def consistent(tables: Path) -> Iterator[None]:
    """Convert errors of the ``with`` block, which reads tables, to DatasetIncompleteError. Such
    errors mean that tables contradict each other or do not have the format of nuScenes.
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
        raise damaged_tables(tables, error) from error


def damaged_tables(tables: Path, error: Exception) -> DatasetIncompleteError:
    """Return the error for tables that cannot be read because of ``error``."""
    return DatasetIncompleteError(
        f'the tables in {tables} are damaged or contradict each other ({error!r}): unpack the '
        'metadata again'
    )


def require_inside(dataroot: Path, filenames: Iterable[str]) -> None:
    """Raise ValueError for a file name in the tables that points outside the dataset.

    Symbolic links inside the dataset may point anywhere.
    """
    for filename in filenames:
        path = PurePosixPath(filename if isinstance(filename, str) else '..')
        if path.is_absolute() or '..' in path.parts or '\0' in filename:
            raise ValueError(
                f'a table of {dataroot} names the file {filename!r}, which is outside of this '
                'folder: do not use this dataset'
            )


def require_scene_names(tables: Path, names: Iterable[str]) -> None:
    """Raise ValueError for a scene name that is not a valid file name. The cache uses the names of
    scenes as file names.
    """
    for name in names:
        if not isinstance(name, str) or not _SCENE_NAME.fullmatch(name):
            raise ValueError(
                f'{tables} contains a scene called {name!r}: rename this scene; only letters, '
                'digits and _ - . are allowed, at most 100 characters, and the first character '
                'must be a letter, a digit or _'
            )


def read_json(path: Path) -> list | dict:
    """Return the content of a table.

    Raises:
        DatasetIncompleteError: the file is truncated or not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise DatasetIncompleteError(
            f'{path} is truncated or not JSON ({error}): unpack the metadata again'
        ) from error


def require_files(dataroot: Path, filenames: Iterable[str]) -> None:
    """Raise DatasetIncompleteError unless all ``filenames`` exist.

    Each folder is listed once, which is fast on any disk.

    Raises:
        ValueError: see ``require_inside``.
    """
    filenames = list(filenames)
    require_inside(dataroot, filenames)
    wanted: dict[str, list[str]] = defaultdict(list)
    for filename in filenames:
        folder, name = os.path.split(filename)
        wanted[folder].append(name)
    missing: list[str] = []
    for folder, names in wanted.items():
        present = set(os.listdir(dataroot / folder)) if (dataroot / folder).is_dir() else set()
        missing += [f'{folder}/{name}' for name in names if name not in present]
    _require_none_missing(dataroot, missing)


def _require_none_missing(dataroot: Path, missing: list[str]) -> None:
    if not missing:
        return
    by_folder: dict[str, list[str]] = defaultdict(list)
    for filename in missing:
        by_folder[str(PurePosixPath(filename).parent)].append(PurePosixPath(filename).name)
    lines = [
        f'  {folder}: {len(names)}, such as {", ".join(names[:MAX_NAMED_PER_FOLDER])}'
        for folder, names in sorted(by_folder.items())
    ]
    raise DatasetIncompleteError(
        f'{len(missing)} files are missing in {dataroot}; download or unpack these files, or '
        'choose a split that does not need them:\n' + '\n'.join(lines),
        missing,
    )
