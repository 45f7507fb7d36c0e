"""Manages the folder of a dataset that is being written, so that a conversion can continue
after an interruption.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

_COMMAND = 'conversion.json'


class UnfinishedDataset:
    """The folder ``<out>.part``, which is renamed when the dataset is complete.

    If an interrupted command runs again, it keeps the sensor files in the folder, and writes all
    tables again.

    Args:
        out: folder of the complete dataset.
        command: the options that determine the content of the files.

    Attributes:
        path: path of the folder, which exists after ``begin``.
        is_continued: True if an interrupted run of the same command created the folder.
    """

    def __init__(self, out: Path, command: dict) -> None:
        self._out, self._command = out, json.loads(json.dumps(command, default=str))
        self.path = out.with_name(f'{out.name}.part')
        self.is_continued = False

    def begin(self) -> None:
        """Use the folder of an interrupted run of the same command, or create an empty folder."""
        self.is_continued = self._stored_command() == self._command
        if not self.is_continued:
            self.remove()
            self.path.mkdir(parents=True)
            (self.path / _COMMAND).write_text(json.dumps(self._command))

    def has_files(self) -> bool:
        """Return True if the folder contains a sensor file."""
        return any((self.path / 'samples').glob('*/*'))

    def finish(self) -> None:
        """Rename the folder of the complete dataset to ``out``."""
        (self.path / _COMMAND).unlink()
        self.path.rename(self._out)

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _stored_command(self) -> object:
        try:
            return json.loads((self.path / _COMMAND).read_text())
        except (OSError, ValueError):
            return None
