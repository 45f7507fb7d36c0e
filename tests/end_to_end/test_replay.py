"""Replays a converted scene with the launch file, as a user does."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from rosbags.rosbag2 import Reader

from bevdepth_core.nuscenes.recording import SceneRecording
from bevdepth_ros.bags.recorder import RECORDED_TOPICS
from bevdepth_ros.bags.scene_bag import Target, write_bag

TIMEOUT_S = 580


def test_the_launch_file_records_the_results_of_the_selected_part_of_a_raw_image_bag(
    recording: SceneRecording,
    dataroot: Path,
    domain_id: int,
    small_checkpoint: Path,
    tmp_path: Path,
) -> None:
    bag = write_bag(recording, Target(dataroot, tmp_path, raw=True))
    arguments = {
        'bag': bag,
        'camera_preset': 'nuscenes_image_rect',
        'checkpoint': small_checkpoint,
        'start': 0.3,
        'duration': 0.4,
        'rate': 0.5,
        'device': 'cpu',
        'record': tmp_path / 'detections',
    }
    command = [
        'ros2',
        'launch',
        'bevdepth_ros',
        'detect.launch.py',
        *(f'{name}:={value}' for name, value in arguments.items()),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
    log = run.stdout + run.stderr
    assert run.returncode == 0, log
    received, processed = map(
        int, re.search(r'image sets: (\d+) received, (\d+) processed', log).groups()
    )
    assert 1 <= processed <= received <= 5, 'the whole bag has about 12 image sets'
    with Reader(tmp_path / 'detections') as recorded:
        counts = {each.topic: each.msgcount for each in recorded.connections}
        assert recorded.duration < 10e9, 'the stamps of the recorded bag are not from the replay'
    counts.pop('/diagnostics', None)  # published once per second
    assert counts == {
        f'/bevdepth_detector/{name}': 1 if name == 'label_info' else processed
        for name in RECORDED_TOPICS
    }
