"""The launch file as a user runs it, on every ROS 2 that is here."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from bevdepth_core.inference import Detector
from bevdepth_ros.launching import domain_variables
from tests.core.frames import real_frames
from tests.reference import ROOT, reference_path
from tests.ros.graph import PATIENCE_S, Graph, wait_until
from tests.ros.sample_bag import write_sample_bag

IS_PIP_ONLY = (
    subprocess.run(
        [ROOT / 'tools' / 'ros_mode.sh'], capture_output=True, text=True, check=True
    ).stdout.strip()
    == 'pip'
)
DISTRIBUTIONS = ['jazzy', 'humble'] if IS_PIP_ONLY else [os.environ['ROS_DISTRO']]
"""The pip-only ROS 2 carries two distributions; a sourced one is what it is."""
PARTICIPANT_LEASE_S = 20.0
"""How long DDS keeps a process that is gone without a word."""


@pytest.fixture(scope='session')
def sample_bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample_bag(
        reference_path('.'), 'infos_2frames.json', tmp_path_factory.mktemp('bag') / 'sample'
    )


@pytest.fixture(scope='session')
def expected(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return what the offline pipeline finds in the two frames of the sample, the first one
    remembered for the second."""
    detector = Detector.from_checkpoint(small_checkpoint, 'cpu')
    frames = sorted(real_frames('infos_2frames.json'), key=lambda frame: frame.stamp_ns)
    paths = [tmp_path_factory.mktemp('expected') / f'{frame.stamp_ns}.npz' for frame in frames]
    for path, frame, past_stamp_ns in zip(paths, frames, (None, frames[0].stamp_ns), strict=True):
        found = detector(frame)
        assert found.past_stamp_ns == past_stamp_ns
        names, boxes = np.array(found.class_names)[found.labels], found.boxes
        columns = {
            'centre': boxes.center,
            'velocity': boxes.velocity,
            'score': found.scores,
            'label': found.labels,
            'name': names,
        }
        np.savez(path, stamp_ns=found.stamp_ns, **columns)
    return paths


