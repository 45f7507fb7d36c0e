"""Starts programs and launch files in the environment that env.sh sets in a shell."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

from bevdepth_ros.launching import domain_variables
from tests.reference import ROOT
from tests.ros.graph import TIMEOUT_S

IS_PIP_ONLY = (
    subprocess.run(
        [ROOT / 'tools' / 'ros_mode.sh'], capture_output=True, text=True, check=True
    ).stdout.strip()
    == 'pip'
)
DISTRIBUTIONS = ['jazzy', 'humble'] if IS_PIP_ONLY else [os.environ['ROS_DISTRO']]
"""ROS distributions to test: Jazzy and Humble if ROS 2 was installed with pip, otherwise only the
distribution that is sourced."""
OUTPUT_TIMEOUT_S = 240.0


def run(distribution: str, *command: str | Path) -> subprocess.Popen[str]:
    """Start ``command`` in a shell that has sourced env.sh for ``distribution``."""
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


def launch(distribution: str, *arguments: str) -> subprocess.Popen[str]:
    return run(distribution, 'ros2', 'launch', 'bevdepth_ros', 'detect.launch.py', *arguments)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    """Return the output of ``process`` up to and including the first line with ``words``.

    The function fails if the process ends before it prints this line. The process group is killed
    if the line has not been printed after ``OUTPUT_TIMEOUT_S`` seconds.
    """
    output = ''
    timer = threading.Timer(OUTPUT_TIMEOUT_S, os.killpg, (process.pid, signal.SIGKILL))
    timer.start()
    try:
        while words not in output:
            line = process.stdout.readline()
            assert line, f'{words!r} is not in the output: {output}'
            output += line
    finally:
        timer.cancel()
    return output


def assert_group_ends(group: int) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    os.killpg(group, signal.SIGKILL)
    raise AssertionError('a process of the launch is still running')
