"""Creates rows of the nuScenes tables (tokens, links, poses) and writes the files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

from bevdepth_core.nuscenes.completeness import TABLES

Rows = dict[str, list[dict]]
"""Maps the name of a table to rows of this table."""


def token(*parts: object) -> str:
    """Return a token of 32 hexadecimal digits. Equal ``parts`` always give the same token."""
    return hashlib.md5('/'.join(map(str, parts)).encode(), usedforsecurity=False).hexdigest()


def linked(rows: list[dict]) -> list[dict]:
    """Return copies of ``rows`` whose fields ``prev`` and ``next`` contain the tokens of the
    previous and of the next row. ``rows`` must be in order of time.
    """
    tokens = ['', *(row['token'] for row in rows), '']
    return [
        row | {'prev': before, 'next': after}
        for row, before, after in zip(rows, tokens, tokens[2:], strict=False)
    ]


def pose_fields(target_from_source: np.ndarray) -> dict[str, list[float]]:
    """Return the fields ``translation`` and ``rotation`` of a (4, 4) rigid transform, meters."""
    rotation = Quaternion(matrix=target_from_source[:3, :3], rtol=1e-6, atol=1e-6)
    return {
        'translation': target_from_source[:3, 3].tolist(),
        'rotation': rotation.elements.tolist(),
    }


class TableFiles:
    """Writes all tables as files with one row per line. The files are complete at the end of the
    ``with`` block.
    """

    def __init__(self, folder: Path) -> None:
        self._files = {name: (folder / f'{name}.json').open('w') for name in TABLES}
        self._separators = dict.fromkeys(TABLES, '[\n')

    def add(self, rows: Rows) -> None:
        """Append rows to their tables."""
        for name, added in rows.items():
            for row in added:
                self._files[name].write(self._separators[name] + json.dumps(row))
                self._separators[name] = ',\n'

    def __enter__(self) -> TableFiles:
        return self

    def __exit__(self, *exception: object) -> None:
        for name, file in self._files.items():
            is_empty = self._separators[name].startswith('[')
            file.write('[]\n' if is_empty else '\n]\n')
            file.close()