def run(distribution: str, *command) -> subprocess.Popen:
    """Start ``command`` in the environment that env.sh gives a user's shell."""
    domain = domain_variables(int(os.environ['ROS_DOMAIN_ID']), distribution)
    environment = {**os.environ, 'BEVDEPTH_ROS_PREFIX': distribution, **domain}
    line = ['bash', '-c', f'source {ROOT}/env.sh && exec "$@"', 'bash', *map(str, command)]
    return subprocess.Popen(
        line,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def launch(distribution: str, *arguments) -> subprocess.Popen:
    return run(distribution, 'ros2', 'launch', 'bevdepth_ros', 'detect.launch.py', *arguments)


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_the_launched_node_publishes_the_boxes_of_the_offline_pipeline(
    domain_id: int,
    distribution: str,
    sample_bag: Path,
    small_checkpoint: Path,
    expected: list[Path],
):
    expectations = (f'expected_first:={expected[0]}', f'expected_second:={expected[1]}')
    arguments = (f'bag:={sample_bag}', f'checkpoint:={small_checkpoint}', *expectations)
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


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_the_launch_ends_by_itself_at_the_end_of_the_bag_with_every_set_answered_even_without_rviz(
    domain_id: int, distribution: str, sample_bag: Path, small_checkpoint: Path
):
    process = launch(
        distribution,
        f'bag:={sample_bag}',
        f'checkpoint:={small_checkpoint}',
        f'rviz:={str(IS_PIP_ONLY).lower()}',
    )
    log = process.communicate(timeout=120)[0]
    assert process.returncode == 0, log
    assert 'sets of images: 2 received, 2 answered' in log
    assert 'Traceback' not in log
    assert ('rviz2 is not installed' in log) == IS_PIP_ONLY


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_a_wrong_checkpoint_ends_a_replay_with_a_sentence_and_an_error(
    domain_id: int, distribution: str, sample_bag: Path
):
    process = launch(distribution, f'bag:={sample_bag}', 'checkpoint:=/nowhere/weights.pth')
    log = process.communicate(timeout=120)[0]
    assert process.returncode == 1, log
    assert '/nowhere/weights.pth: no such checkpoint file' in log
    assert 'the detector was not configured' in log


@pytest.mark.parametrize(
    ('arguments', 'words'),
    [
        (('bag:=/nowhere/bag',), 'bag:=/nowhere/bag does not exist'),
        (('params_file:=/nowhere.yaml',), 'params_file:=/nowhere.yaml does not exist'),
        (('camera_preset:=none_such',), 'camera_preset:=none_such does not exist'),
        (
            ('chekpoint:=small', 'viewer_port:=http'),
            'chekpoint is no argument of detect.launch.py and has no effect; did you mean',
        ),
        (('viewer_port:=http',), 'viewer_port:=http is no port: give a number'),
    ],
)
def test_an_argument_that_does_not_do_ends_the_launch_with_its_name(
    domain_id: int, arguments: tuple[str, ...], words: str
):
    process = launch(DISTRIBUTIONS[0], *arguments)
    log = process.communicate(timeout=60)[0]
    assert process.returncode == 1, log
    assert words in log


def test_show_args_explains_every_argument(domain_id: int):
    log = launch(DISTRIBUTIONS[0], '--show-args').communicate(timeout=60)[0]
    names = (
        'params_file checkpoint device precision bag rate start duration loop rviz use_sim_time '
        'namespace camera_preset autostart'
    )
    lines = [line.strip() for line in log.splitlines()]
    for name in names.split():
        assert len(lines[lines.index(f"'{name}':") + 1]) > 20, name


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_live_launch_waits_unconfigured_without_autostart_and_ends_on_a_signal(
    domain_id: int, number: int
):
    """The signal goes to the whole group, as terminals and systemd send it: launch alone leaves
    its children on SIGTERM."""
    process = launch(DISTRIBUTIONS[0], 'autostart:=false', 'namespace:=robot')
    log: list[str] = []
    while not any('is unconfigured' in line for line in log):
        log.append(process.stdout.readline())
        assert log[-1], ''.join(log)
    os.killpg(process.pid, number)
    log.append(process.communicate(timeout=60)[0])
    assert 'is inactive' not in ''.join(log)
    assert 'Traceback' not in ''.join(log)
    assert_group_ends(process.pid)


def assert_group_ends(group: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError('a process was left running')


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_the_node_ends_cleanly_on_a_signal_while_it_is_being_configured(
    graph: Graph, small_checkpoint: Path, number: int
):
    process = run(
        DISTRIBUTIONS[0],
        'python',
        '-m',
        'bevdepth_ros.detector',
        '--ros-args',
        '-p',
        f'checkpoint:={small_checkpoint}',
    )
    client = graph.node.create_client(ChangeState, '/bevdepth_detector/change_state')
    assert client.wait_for_service(PATIENCE_S)
    client.call_async(
        ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    )
    process.send_signal(number)
    log = process.communicate(timeout=60)[0]
    assert process.returncode == 0, log
    assert 'Traceback' not in log


def test_the_node_leaves_the_graph_when_it_ends(graph: Graph):
    process = run(DISTRIBUTIONS[0], 'python', '-m', 'bevdepth_ros.detector')
    wait_until(lambda: 'bevdepth_detector' in graph.node.get_node_names(), 'the node')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    wait_until(
        lambda: 'bevdepth_detector' not in graph.node.get_node_names(),
        'its leave',
        patience_s=PARTICIPANT_LEASE_S / 2,
    )


def test_a_parameter_of_the_wrong_type_ends_the_node_with_a_sentence(domain_id: int):
    process = run(
        DISTRIBUTIONS[0],
        'python',
        '-m',
        'bevdepth_ros.detector',
        '--ros-args',
        '-p',
        'cameras:=CAM_FRONT',
    )
    log = process.communicate(timeout=60)[0]
    assert process.returncode == 1
    assert (
        'bevdepth_detector does not start: parameter cameras must be a list of strings, got '
        "'CAM_FRONT'" in log
    )
    assert 'Traceback' not in log
