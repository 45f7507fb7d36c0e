"""A program prints the set-up commands if the Python packages of the project are not installed."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.reference import ROOT

PROGRAMS = [
    *(('-m', f'bevdepth_core.{name}') for name in ('checkpoint', 'export', 'training.train')),
    *(('-m', f'bevdepth_ros.{name}') for name in ('demo', 'detector', 'bags.player')),
    *((f'training/{path.name}',) for path in sorted((ROOT / 'training').glob('*.py'))),
]


@pytest.mark.parametrize('program', PROGRAMS, ids=' '.join)
def test_a_program_without_its_packages_prints_one_line_that_names_make_setup(
    program: tuple[str, ...],
):
    """The Python option -S excludes installed packages; -E excludes packages in PYTHONPATH."""
    outcome = subprocess.run(
        [sys.executable, '-S', '-E', *program, '--help'], cwd=ROOT, capture_output=True, text=True
    )
    assert outcome.returncode == 1
    [line] = outcome.stderr.splitlines()
    assert 'make setup' in line and '. ./env.sh' in line
    assert outcome.stdout == ''


def test_an_import_without_the_packages_raises_module_not_found_error_and_does_not_exit():
    code = 'try: import bevdepth_ros\nexcept ModuleNotFoundError as error: print(error.name)'
    outcome = subprocess.run(
        [sys.executable, '-S', '-E', '-c', code], cwd=ROOT, capture_output=True, text=True
    )
    assert (outcome.stdout, outcome.stderr) == ('rclpy\n', '')
