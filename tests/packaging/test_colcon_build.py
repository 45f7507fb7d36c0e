"""Runs ``colcon build`` in a clean clone, and ros2 commands with the installed package."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tests.packaging.shell import DISTRIBUTIONS, ROOT, fresh_environment, output

TIMEOUT_S = 120.0
PACKAGES = ('bevdepth_core', 'bevdepth_ros')
"""Python packages of this repository."""


@pytest.fixture(scope='module')
def install(clean_clone: Path) -> Path:
    """Return the install folder of a colcon build without the CUDA module."""
    output(
        f'. {ROOT}/env.sh; BEVDEPTH_CUDA=0 colcon build',
        fresh_environment(DISTRIBUTIONS[0]),
        clean_clone,
    )
    return clean_clone / 'install'


def in_overlay(command: str, install: Path, distribution: str = DISTRIBUTIONS[0]) -> str:
    """Run ``command`` in a new shell after sourcing ``local_setup.bash`` of the build, and return
    what the command printed."""
    sourced = f'. {ROOT}/env.sh; set +u; . {install}/local_setup.bash; set -u'
    return output(f'{sourced}; {command}', fresh_environment(distribution))


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_ros2_pkg_and_launch_find_the_package_in_the_build(install, distribution):
    assert in_overlay('ros2 pkg prefix bevdepth_ros', install, distribution).strip() == str(
        install / 'bevdepth_ros'
    )
    assert {'detector', 'player', 'demo'} <= set(
        in_overlay('ros2 pkg executables bevdepth_ros', install, distribution).split()
    )
    assert "'checkpoint':" in in_overlay(
        'ros2 launch bevdepth_ros detect.launch.py --show-args', install, distribution
    )


def test_ros2_run_starts_the_node_of_the_build_and_ctrl_c_ends_it(install):
    sourced = f'. {ROOT}/env.sh; . {install}/local_setup.bash'
    environment = fresh_environment(DISTRIBUTIONS[0])
    command = ['bash', '-c', f'{sourced}; exec ros2 run bevdepth_ros detector']
    node = subprocess.Popen(
        command,
        env=environment,
        cwd='/',
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while '/bevdepth_detector' not in (
            seen := in_overlay('ros2 node list --no-daemon', install)
        ):
            assert node.poll() is None, node.stdout.read()
            assert time.monotonic() < deadline, seen
        children = subprocess.run(
            ['pgrep', '--parent', str(node.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        program = Path(f'/proc/{children[0]}/cmdline').read_text().split('\0')[1]
        subprocess.run(['kill', '-INT', *children], check=True)
        printed, _ = node.communicate(timeout=TIMEOUT_S)
    finally:
        node.kill()
    assert program == str(install / 'bevdepth_ros/lib/bevdepth_ros/detector')
    assert node.returncode == 0, printed


def test_installed_scripts_run_with_the_python_of_the_virtual_environment(install):
    first_line = (install / 'bevdepth_ros/lib/bevdepth_ros/detector').read_text().splitlines()[0]
    assert first_line in (f'#!{ROOT}/.venv/bin/python', f'#!{ROOT}/.venv/bin/python3')


def files(folder: Path, pattern: str = '*') -> set[Path]:
    """Return the paths of the files under ``folder``, relative to ``folder``; omit byte code."""
    return {
        path.relative_to(folder)
        for path in folder.rglob(pattern)
        if path.is_file() and '__pycache__' not in path.parts
    }


def test_every_module_is_installed_and_the_packages_are_imported_from_the_build(install):
    [site_packages] = (install / 'bevdepth_ros').glob('lib/python3.*/site-packages')
    for package in PACKAGES:
        assert files(site_packages / package, '*.py') == files(ROOT / package, '*.py')
        where = in_overlay(f'python -c "import {package}; print({package}.__file__)"', install)
        assert where.strip() == str(site_packages / package / '__init__.py')


def test_launch_files_config_and_index_marker_are_installed(install):
    share = install / 'bevdepth_ros/share'
    assert (share / 'ament_index/resource_index/packages/bevdepth_ros').is_file()
    assert (share / 'bevdepth_ros/package.xml').is_file()
    for folder in ('launch', 'config'):
        assert files(share / 'bevdepth_ros' / folder) == files(ROOT / folder)
