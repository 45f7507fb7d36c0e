"""Tests the bring-up of a node that is slow, exits, or has the name of another node, and of a node
whose messages are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from launch import LaunchContext, LaunchDescription, LaunchService
from launch.actions import OpaqueFunction

from bevdepth_ros.bring_up.interrupt import leave_sigint_to_launch
from bevdepth_ros.bring_up.lifecycle import new_enclave
from tests.ros import unreliable_lifecycle_node as unreliable_node
from tests.ros.graph import TIMEOUT_S
from tests.ros.launches import DISTRIBUTIONS, launch, read_until, run

LAUNCH_FILE = f"""
from launch import LaunchDescription
from launch.actions import LogInfo, Shutdown
from launch_ros.actions import LifecycleNode
from bevdepth_ros.bring_up.lifecycle import bring_up, new_enclave


def generate_launch_description():
    enclave = new_enclave()
    node = LifecycleNode(executable='{sys.executable}', arguments=['{unreliable_node.__file__}'],
                         name='bevdepth_detector', namespace='',
                         ros_arguments=['--enclave', enclave])
    ended = lambda context, error: [LogInfo(msg=f'ended with {{error}}'), Shutdown(reason='end')]
    return LaunchDescription([node, *bring_up(node, enclave, True, ended)])
"""

DELAYED_DETECTOR = """
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, SetLaunchConfiguration
from launch.launch_description_sources import PythonLaunchDescriptionSource


def generate_launch_description():
    share = get_package_share_directory('bevdepth_ros')
    source = PythonLaunchDescriptionSource(f'{share}/launch/detect.launch.py')
    wait = "sh -c 'until [ -e GO ]; do sleep 0.1; done; exec \\"$@\\"' sh"
    return LaunchDescription([
        SetLaunchConfiguration('launch-prefix', wait), IncludeLaunchDescription(source),
    ])
"""

INTERRUPTED_SHUTDOWN = """
import signal

from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription, RegisterEventHandler
from launch.event_handlers import OnShutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource


def generate_launch_description():
    share = get_package_share_directory('bevdepth_ros')
    source = PythonLaunchDescriptionSource(f'{share}/launch/detect.launch.py')
    again = OnShutdown(on_shutdown=lambda event, context: signal.raise_signal(signal.SIGINT))
    return LaunchDescription([IncludeLaunchDescription(source), RegisterEventHandler(again)])
"""

NAME_IS_TAKEN = 'another node in ROS domain {} is named /bevdepth_detector: end the other node'

ENDED_DETECTOR = f"""
from launch import LaunchDescription
from launch.actions import LogInfo, RegisterEventHandler, Shutdown
from launch.event_handlers import OnProcessExit
from launch_ros.actions import LifecycleNode, Node
from bevdepth_ros.bring_up.lifecycle import bring_up, new_enclave
from bevdepth_ros.bring_up.replay import end_of_replay


def generate_launch_description():
    words = ['-c', 'raise SystemExit(STATUS)']
    node = LifecycleNode(executable='{sys.executable}', arguments=words, name='detector',
                         namespace='')
    endless = 'import signal; signal.signal(signal.SIGINT, signal.SIG_DFL); signal.pause()'
    player = Node(executable='{sys.executable}', arguments=['-c', endless])
    failed = lambda context, error: [LogInfo(msg=f'bring-up failed: {{error}}')]
    interrupted = OnProcessExit(target_action=node, on_exit=[Shutdown()])
    return LaunchDescription([
        *end_of_replay(node, player), *bring_up(node, new_enclave(), True, failed), node, player,
        *([RegisterEventHandler(interrupted)] if IS_INTERRUPTED else []),
    ])
