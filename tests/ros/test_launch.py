"""Runs the launch file on every installed ROS 2 distribution."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.inference import Detector
from bevdepth_core.synthetic import make_scene
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.demo import Snapshot, render_drive, write_bag
from tests.reference import ROOT
from tests.ros.graph import TIMEOUT_S
from tests.ros.launches import (
    DISTRIBUTIONS,
    IS_PIP_ONLY,
    assert_group_ends,
    launch,
    read_until,
    run,
)

SIZE = (400, 225)
TWO_DETECTORS = """
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace, SetRemap


def included(*actions, **arguments):
    share = get_package_share_directory('bevdepth_ros')
    source = PythonLaunchDescriptionSource(f'{share}/launch/detect.launch.py')
    return GroupAction([
        *actions, IncludeLaunchDescription(source, launch_arguments=arguments.items())
    ])


def generate_launch_description():
    common = {'checkpoint': 'CHECKPOINT', 'device': 'cpu'}
    return LaunchDescription([
        DeclareLaunchArgument('robot_name', default_value='r1'),
        included(
            PushRosNamespace('robot'), SetRemap('~/detections', '/boxes'), bag='BAG', record='OUT',
            **common,
        ),
        included(namespace='live', checkpoint='/nowhere.pth'),
    ])
"""


@pytest.fixture(scope='session')
def drive() -> list[Snapshot]:
    """Return two image sets of a synthetic drive, half a second apart."""
    return render_drive(make_scene(8, 1.0), 1.0, SIZE)


@pytest.fixture(scope='session')
def sample_bag(drive: list[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp('bag') / 'sample'
    write_bag(drive, path, SIZE)
    return path


@pytest.fixture(scope='session')
def expected(drive: list[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return what the offline pipeline finds in the two frames of the sample; the first one is
    the past frame of the second."""
    detector = Detector.from_checkpoint('small', 'cpu')
    frames = [snapshot.frame() for snapshot in drive]
    paths = [tmp_path_factory.mktemp('expected') / f'{frame.stamp_ns}.npz' for frame in frames]
    for path, frame, past_stamp_ns in zip(paths, frames, (None, frames[0].stamp_ns), strict=True):
        found = detector(frame)
        assert found.past_stamp_ns == past_stamp_ns
        assert len(found.scores) > 5
        names, boxes = np.array(found.class_names)[found.labels], found.boxes
        columns = {
            'center': boxes.center,
            'velocity': boxes.velocity,
            'score': found.scores,
            'label': found.labels,
            'name': names,
        }
        np.savez(path, stamp_ns=found.stamp_ns, **columns)
    return paths


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_the_launched_node_publishes_the_boxes_of_the_offline_pipeline(
    domain_id: int,
    distribution: str,
    sample_bag: Path,
    expected: list[Path],
):
    expectations = (f'expected_first:={expected[0]}', f'expected_second:={expected[1]}')
    arguments = (f'bag:={sample_bag}', 'checkpoint:=small', *expectations)
    test = run(
        distribution,
        'python',
        '-m',
        'launch_testing.launch_test',
        ROOT / 'tests' / 'ros' / 'sample_launch.py',
        *arguments,
    )
    log = test.communicate(timeout=400)[0]
    assert test.returncode == 0, log
    assert 'Ran 2 tests' in log


def test_the_launch_ends_with_the_bag_after_its_last_set_was_processed_even_without_rviz(
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
    # The last image shows the offsets, so both sets are formed at once: the second may replace the
    # first, but no set is lost without being counted.
    counts = re.search(r'image sets: (.*)', log)
    assert counts and counts[1] in (
        '2 received, 2 processed',
        '2 received, 1 processed, 1 dropped, 1 dropped_replaced',
    ), log
    assert 'Traceback' not in log
    assert ('rviz2 is not installed' in log) == IS_PIP_ONLY


def test_two_included_detectors_run_in_their_own_scopes_and_end_after_the_bag(
    domain_id: int, sample_bag: Path, tiny_checkpoint: Path, tmp_path: Path
):
    """One of them cannot be configured, which does not affect the other one."""
    path, out = tmp_path / 'two.launch.py', tmp_path / 'recorded'
    places = {'CHECKPOINT': tiny_checkpoint, 'BAG': sample_bag, 'OUT': out}
    text = TWO_DETECTORS
    for word, value in places.items():
        text = text.replace(f"'{word}'", f"'{value}'")
    path.write_text(text)
    process = run(DISTRIBUTIONS[0], 'ros2', 'launch', path, 'robot_name:=r2')
    log = process.communicate(timeout=400)[0]
    assert process.returncode == 0, log
    assert 'robot_name' not in log
    assert 'use `ros2 lifecycle set /live/bevdepth_detector configure`' in log
    assert 'ros2 lifecycle set /robot' not in log
    with Bag(out, print) as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    for name in ('detections', 'objects'):
        assert counts.get(f'/robot/bevdepth_detector/{name}') == 2, (counts, log)


def test_an_invalid_checkpoint_ends_a_replay_with_an_error_that_names_it(
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
def test_every_process_of_a_live_launch_ends_on_a_signal_to_the_launch_alone(
    domain_id: int, number: int
):
    """Without autostart, the launch runs until the signal."""
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
