"""Prevents two training runs from writing to the same folder."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from bevdepth_core.training.command_line import InvalidRunError

LOCK = '.lock'
"""Name of the file that a run locks; the file stays in the folder after the run."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock the folder of a run while the ``with`` block runs. If a run has several processes, only
    the first process locks the folder. The lock ends with this process, and loader processes do
    not inherit the lock.

    Raises:
        InvalidRunError: another run has locked the folder.
    """
    if getattr(rank_zero_only, 'rank', 0) != 0:
        yield
        return
    with (folder / LOCK).open('w') as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise InvalidRunError(
                f'another training writes to {folder}: wait until it ends, or choose another '
                '--output'
            ) from error
        except OSError:  # some network file systems have no locks
            pass
        yield
