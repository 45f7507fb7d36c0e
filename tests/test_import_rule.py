"""Tests that every module imports only what the table of allowed imports permits.

docs/ARCHITECTURE.md contains the same table.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.imports import ROOT, imported_names, is_ros, module_name

CORE, ROS = 'bevdepth_core', 'bevdepth_ros'
COMPILED = f'{CORE}.ops._kernels'
COMPILED_USER = f'{CORE}.ops.compiled'
BASE = ('geometry', 'files', 'config', 'types')

CORE_PARTS = {
    'geometry': (),
    'files': (),
    'config': (),
    'types': ('geometry',),
    'weights': (),
    'ops': (),
    'model': (*BASE, 'ops'),
    'preprocess': BASE,
    'scale_nms': BASE,
    'decode': (*BASE, 'ops', 'scale_nms'),
    'jpeg': BASE,
    'page_locked': (),
    'uncertainty': BASE,
    'tracking': (*BASE, 'uncertainty'),
    'visualization': (*BASE, 'preprocess'),
    'official_layout': (*BASE, 'model'),
    'checkpoint': (*BASE, 'model', 'official_layout', 'weights'),
    'http_file': (),
    'downloads': (*BASE, 'weights', 'checkpoint', 'http_file'),
    'engine': (*BASE, 'ops', 'model', 'preprocess', 'decode', 'page_locked'),
    'inference': (
        *BASE,
        'ops',
        'model',
        'preprocess',
        'decode',
        'checkpoint',
        'engine',
        'uncertainty',
    ),
    'nuscenes': (*BASE, 'preprocess', 'uncertainty', 'tracking'),
    'export': (
        *BASE,
        'ops',
        'model',
        'preprocess',
        'decode',
        'checkpoint',
        'engine',
        'inference',
        'nuscenes',
    ),
    'synthetic': (*BASE, 'nuscenes'),
    'training': (
        *BASE,
        'model',
        'preprocess',
        'decode',
        'checkpoint',
        'inference',
        'uncertainty',
        'tracking',
        'nuscenes',
    ),
}
"""For each part of bevdepth_core, the other parts of bevdepth_core that it may import. A part may
import only parts that are listed above it. No part imports ROS."""

ROS_PARTS = {
    'signals': (),
    'process': ('signals',),
    'programs': ('signals',),
    'rig': (),
    'detections': ('rig',),
    'detector': ('rig', 'detections', 'signals', 'process'),
    'bags': ('rig', 'signals', 'process'),
    'launching': ('signals', 'process'),
    'bring_up': ('rig', 'bags', 'launching', 'signals', 'process'),
    'rendering': ('rig', 'detections', 'bags', 'bring_up', 'signals', 'process'),
    'viewer': ('rig', 'detections', 'rendering', 'signals', 'process'),
    'closed_loop': ('rig', 'detections', 'bags', 'launching', 'signals', 'process'),
    'demo': ('rig', 'detections', 'bags', 'launching', 'signals', 'process'),
}
"""For each part of bevdepth_ros, the other parts of bevdepth_ros that it may import. A part may
import only parts that are listed above it."""

PUBLIC_CORE = (
    *BASE, 'weights', 'preprocess', 'decode', 'checkpoint', 'inference', 'jpeg', 'page_locked',
    'visualization',
    'tracking', 'uncertainty',
)  # fmt: skip

CORE_FOR_ROS = {
    **dict.fromkeys(ROS_PARTS, PUBLIC_CORE),
    'bags': (*PUBLIC_CORE, 'nuscenes'),
    'closed_loop': (*PUBLIC_CORE, 'nuscenes'),
    'demo': (*PUBLIC_CORE, 'synthetic'),
}
"""For each part of bevdepth_ros, the parts of bevdepth_core that it may import."""


def part(name: str, package: str) -> str | None:
    """Return the part of ``package`` to which the dotted ``name`` belongs.

    The result is '' for the package itself, and None for a name that is not in the package.
    """
    if name == package:
        return ''
    return name.split('.')[1] if name.startswith(f'{package}.') else None


def allowed_outside(name: str, part_name: str) -> bool:
    """Return True if the base part ``part_name`` may import ``name``, which is not in the core."""
    yaml_too = {'yaml', 'jsonargparse'} if part_name == 'config' else set()
    return name.split('.')[0] in {'numpy', 'torch'} | yaml_too | sys.stdlib_module_names


def allowed_in_core(name: str, module: str) -> bool:
    part_name, other = part(module, CORE), part(name, CORE)
    if is_ros(name) or name.split('.')[0] in (ROS, 'training'):
        return False
    if name.startswith(COMPILED):
        return module == COMPILED_USER
    if other is None:
        return part_name not in BASE or allowed_outside(name, part_name)
    return other in ('', part_name) or part_name == '' or other in CORE_PARTS[part_name]


def allowed_in_ros(name: str, module: str) -> bool:
    part_name, core, ros = part(module, ROS), part(name, CORE), part(name, ROS)
    if name.split('.')[0] == 'training':
        return False
    if core:
        is_private = any(word.startswith('_') for word in name.split('.'))
        return core in CORE_FOR_ROS[part_name] and not is_private
    return not ros or ros == part_name or ros in ROS_PARTS[part_name]


def allowed_in_programs(name: str) -> bool:
    """Return True if a program in training/ may import ``name``.

    ROS, bevdepth_ros and the compiled kernels are forbidden.
    """
    return not is_ros(name) and name.split('.')[0] != ROS and not name.startswith(COMPILED)


def violations(source: str, path: Path) -> list[str]:
    """Return the forbidden imports in ``source``, which is the content of the file ``path``."""
    module = module_name(path)
    names = imported_names(source, path)
    if part(module, CORE) is not None:
        return sorted(name for name in names if not allowed_in_core(name, module))
    if part(module, ROS) is not None:
        return sorted(name for name in names if not allowed_in_ros(name, module))
    return sorted(name for name in names if not allowed_in_programs(name))


def imported_test_modules(source: str, path: Path) -> list[str]:
    """Return the test modules that ``source`` imports; modules in tests/ must not import them."""
    return sorted(
        name
        for name in imported_names(source, path)
        if name.startswith('tests.') and '.test_' in name
    )


def documented_table() -> str:
    """Return the table that docs/ARCHITECTURE.md must contain, as Markdown."""
    rows = [(f'core.{part_name}', others) for part_name, others in CORE_PARTS.items()]
    for part_name, others in ROS_PARTS.items():
        extra = CORE_FOR_ROS[part_name][len(PUBLIC_CORE) :]
        rows.append((f'ros.{part_name}', (*others, *(f'core.{name}' for name in extra))))
    lines = [f'| {name} | {", ".join(others) or "none"} |' for name, others in rows]
    return '\n'.join(['| part | may import |', '| --- | --- |', *lines])


@pytest.mark.parametrize('folder', [CORE, ROS, 'training'])
def test_every_module_imports_only_what_its_row_allows(folder: str) -> None:
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob('*.py'))]
    assert paths
    broken = {
        str(path): names
        for path in paths
        if (names := violations((ROOT / path).read_text(), path))
    }
    assert broken == {}


def test_no_module_in_tests_imports_a_test_module() -> None:
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / 'tests').rglob('*.py'))]
    broken = {
        str(path): names
        for path in paths
        if (names := imported_test_modules((ROOT / path).read_text(), path))
    }
    assert broken == {}


def test_each_part_may_import_only_parts_of_earlier_rows_so_import_cycles_are_impossible() -> None:
    for parts in (CORE_PARTS, ROS_PARTS):
        rows = list(parts)
        for part_name, others in parts.items():
            assert all(rows.index(other) < rows.index(part_name) for other in others), part_name


def test_the_architecture_page_contains_the_table_of_allowed_imports() -> None:
    assert documented_table() in (ROOT / 'docs' / 'ARCHITECTURE.md').read_text()


@pytest.mark.parametrize(
    ('path', 'source', 'violation'),
    [
        ('bevdepth_core/inference.py', 'import rclpy', 'rclpy'),
        (
            'bevdepth_core/inference.py',
            'from sensor_msgs.msg import Image',
            'sensor_msgs.msg.Image',
        ),
        (
            'bevdepth_core/inference.py',
            'from bevdepth_core.nuscenes import classes',
            'bevdepth_core.nuscenes.classes',
        ),
        (
            'bevdepth_core/inference.py',
            'from bevdepth_core.training import data',
            'bevdepth_core.training.data',
        ),
        (
            'bevdepth_core/inference.py',
            'def late():\n    from bevdepth_ros.detector import node',
            'bevdepth_ros.detector.node',
        ),
        ('bevdepth_core/types.py', 'import torchvision', 'torchvision'),
        ('bevdepth_core/types.py', 'import yaml', 'yaml'),
        (
            'bevdepth_core/geometry.py',
            'from .inference import Detector',
            'bevdepth_core.inference.Detector',
        ),
        (
            'bevdepth_core/model/head.py',
            'from ..decode import decode',
            'bevdepth_core.decode.decode',
        ),
        (
            'bevdepth_core/model/view_transform.py',
            'from bevdepth_core.ops import _kernels',
            'bevdepth_core.ops._kernels',
        ),
        (
            'bevdepth_core/ops/voxel_pooling_reference.py',
            'from . import _kernels',
            'bevdepth_core.ops._kernels',
        ),
        (
            'bevdepth_core/ops/voxel_pooling.py',
            'from bevdepth_core.config import BEVGrid',
            'bevdepth_core.config.BEVGrid',
        ),
        (
            'bevdepth_core/nuscenes/index.py',
            'from bevdepth_core.model import BEVDepth',
            'bevdepth_core.model.BEVDepth',
        ),
        (
            'bevdepth_core/nuscenes/index.py',
            'from bevdepth_core.synthetic import scene',
            'bevdepth_core.synthetic.scene',
        ),
        (
            'bevdepth_ros/detector/node.py',
            'import bevdepth_core.model.head',
            'bevdepth_core.model.head',
        ),
        (
            'bevdepth_ros/detector/node.py',
            'from bevdepth_core.inference import _warm_up',
            'bevdepth_core.inference._warm_up',
        ),
        ('bevdepth_ros/detector/node.py', 'import training.train', 'training.train'),
        (
            'bevdepth_ros/detector/node.py',
            'from bevdepth_ros.bags import reader',
            'bevdepth_ros.bags.reader',
        ),
        (
            'bevdepth_ros/bags/player.py',
            'from bevdepth_ros.detector import node',
            'bevdepth_ros.detector.node',
        ),
        (
            'bevdepth_ros/rig/frames.py',
            'from bevdepth_ros.detector import parameters',
            'bevdepth_ros.detector.parameters',
        ),
        ('training/train.py', 'import rclpy.node', 'rclpy.node'),
    ],
)
def test_a_forbidden_import_is_reported(path: str, source: str, violation: str) -> None:
    assert violations(source, Path(path)) == [violation]
