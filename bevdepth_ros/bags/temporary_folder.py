"""Creates the temporary folder of a bag that is being written: a hidden folder beside the final
path, so that an incomplete bag is not mistaken for a complete one.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_BAG_SUFFIXES = ('.db3', '.mcap', '.yaml')


@contextmanager
def temporary_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``path`` and remove this folder at the end. At the beginning,
    remove the folders that killed processes left behind.

    Raises:
        FileExistsError: ``path`` exists and is not a bag.
    """
    require_replaceable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    folder = Path(tempfile.mkdtemp(prefix=_prefix(path), dir=path.parent))
    descriptor = _lock(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


def take_place(folder: Path, path: Path) -> None:
    """Move the complete bag from ``folder`` to ``path``. An older bag at ``path`` is replaced."""
    if path.exists():
        path.rename(folder / 'replaced')
    (folder / path.name).rename(path)


def require_replaceable(path: Path) -> None:
    """Raise FileExistsError if ``path`` exists and is not a bag."""
    if path.exists() and not _is_bag(path):
        raise FileExistsError(
            f'{path} exists and is not a rosbag2: choose another path or remove it'
        )


def _is_bag(path: Path) -> bool:
    """Return True if ``path`` is a folder that contains only a bag."""
    if not (path / 'metadata.yaml').is_file():
        return False
    return all(entry.is_file() and entry.suffix in _BAG_SUFFIXES for entry in path.iterdir())


def _prefix(path: Path) -> str:
    return f'.{path.name}.part-'


def _lock(folder: Path) -> int:
    """Lock ``folder`` and return a descriptor. The lock ends when the descriptor is closed or the
    process ends.

    Raises:
        BlockingIOError: another process holds the lock.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary folders of killed writers of ``path``; active writers hold a lock."""
    for folder in [
        entry for entry in path.parent.iterdir() if entry.name.startswith(_prefix(path))
    ]:
        try:
            descriptor = _lock(folder)
        except OSError:
            continue
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)
