"""Requires the reference folder, which contains results of the official code, and provides the
real nuScenes sample in this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.reference import reference_path


def pytest_configure() -> None:
    """End the run with one message if the reference folder is missing."""
    try:
        reference_path('golden')
    except FileNotFoundError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope='session')
def real_sample() -> Path:
    """Return the folder of the real nuScenes sample."""
    return reference_path('nuscenes_sample')
