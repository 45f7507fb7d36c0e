"""Runs ``ros2 launch`` as a user types it. In the pip-only ROS 2, this project implements this
command."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from bevdepth_core.synthetic import make_scene
from bevdepth_ros.demo import render_drive, write_bag
from tests.networks import write_tiny_checkpoint
from tests.packaging.shell import DISTRIBUTIONS, ROOT, bash, fresh_environment, output

TIMEOUT_S = 120.0
NODE_ARGUMENTS = [
    'params_file', 'checkpoint', 'device', 'precision', 'bag', 'rate', 'loop', 'rviz',
    'use_sim_time', 'namespace', 'camera_preset',
    'autostart',
]  # fmt: skip
LAUNCH_FILE = """
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration


def generate_launch_description():
    return LaunchDescription([
        DeclareLaunchArgument('word', description='The word to print.', default_value='hello'),
        DeclareLaunchArgument('seconds', description='How long.'),
        ExecuteProcess(cmd=['echo', 'word:', LaunchConfiguration('word')], output='screen'),
        ExecuteProcess(cmd=['sleep', LaunchConfiguration('seconds')], output='screen'),
    ])
"""


@pytest.fixture
def launch_file(tmp_path: Path) -> Path:
    path = tmp_path / 'echo.launch.py'
    path.write_text(LAUNCH_FILE)
    return path


@pytest.fixture(params=DISTRIBUTIONS)
def environment(request, tmp_path) -> dict[str, str]:
    return {**fresh_environment(request.param), 'ROS_LOG_DIR': str(tmp_path / 'log')}


def ros2(words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return bash(f'. {ROOT}/env.sh; ros2 {words}', environment)


def test_show_args_lists_all_arguments_of_the_launch_file(environment):
    text = ros2('launch bevdepth_ros detect.launch.py --show-args', environment).stdout
    assert [name for name in NODE_ARGUMENTS if f"'{name}':" not in text] == []


def test_a_launch_file_given_by_path_runs_with_its_arguments_and_returns_zero(
    launch_file, environment
):
    outcome = ros2(f'launch {launch_file} word:=a:=b seconds:=0', environment)
    assert outcome.returncode == 0
    assert 'word: a:=b' in outcome.stdout


def test_show_args_prints_defaults_and_descriptions_and_starts_no_process(
    launch_file, environment
):
    text = ros2(f'launch {launch_file} --show-args', environment).stdout
    for part in ("'word':", 'The word to print.', "default: 'hello'", "'seconds':", 'How long.'):
        assert part in text
    assert 'word: hello' not in text


@pytest.mark.parametrize(
    ('words', 'named'),
    [
        ('no_such_package x.launch.py', 'no_such_package'),
        ('bevdepth_ros no_such.launch.py', 'no_such.launch.py'),
        ('bevdepth_ros detect.launch.py device=cpu', 'device=cpu'),
        ('{launch_file} word:=x', 'seconds'),
    ],
)
def test_an_invalid_command_line_fails_with_the_reason(words, named, launch_file, environment):
    outcome = ros2(f'launch {words.format(launch_file=launch_file)}', environment)
    assert outcome.returncode != 0
    assert named in outcome.stderr + outcome.stdout
    assert 'Traceback' not in outcome.stderr


def test_a_log_folder_that_cannot_be_written_is_reported_with_the_remedy(launch_file, environment):
    outcome = ros2(
        f'launch {launch_file} seconds:=0', {**environment, 'ROS_LOG_DIR': '/dev/null/x'}
    )
    assert outcome.returncode == 1
    assert '/dev/null/x' in outcome.stderr
    assert outcome.stderr.endswith('; set ROS_LOG_DIR to a folder that can be written\n')
    assert 'Traceback' not in outcome.stderr


def test_a_replay_returns_0_at_the_end_of_the_bag_and_1_if_the_checkpoint_is_missing(
    environment, tmp_path
):
    bag, size = tmp_path / 'bag', (400, 225)
    write_bag(render_drive(make_scene(8, 1.0), 1.0, size), bag, size)
    weights = write_tiny_checkpoint(tmp_path / 'tiny.safetensors')
    replay = f'launch bevdepth_ros detect.launch.py bag:={bag} device:=cpu checkpoint:='
    complete = ros2(f'{replay}{weights}', environment)
    assert complete.returncode == 0, complete.stdout
    assert 'image sets: 2 received' in complete.stdout
    failed = ros2(f'{replay}/nowhere/weights.pth', environment)
    assert failed.returncode == 1, failed.stdout
    assert '/nowhere/weights.pth: no such checkpoint file' in failed.stdout


def test_ctrl_c_ends_the_launch_and_its_processes(launch_file, environment):
    variables = dict(
        line.split('=', 1)
        for line in output(f'. {ROOT}/env.sh; env', environment).splitlines()
        if '=' in line
    )
    command = [f'{ROOT}/.venv/bin/ros2', 'launch', str(launch_file), 'seconds:=86399']
    pipes = {'stdin': subprocess.DEVNULL, 'stdout': subprocess.PIPE, 'stderr': subprocess.STDOUT}
    launch = subprocess.Popen(command, env=variables, text=True, **pipes)
    printed = ''
    while 'word: hello' not in printed or not (
        started := re.search(r'\[sleep-\d+\]: process started with pid \[(\d+)\]', printed)
    ):
        printed += launch.stdout.readline()
    child = Path('/proc', started[1])
    assert child.exists()
    launch.send_signal(signal.SIGINT)
    launch.communicate(timeout=TIMEOUT_S)
    assert not child.exists()
