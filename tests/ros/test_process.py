"""Tests how processes of this package start and end, also if ROS 2 cannot start."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from bevdepth_ros.process import NAME_FORMATS, split_arguments
from tests.ros.graph import TIMEOUT_S

PROGRAM = """
from bevdepth_ros.process import ros_process
with ros_process():
    print('started')
"""
SLOW_IMPORT = """
import sys, time


class Finder:
    def find_spec(self, name, *_):
        if name == 'bevdepth_ros.process':
            print('importing', flush=True)
            time.sleep(3600)


sys.meta_path.insert(0, Finder())
from bevdepth_ros import programs
programs.NAME()
"""

BUSY = """
import threading, time
from rclpy.node import Node
from std_msgs.msg import Empty
from bevdepth_ros.process import ros_process, spin_until_signal


def publish():
    while True:
        publisher.publish(Empty())
        time.sleep(0.0005)


with ros_process():
    node = Node('busy')
    publisher = node.create_publisher(Empty, '/flood', 100)
    node.create_subscription(Empty, '/flood', lambda message: time.sleep(0.005), 100)
    threading.Thread(target=publish, daemon=True).start()
    time.sleep(3.0)  # now so many messages wait that the executor is busy for seconds
    print('busy', flush=True)
    spin_until_signal(node)
print('ended')
"""
"""A program that receives messages faster than it can process them."""


def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, '-c', PROGRAM, *words],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def test_a_process_starts_if_the_node_name_and_the_namespace_are_valid(domain_id: int):
    outcome = run('--ros-args', '-r', '__node:=own', '-r', '__ns:=/robot')
    assert (outcome.returncode, outcome.stdout) == (0, 'started\n')


@pytest.mark.parametrize(
    ('words', 'remedy'),
    [
        (('-r', '__node:=1bad'), NAME_FORMATS['node']),
        (('-r', '__node:=a-b'), NAME_FORMATS['node']),
        (('-r', '__node:=a b'), NAME_FORMATS['node']),
        (('-r', '__ns:=bad'), NAME_FORMATS['ns']),
        (('-r', '__ns:=/catalog//x'), NAME_FORMATS['ns']),
        (('-r', 'a-b:=/c'), 'check the names and values after --ros-args'),
        (('--log-level', 'loud'), 'check the names and values after --ros-args'),
        (('--unknown',), 'check the names and values after --ros-args'),
    ],
)
def test_an_invalid_ros_argument_ends_the_process_with_a_message(
    domain_id: int, words: tuple[str, ...], remedy: str
):
    outcome = run('--ros-args', *words)
    assert outcome.returncode == 1
    assert 'ROS 2 does not start: ' in outcome.stderr and words[-1] in outcome.stderr
    assert outcome.stderr.endswith(f'{remedy}\n')
    assert 'Traceback' not in outcome.stderr and '.cpp' not in outcome.stderr.splitlines()[-1]


@pytest.mark.parametrize('variable', ['ROS_LOG_DIR', 'ROS_HOME', 'HOME'])
def test_a_log_folder_that_cannot_be_written_ends_the_process_with_a_message(
    domain_id: int, monkeypatch: pytest.MonkeyPatch, variable: str
):
    for name in ('ROS_LOG_DIR', 'ROS_HOME'):
        monkeypatch.delenv(name, raising=False)
    outcome = run(**{variable: '/proc/none'})
    assert outcome.returncode == 1
    assert outcome.stderr.endswith('; set ROS_LOG_DIR to a folder that can be written\n')
    assert 'Traceback' not in outcome.stderr


@pytest.mark.parametrize(('given', 'expected'), [(None, 'PASSIVE'), ('ACTIVE', 'ACTIVE')])
def test_openmp_threads_sleep_while_they_wait_unless_the_environment_sets_another_policy(
    given, expected
):
    environment = {name: value for name, value in os.environ.items() if name != 'OMP_WAIT_POLICY'}
    environment.update({} if given is None else {'OMP_WAIT_POLICY': given})
    program = 'import os, bevdepth_ros; print(os.environ["OMP_WAIT_POLICY"])'
    command = [sys.executable, '-c', program]
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert outcome.stdout == f'{expected}\n'


@pytest.mark.parametrize(
    ('words', 'own', 'ros'),
    [
        ('program --remap /a:=/b', 'program --remap /a:=/b', ''),
        ('program x --ros-args -r a:=b', 'program x', '--ros-args -r a:=b'),
        ('program --ros-args -p a:=1 -- x --', 'program x --', '--ros-args -p a:=1 --'),
        (
            'program --ros-args -p a:=1 -- x --ros-args -p b:=2',
            'program x',
            '--ros-args -p a:=1 -- --ros-args -p b:=2',
        ),
    ],
)
def test_arguments_of_the_program_are_separated_from_ros_arguments(words, own, ros):
    assert split_arguments(words.split()) == (own.split(), ros.split())


@pytest.mark.parametrize('name', ['player', 'recorder', 'visualizer', 'viewer'])
def test_a_signal_during_the_imports_of_a_program_ends_the_program_without_a_traceback(name: str):
    process = subprocess.Popen(
        [sys.executable, '-c', SLOW_IMPORT.replace('NAME', name)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == 'importing\n'
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=TIMEOUT_S) == ('', '')
    assert process.returncode == 0


def test_a_signal_ends_a_process_whose_executor_is_never_idle(domain_id: int):
    process = subprocess.Popen(
        [sys.executable, '-c', BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == 'busy\n'
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=TIMEOUT_S)[0] == 'ended\n'
