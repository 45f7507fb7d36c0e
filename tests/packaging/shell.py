"""Runs commands in new bash processes with the environment of a new terminal."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from bevdepth_ros.launching import domain_variables

ROOT = Path(__file__).parents[2]
ROS_MODE = (ROOT / '.venv/made_for').read_text().split()[0]
"""ROS 2 of `make setup`: the name of the sourced distribution, or pip."""
PIP_ONLY = ROS_MODE == 'pip'
DISTRIBUTIONS = ['jazzy', 'humble'] if PIP_ONLY else [ROS_MODE]
"""ROS 2 distributions that this environment can run: both of the pip-only ones, or the sourced
one."""

KEPT = (
    ('HOME', 'TMPDIR')
    if PIP_ONLY
    else tuple(name for name in os.environ if name not in ('VIRTUAL_ENV', 'PYTHONHOME'))
)
SYSTEM_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'


def fresh_environment(distribution: str) -> dict[str, str]:
    """Return the environment of a new terminal in the ROS domain of this process, with the sourced
    ROS 2, if any."""
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
    """Run ``script``, in ``strict`` mode ending at the first failing command and unset variable,
    and return its outcome."""
    options = ['-euo', 'pipefail'] if strict else []
    return subprocess.run(
        ['bash', *options, '-c', script],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
    )


def output(script: str, environment: dict[str, str], folder: Path | str = '/') -> str:
    """Run ``script`` strictly and return what it printed; raise an error with its error output
    if it fails.
    """
    outcome = bash(script, environment, folder)
    assert outcome.returncode == 0, f'{script}\n{outcome.stdout}\n{outcome.stderr}'
    return outcome.stdout
