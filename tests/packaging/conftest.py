"""Provides a copy of the repository without build output."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.packaging.shell import ROOT


@pytest.fixture(scope='session')
def clean_clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of this tree with all tracked files and all new files that git does not
    ignore, and therefore without build output.
    """
    listing = subprocess.run(
        ['git', 'ls-files', '-coz', '--exclude-standard'],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    clone = tmp_path_factory.mktemp('clone')
    for name in filter(None, listing.stdout.split('\0')):
        if (ROOT / name).is_file():
            (clone / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone / name)
    return clone
