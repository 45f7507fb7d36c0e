"""Tests how ``make setup`` selects Python and ROS 2, and which messages it prints."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.packaging.shell import ROOT, bash


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment variables of a machine with a few basic commands and no Python."""
    commands = tmp_path / 'bin'
    commands.mkdir()
    for name in ('bash', 'cat', 'dirname', 'rm', 'sed', 'tail'):
        (commands / name).symlink_to(shutil.which(name))
    return {'PATH': str(commands), 'HOME': str(tmp_path)}


def add_python(machine: dict[str, str], name: str, body: str) -> None:
    """Add an executable ``name`` to the folder that is the PATH of the machine."""
    path = Path(machine['PATH']) / name
    path.write_text(f'#!{machine["PATH"]}/bash\n{body}\n')
    path.chmod(0o755)


def test_setup_without_python_reports_what_to_install(bare_machine, clean_clone):
    outcome = bash('tools/make_venv.sh pip', bare_machine, clean_clone)
    assert outcome.returncode != 0
    assert 'no Python 3.12 found' in outcome.stderr
    assert 'pyenv install 3.12' in outcome.stderr
    assert 'PYTHON=' in outcome.stderr


def test_a_python_version_without_a_lock_file_is_rejected_and_supported_versions_are_listed(
    bare_machine, clean_clone
):
    add_python(bare_machine, 'python3', 'echo 3.14')
    outcome = bash('tools/make_venv.sh rolling', bare_machine, clean_clone)
    assert outcome.returncode != 0
    assert 'Python 3.14; supported are 3.12' in outcome.stderr
    assert not (clean_clone / '.venv').exists()


def test_the_python_that_the_user_sets_is_reported_if_it_cannot_be_run(bare_machine, clean_clone):
    outcome = bash(
        'tools/make_venv.sh pip', {**bare_machine, 'PYTHON': '/no/such/python'}, clean_clone
    )
    assert outcome.returncode != 0
    assert "cannot run '/no/such/python'" in outcome.stderr


def test_the_message_about_a_python_without_venv_names_the_package_to_install(
    bare_machine, clean_clone
):
    add_python(
        bare_machine,
        'python3.12',
        '[[ $2 == *ensurepip* ]] && exit 1; [[ $2 == *print* ]] && echo 3.12; exit 0',
    )
    outcome = bash('tools/make_venv.sh pip', bare_machine, clean_clone)
    assert outcome.returncode != 0
    assert 'install python3.12-venv' in outcome.stderr


def test_an_interrupted_setup_prints_in_one_line_how_to_continue(tmp_path: Path, clean_clone):
    python = tmp_path / 'python'
    python.write_text("""#!/bin/bash
        case "$*" in
            *print*) echo 3.12 ;;
            *'-m venv'*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
            *'pip install'*) touch .venv/begun && exec sleep 60 ;;
        esac
    """)
    python.chmod(0o755)
    setup = subprocess.Popen(
        ['tools/make_venv.sh', 'pip'],
        cwd=clean_clone,
        env={'PATH': '/usr/bin:/bin', 'HOME': str(tmp_path), 'PYTHON': str(python)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not (clean_clone / '.venv' / 'begun').exists():
        assert setup.poll() is None
        time.sleep(0.05)
    os.killpg(setup.pid, signal.SIGINT)  # as Ctrl-C in a terminal does
    _, errors = setup.communicate()
    shutil.rmtree(clean_clone / '.venv')
    assert (setup.returncode, errors) == (130, 'setup: interrupted: run make setup again\n')


@pytest.mark.parametrize(
    ('variables', 'rclpy', 'mode'),
    [
        ({}, True, 'pip'),
        ({'ROS_DISTRO': 'humble', 'AMENT_PREFIX_PATH': '/opt/ros/humble'}, True, 'humble'),
        ({'ROS_DISTRO': 'humble', 'AMENT_PREFIX_PATH': '/opt/ros/humble'}, False, 'pip'),
        (
            {
                'ROS_DISTRO': 'jazzy',
                'AMENT_PREFIX_PATH': '/w/install:/x/isaacsim/exts/isaacsim.ros2.core/jazzy',
            },
            True,
            'pip',
        ),
    ],
    ids=['nothing sourced', 'sourced', 'sourced for another Python', 'our own env.sh sourced'],
)
def test_ros_mode_is_the_sourced_ros_2_if_python_can_import_it(
    bare_machine, variables, rclpy, mode
):
    add_python(bare_machine, 'python3', f'exit {int(not rclpy)}')
    outcome = bash(f'bash {ROOT}/tools/ros_mode.sh', {**bare_machine, **variables})
    assert outcome.stdout.strip() == mode


def test_setup_shows_the_size_of_downloads_while_pip_prints_nothing(tmp_path: Path):
    (tmp_path / '.venv' / 'tmp').mkdir(parents=True)
    (tmp_path / '.venv' / 'tmp' / 'torch.whl').write_bytes(bytes(3 << 20))
    script = f"""
        functions='/^show_progress() {{/,/^}}/p; /^show_size() {{/,/^}}/p'
        eval "$(sed -n "$functions" {ROOT}/tools/make_venv.sh)"
        QUIET_S=1 TMPDIR=.venv/tmp
        {{
            echo 'Downloading a.whl (530.7 MB)'; sleep 1.5
            echo 'Installing collected packages: a'; sleep 1.5
        }} | show_progress 1
    """
    lines = bash(script, {'PATH': '/usr/bin:/bin'}, tmp_path).stdout.splitlines()
    sizes = [line.removeprefix('setup:     ') for line in lines]
    assert sizes[0] == 'downloading a.whl (530.7 MB)'
    assert sizes[1].startswith('downloaded 4 of') or sizes[1].startswith('downloaded 3 of')
    assert sizes[2] == 'unpacking'
    assert sizes[3].startswith('unpacked 1 of') or sizes[3].startswith('unpacked 0 of')
