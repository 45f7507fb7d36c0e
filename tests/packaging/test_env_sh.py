"""Sources env.sh in new shells, and starts a program without the environment of env.sh."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.packaging.shell import DISTRIBUTIONS, ROOT, bash, fresh_environment, output

SOURCE = f'. {ROOT}/env.sh'
PATHS = (
    'printf "%s\\n" "$PATH" "$AMENT_PREFIX_PATH" "$PYTHONPATH" "$LD_LIBRARY_PATH" "$ROS_DISTRO"'
)


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_sourcing_env_sh_in_another_folder_provides_ros_2_and_the_package(distribution, tmp_path):
    script = (
        f'{SOURCE}; echo $ROS_DISTRO; ros2 pkg prefix bevdepth_ros; python -c "import rclpy, '
        'bevdepth_core, bevdepth_ros"'
    )
    distro, prefix = output(script, fresh_environment(distribution), tmp_path).split()
    assert (distro, prefix) == (distribution, f'{ROOT}/.venv/ament')


@pytest.mark.parametrize('distribution', DISTRIBUTIONS)
def test_sourcing_env_sh_again_changes_no_path(distribution):
    environment = fresh_environment(distribution)
    assert output(f'{SOURCE}; {PATHS}', environment) == output(
        f"{SOURCE}; bash -euc '{SOURCE}; {SOURCE}'; {PATHS}", environment
    )


def test_switching_the_ros_distribution_removes_all_paths_of_the_previous_distribution():
    first, last = fresh_environment(DISTRIBUTIONS[0]), fresh_environment(DISTRIBUTIONS[-1])
    script = f'{SOURCE}; BEVDEPTH_ROS_PREFIX={DISTRIBUTIONS[-1]}; {SOURCE}; {PATHS}'
    assert output(script, first) == output(f'{SOURCE}; {PATHS}', last)


def test_env_sh_keeps_a_pythonpath_that_the_user_set():
    environment = fresh_environment(DISTRIBUTIONS[0])
    environment['PYTHONPATH'] = f'{environment.get("PYTHONPATH", "")}:/own/python'
    assert output(f'{SOURCE}; {PATHS}', environment).splitlines()[2].endswith(':/own/python')


@pytest.mark.parametrize(
    'existing',
    [(), ('made_for',), ('made_for', 'ament.done')],
    ids=['nothing', 'an empty environment', 'a removed package'],
)
def test_an_interrupted_setup_is_reported_with_the_remedy(tmp_path, existing):
    for name in ('env.sh', 'tools/ros_mode.sh'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / '.venv').mkdir()
    for name in existing:
        (tmp_path / '.venv' / name).write_text(f'pip {tmp_path}\n')
    ended = bash(f'. {tmp_path}/env.sh', fresh_environment(DISTRIBUTIONS[0]), strict=False)
    assert ended.stderr == (
        f"env.sh: the set-up is not complete: run 'make setup' in {tmp_path}\n"
    )


def test_the_message_about_an_unknown_ros_distribution_lists_the_known_distributions():
    environment = {**fresh_environment(DISTRIBUTIONS[0]), 'BEVDEPTH_ROS_PREFIX': 'jazy'}
    ended = bash(SOURCE, environment, strict=False)
    assert "BEVDEPTH_ROS_PREFIX must be jazzy or humble, got 'jazy'" in ended.stderr


def test_a_virtual_environment_made_for_another_ros_is_rejected_with_the_remedy(tmp_path):
    (tmp_path / 'python3').write_text('#!/bin/sh\nexit 0\n')
    (tmp_path / 'python3').chmod(0o755)
    other = {
        **fresh_environment(DISTRIBUTIONS[0]),
        'PATH': f'{tmp_path}:/usr/bin:/bin',
        'ROS_DISTRO': 'rolling',
        'AMENT_PREFIX_PATH': '',
    }
    outcome = bash(SOURCE, other, strict=False)
    assert outcome.returncode == 1
    assert 'rolling' in outcome.stderr
    assert "run 'make setup'" in outcome.stderr


def test_in_a_shell_other_than_bash_and_zsh_env_sh_prints_the_remedy():
    outcome = subprocess.run(
        ['dash', '-c', f'. {ROOT}/env.sh || exit 7'], capture_output=True, text=True
    )
    assert outcome.returncode == 7
    assert 'start bash and run' in outcome.stderr and 'source env.fish' in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1


def test_without_env_sh_the_error_of_the_node_names_the_command_to_run():
    outcome = subprocess.run(
        [f'{ROOT}/.venv/bin/python', '-m', 'bevdepth_ros.detector'],
        cwd=ROOT,
        env={'PATH': '/usr/bin:/bin'},
        capture_output=True,
        text=True,
    )
    assert outcome.returncode == 1
    assert outcome.stderr.count('\n') == 1
    assert outcome.stderr.startswith(
        "bevdepth_ros needs rclpy, which this shell does not provide: run '. ./env.sh'"
    )
