"""Provides a dataset that contains only key frames, and a bag of its second scene in which the
images of one key frame are missing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.recording import read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.synthetic.dataset.capture import Sensors
from bevdepth_core.synthetic.dataset.writing import VERSION, DatasetPlan, write_dataset
from bevdepth_ros.bags.scene_bag import Target, write_bag
from bevdepth_ros.closed_loop.evaluate_node import cameras_only
from tests.ros.bags.conftest import SCENES

SPLIT = 'synthetic_val'
KEY_FRAMES = 4
"""Key frames per scene; nuScenes has two per second."""
ABSENT = KEY_FRAMES + 1
"""Index of the key frame whose images are missing in the bag. The index counts the key frames of
both scenes, so this is the second key frame of the second scene."""


@pytest.fixture(scope='module')
def key_frames_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset with two scenes, each with four key frames and without sweeps."""
    root = tmp_path_factory.mktemp('nuscenes') / 'key_frames'
    write_dataset(
        root,
        DatasetPlan(
            train_scenes=0,
            val_scenes=len(SCENES),
            duration_s=KEY_FRAMES / 2,
            sensors=Sensors(160, 90, lidar_beams=4, sweeps=False),
        ),
        jobs=2,
        progress=False,
    )
    return root


@pytest.fixture(scope='module')
def index(key_frames_root: Path) -> SampleIndex:
    return load_index(key_frames_root, VERSION, SPLIT, key_frames_root.parent / 'cache')


@pytest.fixture(scope='module')
def gap_bag(key_frames_root: Path, index: SampleIndex) -> Path:
    """Return the bag of the second scene without the images of one key frame."""
    absent = {camera.filename for camera in index[ABSENT].cameras}
    recording = read_recording(open_devkit(key_frames_root, VERSION), SCENES[1])
    without_images = cameras_only(recording, set(index.filenames()) - absent)
    return write_bag(without_images, Target(key_frames_root, key_frames_root.parent / 'bags'))
