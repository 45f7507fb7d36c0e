from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.synthetic.dataset.writing import write_dataset
from tests.core.synthetic.drives import PLAN


@pytest.fixture(scope='session')
def drives_root(tmp_path_factory) -> Path:
    """Return the folder of a dataset written from ``PLAN``; tests must not change its files."""
    path = tmp_path_factory.mktemp('synthetic') / 'drives'
    write_dataset(path, PLAN, jobs=2)
    return path
