"""Provides a small synthetic dataset."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.nuscenes.recording import SceneRecording, read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.synthetic.dataset.capture import Sensors
from bevdepth_core.synthetic.dataset.writing import VERSION, DatasetPlan, write_dataset

SCENES = ('val-0001', 'val-0002')


@pytest.fixture(scope='session')
def dataroot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a dataset with two scenes. Each scene consists of two key frames
    and of sweeps."""
    root = tmp_path_factory.mktemp('nuscenes') / 'drawn'
    plan = DatasetPlan(
        train_scenes=0,
        val_scenes=len(SCENES),
        duration_s=1.0,
        sensors=Sensors(160, 90, lidar_beams=4, sweeps=True),
    )
    write_dataset(root, plan, jobs=2, progress=False)
    assert (root / VERSION).is_dir()
    return root


@pytest.fixture(scope='session')
def recording(dataroot: Path) -> SceneRecording:
    """Return the first scene of the dataset."""
    return read_recording(open_devkit(dataroot, VERSION), SCENES[0])
