"""The launch file with real networks and with two detectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.inference import Detector
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.demo import Snapshot
from tests.reference import ROOT
from tests.ros.launches import (
    DISTRIBUTIONS,
    run,
)
from tests.ros.sample_drive import drive, sample_bag

__all__ = ['drive', 'sample_bag']

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
        included(namespace='live'),
    ])
"""


@pytest.fixture(scope='session')
def expected(drive: list[Snapshot], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return files with the boxes that the offline pipeline computes for the two frames of the
    sample. The first frame is the past frame of the second frame.
    """
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
    log = test.communicate(timeout=580)[0]
    assert test.returncode == 0, log
    assert 'Ran 2 tests' in log


def test_two_included_detectors_run_in_their_own_scopes_and_end_after_the_bag(
    domain_id: int, sample_bag: Path, tiny_checkpoint: Path, tmp_path: Path
):
    """The detector ``live`` cannot be configured, which does not affect the detector ``robot``."""
    path, out = tmp_path / 'two.launch.py', tmp_path / 'recorded'
    places = {'CHECKPOINT': tiny_checkpoint, 'BAG': sample_bag, 'OUT': out}
    text = TWO_DETECTORS
    for word, value in places.items():
        text = text.replace(f"'{word}'", f"'{value}'")
    path.write_text(text)
    process = run(DISTRIBUTIONS[0], 'ros2', 'launch', path, 'robot_name:=r2')
    log = process.communicate(timeout=580)[0]
    assert process.returncode == 0, log
    assert 'robot_name' not in log
    assert 'use `ros2 lifecycle set /live/bevdepth_detector configure`' in log
    assert 'ros2 lifecycle set /robot' not in log
    with Bag(out, print) as bag:
        counts = {name: topic.count for name, topic in bag.topics.items()}
    for name in ('detections', 'objects'):
        assert counts.get(f'/robot/bevdepth_detector/{name}') == 2, (counts, log)
