"""Tests the launch file with a tiny network."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.ros.graph import TIMEOUT_S
from tests.ros.launches import (
    DISTRIBUTIONS,
    IS_PIP_ONLY,
    assert_group_ends,
    launch,
    read_until,
    run,
)
from tests.ros.sample_drive import drive, sample_bag

__all__ = ['drive', 'sample_bag']


def test_a_replay_processes_the_last_image_set_and_ends_even_if_rviz_is_not_installed(
    domain_id: int, sample_bag: Path, tiny_checkpoint: Path
):
    process = launch(
        DISTRIBUTIONS[0],
        f'bag:={sample_bag}',
        f'checkpoint:={tiny_checkpoint}',
        'device:=cpu',
        f'rviz:={str(IS_PIP_ONLY).lower()}',
    )
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 0, log
    # The node finds the offsets of the cameras only after the last image, and then forms both sets
    # at the same time. The second set may replace the first set; the first set is then counted as
    # dropped.
    counts = re.search(r'image sets: (.*)', log)
    assert counts and counts[1] in (
        '2 received, 2 processed',
        '2 received, 1 processed, 1 dropped, 1 dropped_replaced',
    ), log
    assert 'Traceback' not in log
    assert ('rviz2 is not installed' in log) == IS_PIP_ONLY


def test_an_invalid_checkpoint_ends_a_replay_with_an_error_that_names_the_checkpoint(
    domain_id: int, sample_bag: Path
):
    process = launch(DISTRIBUTIONS[0], f'bag:={sample_bag}', 'checkpoint:=/nowhere/weights.pth')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 1, log
    assert '/nowhere/weights.pth: no such checkpoint file' in log


def test_invalid_arguments_end_the_launch_with_one_message_before_a_process_starts(
    domain_id: int,
):
    process = launch(DISTRIBUTIONS[0], 'chekpoint:=small', 'camera_preset:=nuscense', 'rate:=fast')
    log = process.communicate(timeout=300)[0]
    assert process.returncode == 1, log
    assert log.count('[ERROR]') == 1
    assert 'did you mean checkpoint?' in log and 'did you mean nuscenes?' in log
    assert 'rate:=fast is invalid' in log
    assert 'process started' not in log and 'Traceback' not in log


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_every_process_of_a_launch_without_a_bag_ends_if_only_ros2_launch_receives_a_signal(
    domain_id: int, number: int
):
    """Without autostart, the node is not configured, and the launch runs until the signal."""
    process = launch(DISTRIBUTIONS[0], 'autostart:=false', 'namespace:=robot')
    log = read_until(process, 'is unconfigured')
    process.send_signal(number)
    log += process.communicate(timeout=TIMEOUT_S)[0]
    assert 'is inactive' not in log
    assert 'Traceback' not in log
    assert '[detector-1]' in log
    assert_group_ends(process.pid)


def test_a_parameter_of_the_wrong_type_ends_the_node_with_a_message(domain_id: int):
    process = run(
        DISTRIBUTIONS[0],
        'python',
        '-m',
        'bevdepth_ros.detector',
        '--ros-args',
        '-p',
        'cameras:=CAM_FRONT',
    )
    log = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == 1
    assert (
        'bevdepth_detector does not start: parameter cameras must be a list of strings, got '
        "'CAM_FRONT'" in log
    )
    assert 'Traceback' not in log
