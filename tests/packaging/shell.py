"""Runs commands in new bash processes with the environment of a new terminal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bevdepth_ros.launching import domain_variables

ROOT = Path(__file__).parents[2]
ROS_MODE = (ROOT / '.venv/made_for').read_text().split()[0]
"""ROS 2 that `make setup` used: the name of the sourced distribution, or ``pip`` if set-up
installed ROS 2 with pip."""
PIP_ONLY = ROS_MODE == 'pip'
DISTRIBUTIONS = ['jazzy', 'humble'] if PIP_ONLY else [ROS_MODE]
"""ROS 2 distributions that this environment can run: both pip-only distributions, or the sourced
distribution."""

KEPT = (
    ('HOME', 'TMPDIR')
    if PIP_ONLY
    else tuple(name for name in os.environ if name not in ('VIRTUAL_ENV', 'PYTHONHOME'))
)
SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def fresh_environment(distribution: str) -> dict[str, str]:
    """Return the environment of a new terminal in the ROS domain of this process. If `make setup`
    used a sourced ROS 2, the returned environment contains the variables of this process, so that
    this ROS 2 is also sourced in the new terminal."""
    variables = {name: os.environ[name] for name in KEPT if name in os.environ}
    variables.setdefault('PATH', SYSTEM_PATH)
    return {
        **variables,
        'BEVDEPTH_ROS_PREFIX': distribution,
        **domain_variables(int(os.environ['ROS_DOMAIN_ID']), distribution),
    }


def bash(
    script: str, environment: dict[str, str], folder: Path | str = '/', strict: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run ``script`` and return its outcome. In ``strict`` mode, the script ends at the first
    command that fails or at the first unset variable."""
    options = ['-euo', 'pipefail'] if strict else []
    return subprocess.run(
        ['bash', *options, '-c', script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def output(script: str, environment: dict[str, str], folder: Path | str = '/') -> str:
    """Run ``script`` in strict mode and return its standard output.

    Raises:
        AssertionError: the script failed; the message contains everything that it printed.
    """
    outcome = bash(script, environment, folder)
    assert outcome.returncode == 0, f'{script}\n{outcome.stdout}\n{outcome.stderr}'
    return outcome.stdout
