"""Builds the CUDA module with setup.py and a fake nvcc."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.shell import ROOT

COMPILES = 'for word; do last=$word; done; echo "$@" >>"$NVCC_CALLS"; echo module >"$last"'
FAILS = 'echo "unsupported host compiler" >&2; exit 1'


def add_command(folder: Path, name: str, body: str) -> None:
    """Add a shell script to the folder that is the PATH of ``build(folder, ...)``."""
    (folder / 'commands').mkdir(exist_ok=True)
    path = folder / 'commands' / name
    path.write_text(f'#!/bin/sh\n{body}\n')
    path.chmod(0o755)


def build(
    folder: Path, nvcc: str | None, **variables: str
) -> tuple[subprocess.CompletedProcess[str], list[Path], str]:
    """Run ``setup.py build_ext`` into ``folder``. Return the outcome, the modules that were built,
    and the arguments of all calls of nvcc, one call per line.

    ``nvcc`` is the text of a shell script that replaces nvcc; None means that nvcc is missing.
    ``variables`` are additional environment variables.
    """
    commands = folder / 'commands'
    commands.mkdir(exist_ok=True)
    if nvcc is not None:
        add_command(folder, 'nvcc', nvcc)
    calls = folder / 'calls'
    calls.touch()
    clean = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith('BEVDEPTH_') and name != 'CUDA_HOME'
    }
    environment = {**clean, 'PATH': str(commands), 'NVCC_CALLS': str(calls), **variables}
    command = [
        sys.executable,
        'setup.py',
        '-q',
        'build_ext',
        '--build-lib',
        str(folder / 'lib'),
        '--build-temp',
        str(folder / 'temp'),
    ]
    outcome = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    return outcome, list((folder / 'lib').rglob('*.so')), calls.read_text()


def test_if_there_is_no_gpu_one_nvcc_call_builds_a_portable_module_without_libtorch(tmp_path):
    outcome, modules, words = build(tmp_path, COMPILES)
    assert outcome.returncode == 0
    assert [str(path.relative_to(tmp_path / 'lib').parent) for path in modules] == [
        'bevdepth_core/ops'
    ]
    assert modules[0].name.startswith('_kernels.cpython-')
    assert [word for word in words.split() if word.startswith('-gencode')] == [
        *(f'-gencode=arch=compute_{arch},code=sm_{arch}' for arch in (75, 80, 90)),
        '-gencode=arch=compute_90,code=compute_90',
    ]
    assert 'compiling bevdepth_core.ops._kernels for GPU generations 75 80 90' in outcome.stderr
    assert words.count('\n') == 1
    assert 'torch' not in words.replace(str(ROOT), '')


def test_the_module_is_built_once_for_each_gpu_generation_of_the_machine(tmp_path):
    add_command(tmp_path, 'nvidia-smi', 'printf "9.0\\n8.6\\n9.0\\n"')
    _, _, words = build(tmp_path, COMPILES)
    assert [word for word in words.split() if word.startswith('-gencode')] == [
        '-gencode=arch=compute_86,code=sm_86',
        '-gencode=arch=compute_90,code=sm_90',
        '-gencode=arch=compute_90,code=compute_90',
    ]


@pytest.mark.parametrize('body', ['exit 9', 'echo "No devices were found"'])
def test_without_a_usable_gpu_the_module_is_built_for_the_default_generations(tmp_path, body):
    add_command(tmp_path, 'nvidia-smi', body)
    assert 'code=sm_75' in build(tmp_path, COMPILES)[2]


def test_bevdepth_cuda_archs_selects_the_gpu_generations(tmp_path):
    add_command(tmp_path, 'nvidia-smi', 'echo 8.6')
    _, _, words = build(tmp_path, COMPILES, BEVDEPTH_CUDA_ARCHS='90 120')
    assert [word for word in words.split() if word.startswith('-gencode')] == [
        '-gencode=arch=compute_90,code=sm_90',
        '-gencode=arch=compute_120,code=sm_120',
        '-gencode=arch=compute_120,code=compute_120',
    ]


def test_bevdepth_cuda_auto_skips_the_module_if_nvcc_is_missing(tmp_path):
    outcome, modules, _ = build(tmp_path, None)
    assert (outcome.returncode, modules) == (0, [])
    assert 'no CUDA module: nvcc is neither on PATH' in outcome.stderr


def test_bevdepth_cuda_auto_warns_and_continues_if_nvcc_fails(tmp_path):
    outcome, modules, _ = build(tmp_path, FAILS)
    assert (outcome.returncode, modules) == (0, [])
    assert 'bevdepth_core.ops._kernels was not built' in outcome.stderr + outcome.stdout


@pytest.mark.parametrize(
    ('nvcc', 'sentence'), [(None, 'BEVDEPTH_CUDA=1 needs nvcc'), (FAILS, 'was not built')]
)
def test_bevdepth_cuda_1_reports_a_missing_or_failing_nvcc_with_the_remedy(
    tmp_path, nvcc, sentence
):
    outcome, modules, _ = build(tmp_path, nvcc, BEVDEPTH_CUDA='1')
    assert outcome.returncode != 0
    assert modules == []
    assert sentence in outcome.stderr
    assert 'BEVDEPTH_CUDA=0' in outcome.stderr


def test_bevdepth_cuda_0_never_calls_nvcc(tmp_path):
    outcome, modules, words = build(tmp_path, COMPILES, BEVDEPTH_CUDA='0')
    assert (outcome.returncode, modules, words) == (0, [], '')


def test_cuda_home_is_used_if_nvcc_is_not_on_path(tmp_path):
    toolkit = tmp_path / 'toolkit' / 'bin'
    toolkit.mkdir(parents=True)
    (toolkit / 'nvcc').write_text(f'#!/bin/sh\n{COMPILES}\n')
    (toolkit / 'nvcc').chmod(0o755)
    outcome, modules, _ = build(tmp_path, None, BEVDEPTH_CUDA='1', CUDA_HOME=str(toolkit.parent))
    assert (outcome.returncode, len(modules)) == (0, 1)


def test_a_value_of_bevdepth_cuda_other_than_auto_0_and_1_is_rejected(tmp_path):
    outcome, _, _ = build(tmp_path, COMPILES, BEVDEPTH_CUDA='yes')
    assert outcome.returncode != 0
    assert "BEVDEPTH_CUDA must be auto, 1 or 0, got 'yes'" in outcome.stderr


def test_this_environment_contains_the_module_if_and_only_if_nvcc_exists():
    toolkit = os.environ.get('CUDA_HOME')
    nvcc = shutil.which('nvcc') or (
        shutil.which('nvcc', path=f'{toolkit}/bin') if toolkit else None
    )
    expected = os.environ.get('BEVDEPTH_CUDA') != '0' and nvcc is not None
    assert (importlib.util.find_spec('bevdepth_core.ops._kernels') is not None) == expected
