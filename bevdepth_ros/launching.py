"""Runs ``ros2 launch`` of the detector as a child process, and finds unused ROS domains."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PACKAGE, LAUNCH_FILE = 'bevdepth_ros', 'detect.launch.py'
DOMAINS = range(1, 101)
"""Ids of ROS domains whose ports are below Linux's range of ephemeral ports. Linux may give a port
of that range to any program."""
DISCOVERY_PORT, DOMAIN_PORTS = 7400, 250
"""Discovery port of DDS for domain 0, and number of ports between the discovery ports of two
successive domains."""
PARTICIPANT_PORTS = range(10, 10 + 2 * 32, 2)
"""Ports of the first 32 participants of a domain, relative to the discovery port of the domain."""
LOG_LINES_SHOWN = 15

_leases: list[socket.socket] = []
"""Sockets that reserve ROS domains for this process until it ends."""


class LaunchError(Exception):
    """The launch is not possible; the message gives the reason."""


@contextmanager
def launched(arguments: list[str], log_path: Path) -> Iterator[subprocess.Popen]:
    """Run ``ros2 launch`` of the detector and write its output to ``log_path``.

    The launch ends when the context ends, also after an exception.

    Raises:
        LaunchError: there is no ``ros2`` command.
    """
    command = shutil.which('ros2')
    if command is None:
        raise LaunchError(
            'the command ros2 was not found: use `make demo`, or first source env.sh or the setup '
            'file of your ROS 2'
        )
    with log_path.open('w') as log:
        process = subprocess.Popen(
            [command, 'launch', PACKAGE, LAUNCH_FILE, *arguments],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """Interrupt a launch. If the launch does not end, kill it and its children."""
    for number, timeout_s in ((signal.SIGINT, 15), (signal.SIGKILL, 5)):
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                continue


def last_lines(log_path: Path) -> str:
    """Return the last lines of a launch's output, for an error message."""
    lines = log_path.read_text(errors='replace').splitlines()[-LOG_LINES_SHOWN:]
    return '\n'.join([f'the end of {log_path}:', *(f'  {line}' for line in lines)])


def isolate() -> None:
    """Set environment variables so that this process and its children use an unused ROS domain and
    communicate only on this machine.

    Raises:
        LaunchError: no domain is unused.
    """
    domain, lease = free_domain()
    _leases.append(lease)
    os.environ.update(domain_variables(domain))


def domain_variables(domain: int, distribution: str | None = None) -> dict[str, str]:
    """Return environment variables that restrict a process to ``domain`` and to this machine.

    Args:
        domain: id of the ROS domain.
        distribution: name of the ROS 2 distribution; if None, the environment variable
            ``ROS_DISTRO`` gives the name.
    """
    is_humble = (distribution or os.environ.get('ROS_DISTRO')) == 'humble'
    localhost = (
        {'ROS_LOCALHOST_ONLY': '1'}
        if is_humble
        else {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    )
    return {'ROS_DOMAIN_ID': str(domain), **localhost}


def free_domain(candidates: Sequence[int] = DOMAINS) -> tuple[int, socket.socket]:
    """Return the id of a ROS domain that no process on this machine uses, and a lease.

    The lease is a socket. No other call on this machine returns this domain until the socket is
    closed.

    Raises:
        LaunchError: all ``candidates`` are in use.
    """
    for domain in np.random.default_rng().permutation(candidates).tolist():
        lease = _lease(domain)
        if lease is not None:
            return domain, lease
    raise LaunchError(
        f'all ROS domains from {min(candidates)} to {max(candidates)} are in use on this machine: '
        'end other ROS processes'
    )


def _lease(domain: int) -> socket.socket | None:
    """Reserve ``domain`` by binding an abstract Unix socket, and return this socket. Return None
    if the domain is already reserved, or if a participant uses a port of the domain.
    """
    lease = socket.socket(socket.AF_UNIX)
    try:
        lease.bind(f'\0bevdepth ROS domain {domain}')
        for offset in (0, *PARTICIPANT_PORTS):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
                probe.bind(('', DISCOVERY_PORT + DOMAIN_PORTS * domain + offset))
    except OSError:
        lease.close()
        return None
    return lease