"""


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen]]:
    """Yield a list to which a test appends the launches and nodes that it starts. These
    processes are killed at the end of the test."""
    processes: list[subprocess.Popen] = []
    yield processes
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_requests_are_sent_again_when_they_or_their_responses_are_lost(
    domain_id: int, tmp_path: Path
):
    path = tmp_path / 'unreliable.launch.py'
    path.write_text(LAUNCH_FILE)
    log = run(DISTRIBUTIONS[0], 'ros2', 'launch', path).communicate(timeout=TIMEOUT_S)[0]
    assert 'ended with None' in log
    # Each line is logged once on an idle machine, and again for each response that takes more
    # than a second.
    assert (
        '/bevdepth_detector is not yet inactive after the request to configure; sending it again'
        in log
    )
    assert (
        '/bevdepth_detector is not yet active after the request to activate; sending it again'
        in log
    )


def test_with_sros_the_node_keeps_the_enclave_of_the_user(monkeypatch: pytest.MonkeyPatch):
    assert new_enclave() != new_enclave()
    monkeypatch.setenv('ROS_SECURITY_ENABLE', 'true')
    assert new_enclave() == ''


def test_bring_up_waits_for_the_end_of_another_node_of_the_same_name(
    domain_id: int, started: list[subprocess.Popen], tiny_checkpoint: Path, tmp_path: Path
):
    """The detector of the launch starts only after the launch has discovered the other node."""
    go, path = tmp_path / 'go', tmp_path / 'delayed.launch.py'
    path.write_text(DELAYED_DETECTOR.replace('GO', str(go)))
    started.append(run(DISTRIBUTIONS[0], 'python', '-m', 'bevdepth_ros.detector'))
    read_until(started[0], 'is unconfigured')
    arguments = [f'checkpoint:={tiny_checkpoint}', 'device:=cpu']
    started.append(run(DISTRIBUTIONS[0], 'ros2', 'launch', path, *arguments))
    read_until(started[1], NAME_IS_TAKEN.format(domain_id))
    go.touch()
    read_until(started[1], 'until the other node of this name has ended')
    started[0].send_signal(signal.SIGINT)
    read_until(started[1], 'is active')
    output = started[0].communicate(timeout=TIMEOUT_S)[0]
    assert 'configure' not in output, 'the other node received a request of the launch'


def test_bring_up_reports_another_node_of_the_same_name_that_appears_later(
    domain_id: int, started: list[subprocess.Popen], tiny_checkpoint: Path
):
    started.append(launch(DISTRIBUTIONS[0], f'checkpoint:={tiny_checkpoint}', 'device:=cpu'))
    output = read_until(started[0], 'is active')
    assert 'another node' not in output
    started.append(run(DISTRIBUTIONS[0], 'python', unreliable_node.__file__))
    read_until(started[0], NAME_IS_TAKEN.format(domain_id))


def test_a_detector_that_hangs_is_reported_and_its_exit_ends_the_launch(
    domain_id: int, started: list[subprocess.Popen]
):
    started.append(launch(DISTRIBUTIONS[0], 'checkpoint:=small'))
    pid = int(read_until(started[0], 'process started with pid [').rsplit('[', 1)[1].split(']')[0])
    os.kill(pid, signal.SIGSTOP)
    read_until(started[0], 'waiting for /bevdepth_detector for 5 s')
    os.kill(pid, signal.SIGKILL)
    log = started[0].communicate(timeout=TIMEOUT_S)[0]
    assert started[0].returncode == 1, log
    assert '/bevdepth_detector ended with exit status -9 before it was active' in log


def test_a_detector_that_cannot_be_configured_keeps_running_and_the_launch_logs_the_remedy(
    domain_id: int, started: list[subprocess.Popen], tmp_path: Path
):
    (tmp_path / 'weights.pth').write_text('no weights')
    started.append(launch(DISTRIBUTIONS[0], f'checkpoint:={tmp_path}/weights.pth'))
    output = read_until(started[0], '`ros2 lifecycle set /bevdepth_detector configure`')
    assert '/bevdepth_detector did not configure' in output
    assert f'{tmp_path}/weights.pth: ' in output
    os.killpg(started[0].pid, signal.SIGINT)
    assert 'Traceback' not in started[0].communicate(timeout=TIMEOUT_S)[0]
    assert started[0].returncode in (0, 1)


@pytest.mark.parametrize(
    ('status', 'is_interrupted', 'is_error'),
    [(0, True, False), (0, False, True), (3, False, True)],
)
def test_the_early_end_of_the_detector_is_an_error_unless_the_launch_was_interrupted(
    domain_id: int, tmp_path: Path, status: int, is_interrupted: bool, is_error: bool
):
    """Ctrl-C sends SIGINT to all processes. A busy launch may handle the signal only after the
    detector has ended."""
    path = tmp_path / 'ended.launch.py'
    text = ENDED_DETECTOR.replace('STATUS', str(status))
    path.write_text(text.replace('IS_INTERRUPTED', str(is_interrupted)))
    process = run(DISTRIBUTIONS[0], 'ros2', 'launch', path)
    log = process.communicate(timeout=TIMEOUT_S)[0]
    assert process.returncode == int(is_error), log
    assert ('ended before the end of the replay' in log) == is_error, log
    assert 'Traceback' not in log
    if is_interrupted:
        assert 'bring-up failed' not in log


def test_the_launch_ends_even_if_a_second_sigint_arrives_during_the_shutdown(
    domain_id: int, started: list[subprocess.Popen], tmp_path: Path
):
    """A handler of the shutdown event sends the second signal. Launch calls the newest handler
    first. The signal therefore arrives before launch ends its processes and its ROS node."""
    path = tmp_path / 'interrupted.launch.py'
    path.write_text(INTERRUPTED_SHUTDOWN)
    started.append(run(DISTRIBUTIONS[0], 'ros2', 'launch', path))
    read_until(started[0], 'process started with pid [')
    started[0].send_signal(signal.SIGINT)
    log = started[0].communicate(timeout=TIMEOUT_S)[0]
    assert 'again, ignoring' in log
    assert 'Traceback' not in log


def test_sigint_raises_a_keyboard_interrupt_again_after_the_end_of_a_launch():
    before = signal.getsignal(signal.SIGINT)
    try:
        service = LaunchService(noninteractive=True)
        interrupt = OpaqueFunction(function=lambda context: signal.raise_signal(signal.SIGINT))
        service.include_launch_description(
            LaunchDescription([OpaqueFunction(function=leave_sigint_to_launch), interrupt])
        )
        assert service.run() == 0
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_launch_in_another_thread_does_not_change_the_handler_of_sigint():
    before = signal.getsignal(signal.SIGINT)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(leave_sigint_to_launch, LaunchContext()).result()
    assert signal.getsignal(signal.SIGINT) is before
