"""Compares the lock files with the requirement files (.in) and with the installed packages."""

from __future__ import annotations

import importlib.metadata
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.packaging.shell import PIP_ONLY, ROOT

DIRECT = ['node.in', 'training.in', 'export.in', 'development.in']
LOCKS = ['python3.10.txt', 'python3.12.txt']


def read(name: str) -> dict[str, Requirement]:
    """Return the requirements in the file ``requirements/<name>``, by name of the package."""
    lines = [
        line.split('#')[0].strip()
        for line in (ROOT / 'requirements' / name).read_text().splitlines()
    ]
    requirements = [Requirement(line) for line in lines if line]
    return {canonicalize_name(requirement.name): requirement for requirement in requirements}


def test_node_in_allows_numpy_1_26_and_numpy_2_and_contains_no_training_packages():
    node = read('node.in')
    assert node['numpy'].specifier.contains('1.26.4')
    assert node['numpy'].specifier.contains('2.2.6')
    assert not {'nuscenes-devkit', 'lightning', 'tensorboard'} & set(node)


@pytest.mark.parametrize('lock', LOCKS)
def test_a_lock_pins_every_direct_requirement_within_its_limits(lock):
    pins = {name: str(pin.specifier).removeprefix('==') for name, pin in read(lock).items()}
    broken = [
        str(requirement)
        for source in DIRECT
        for name, requirement in read(source).items()
        if not requirement.specifier.contains(pins.get(name, 'missing'))
    ]
    assert broken == []


@pytest.mark.parametrize('lock', [*LOCKS, 'pip_ros.txt'])
def test_every_line_of_a_lock_pins_one_version(lock):
    assert [
        str(pin)
        for pin in read(lock).values()
        if [part.operator for part in pin.specifier] != ['==']
    ] == []


def test_the_installed_packages_have_the_versions_of_the_lock_file():
    pins = read('python{}.{}.txt'.format(*sys.version_info)) | (
        read('pip_ros.txt') if PIP_ONLY else {}
    )
    assert {name: importlib.metadata.version(name) for name in pins} == {
        name: str(pin.specifier).removeprefix('==') for name, pin in pins.items()
    }
