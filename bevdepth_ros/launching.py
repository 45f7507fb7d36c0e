"""Runs ``ros2 launch`` of the detector as a child, and finds ROS domains that nobody else is
in.
"""

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
"""Domain ids whose ports Linux does not hand out to others."""
DISCOVERY_PORT, DOMAIN_PORTS = 7400, 250
PARTICIPANT_PORTS = range(10, 10 + 2 * 32, 2)
"""Of a domain's first 32 participants, after its discovery port."""
LOG_LINES_SHOWN = 15

_leases: list[socket.socket] = []
"""Of domains, held to the end of the process."""


class LaunchError(Exception):
    """Nothing can be launched; the message says why."""


@contextmanager
def launched(arguments: list[str], log_path: Path) -> Iterator[subprocess.Popen]:
    """Run ``ros2 launch`` of the detector with its output in ``log_path``; whatever happens, it
    has ended afterwards.

    Raises:
        LaunchError: there is no ``ros2`` command.
    """
    command = shutil.which('ros2')
    if command is None:
        raise LaunchError(
            'there is no ros2 command: use `make demo`, or source env.sh (or your ROS 2) first'
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
    """Keep this process and its children on this machine and in a ROS domain of their own, to its
    end.

    Raises:
        LaunchError: others hold all domains.
    """
    domain, lease = free_domain()
    _leases.append(lease)
    os.environ.update(domain_variables(domain))


def domain_variables(domain: int, distribution: str | None = None) -> dict[str, str]:
    """Return the environment of a process in ``domain`` that talks to nobody beyond this machine.

    Args:
        domain: its id.
        distribution: of ROS 2, None for the present one.
    """
    is_humble = (distribution or os.environ.get('ROS_DISTRO')) == 'humble'
    localhost = (
        {'ROS_LOCALHOST_ONLY': '1'}
        if is_humble
        else {'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'}
    )
    return {'ROS_DOMAIN_ID': str(domain), **localhost}


def free_domain(candidates: Sequence[int] = DOMAINS) -> tuple[int, socket.socket]:
    """Return a ROS domain that nobody on this machine is in, and its lease: until that is closed,
    no other call returns it.

    Raises:
        LaunchError: there is none among ``candidates``.
    """
    for domain in np.random.default_rng().permutation(candidates).tolist():
        lease = _lease(domain)
        if lease is not None:
            return domain, lease
    raise LaunchError(
        f'no ROS domain of {min(candidates)} to {max(candidates)} is free on this machine: end '
        'other ROS processes'
    )


def _lease(domain: int) -> socket.socket | None:
    """Return a name of the kernel's that one process holds at a time; None where it is held, or
    participants are in the domain.
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
