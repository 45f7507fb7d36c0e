"""Runs ``ros2 launch`` of the detector as a child, in a ROS domain of its own."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PACKAGE, LAUNCH_FILE = 'bevdepth_ros', 'detect.launch.py'
DOMAINS = range(1, 101)
"""Domain ids whose ports Linux does not hand out to others."""
DISCOVERY_PORT, DOMAIN_PORTS = 7400, 250
LOG_LINES_SHOWN = 15


class LaunchError(Exception):
    """Nothing can be launched; the message says why."""


@contextmanager
def launched(arguments: list[str], log_path: Path) -> Iterator[subprocess.Popen]:
    """Run ``ros2 launch`` of the detector with its output in ``log_path``; whatever happens, it has ended afterwards.

    Raises:
        LaunchError: there is no ``ros2`` command.
    """
    command = shutil.which('ros2')
    if command is None:
        raise LaunchError('there is no ros2 command: use `make demo`, or source env.sh (or your ROS 2) first')
    with log_path.open('w') as log:
        process = subprocess.Popen([command, 'launch', PACKAGE, LAUNCH_FILE, *arguments], stdout=log, stderr=log, start_new_session=True)
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """Interrupt a launch and, if that does not help, kill it and its children."""
    for number, patience_s in ((signal.SIGINT, 15), (signal.SIGKILL, 5)):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(patience_s)
            except subprocess.TimeoutExpired:
                continue


def last_lines(log_path: Path) -> str:
    """Return the end of a launch's output, for people."""
    lines = log_path.read_text(errors='replace').splitlines()[-LOG_LINES_SHOWN:]
    return '\n'.join([f'the end of {log_path}:', *(f'  {line}' for line in lines)])


def isolate() -> None:
    """Keep this process and its children on this machine and in a ROS domain of their own."""
    os.environ['ROS_DOMAIN_ID'] = str(next(filter(_is_empty, np.random.default_rng().permutation(DOMAINS).tolist())))
    if os.environ.get('ROS_DISTRO') == 'humble':
        os.environ['ROS_LOCALHOST_ONLY'] = '1'
    else:
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'


def _is_empty(domain: int) -> bool:
    """Return whether nobody on this machine holds the discovery port of the domain's first participant."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(('127.0.0.1', DISCOVERY_PORT + DOMAIN_PORTS * domain + 10))
        except OSError:
            return False
    return True
