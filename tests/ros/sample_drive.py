"""Fixtures: a short synthetic drive, and a bag that contains this drive."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.synthetic import make_scene
from bevdepth_ros.demo import Snapshot, render_drive, write_bag

SIZE = (400, 225)


@pytest.fixture(scope='session')
def drive() -> list[Snapshot]:
    """Return two image sets of a synthetic drive, half a second apart."""
    return render_drive(make_scene(8, 1.0), 1.0, SIZE)


@pytest.fixture(scope='session')
def sample_bag(drive: list[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('bag') / 'sample'
    write_bag(drive, path, SIZE)
    return path
