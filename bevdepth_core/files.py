"""Writes files so that an interrupted write leaves no partial file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: str | Path, write: Callable[[str], None]) -> None:
    """Write a temporary file beside ``path``, then rename it; parent folders are created.

    Args:
        path: the file to create or to replace.
        write: receives the path of the temporary file and writes the content to this file.

    Raises:
        OSError: the folder cannot be written.
        Exception: any exception of ``write``. The file ``path`` is then unchanged.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name}.')
    os.close(handle)
    try:
        write(temporary)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
