"""Runs ``ros2 lifecycle``, ``ros2 interface`` and ``ros2 bag``. In the pip-only ROS 2, this
project implements these commands."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from bevdepth_ros.bags.writer import BagWriter
from tests.packaging.shell import DISTRIBUTIONS, PIP_ONLY, ROOT, bash, fresh_environment


@pytest.fixture(params=DISTRIBUTIONS)
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    return {**fresh_environment(request.param), 'ROS_LOG_DIR': str(tmp_path / 'log')}


def ros2(words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return bash(f'. {ROOT}/env.sh; ros2 {words}', environment)


def test_ros2_interface_prints_and_lists_interfaces(environment: dict[str, str]):
    shown = ros2('interface show vision_msgs/msg/Detection3DArray', environment).stdout
    assert 'Detection3D[] detections' in shown
    listed = ros2('interface package vision_msgs', environment).stdout
    assert 'vision_msgs/msg/Detection3DArray' in listed.splitlines()
    unknown = ros2('interface show vision_msgs/msg/Nothing', environment)
    assert unknown.returncode != 0
    assert 'Traceback' not in unknown.stderr


def test_ros2_bag_prints_the_content_of_a_bag_and_plays_the_bag(
    environment: dict[str, str], tmp_path: Path
):
    with BagWriter(tmp_path / 'bag') as bag:
        for stamp_ns in (10**18, 10**18 + 2 * 10**9):
            bag.write_camera_info('CAM_FRONT', stamp_ns, np.eye(3), 16, 9)
    text = ros2(f'bag info {tmp_path}/bag', environment).stdout
    assert 'Duration: 2.000 s' in text or 'Duration:          2.0' in text
    assert '/CAM_FRONT/camera_info | Type: sensor_msgs/msg/CameraInfo | Count: 2' in text
    played = ros2(f'bag play --rate 20 {tmp_path}/bag --wait 0.1', environment)
    assert played.returncode == 0, played.stderr
    missing = ros2(f'bag info {tmp_path}/none', environment)
    assert missing.returncode != 0
    assert 'Traceback' not in missing.stderr


def test_ros2_bag_record_of_the_pip_only_ros_2_fails_and_names_the_alternatives(
    environment: dict[str, str], tmp_path: Path
):
    """With an installed ROS 2, nothing is tested, because ``ros2 bag`` can then record."""
    commands = ('', 'record -a', f'record -o {tmp_path}/bag /tf') if PIP_ONLY else ()
    for words in commands:
        outcome = ros2(f'bag {words}', environment)
        assert outcome.returncode == 1
        assert 'play and info' in outcome.stderr and 'record:=' in outcome.stderr
        assert len(outcome.stderr.splitlines()) == 1
    assert not (tmp_path / 'bag').exists()


def test_ros2_lifecycle_prints_and_changes_the_state_of_the_detector(environment: dict[str, str]):
    script = f"""
    . {ROOT}/env.sh
    python -m bevdepth_ros.detector >/dev/null 2>&1 &
    node=$!
    for try in 1 2 3 4 5 6 7 8 9 10; do
        ros2 lifecycle get /bevdepth_detector && break
    done
    until ros2 lifecycle nodes | grep detector; do :; done
    ros2 lifecycle list /bevdepth_detector
    ros2 lifecycle set /bevdepth_detector shutdown
    ros2 lifecycle get /bevdepth_detector
    ros2 lifecycle set /bevdepth_detector activate || true
    kill -INT $node
    wait $node
    """
    outcome = bash(script, environment)
    assert outcome.returncode == 0, outcome.stderr
    lines = outcome.stdout.splitlines()
    assert lines[:2] == ['unconfigured [1]', '/bevdepth_detector']
    assert '- configure [1]' in lines and '\tStart: unconfigured' in lines
    assert lines[-2:] == ['Transitioning successful', 'finalized [4]']
    assert 'did not activate' in outcome.stderr or 'not available' in outcome.stderr
