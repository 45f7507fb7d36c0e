"""Who may import whom, the table of docs/ARCHITECTURE.md, read off the source of every module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.imports import ROOT, imported_names, is_ros, module_name

CORE_BASE = {'bevdepth_core.types', 'bevdepth_core.config', 'bevdepth_core.geometry', 'bevdepth_core.files'}
DETECTOR_MAY = ('bevdepth_ros.detector', 'bevdepth_ros.signals', 'bevdepth_ros.process')
COMPILED = 'bevdepth_core.ops._kernels'


def within(name: str, *modules: str) -> bool:
    """Tell whether ``name`` is one of ``modules`` or something inside it."""
    return any(name == module or name.startswith(f'{module}.') for module in modules)


def allowed_in_core_base(name: str) -> bool:
    """Types, config, geometry and files: standard library, numpy, torch; YAML and jsonargparse read the config."""
    outside = {'numpy', 'torch', 'yaml', 'jsonargparse'} | sys.stdlib_module_names
    return name.split('.')[0] in outside or within(name, *CORE_BASE)


def allowed_in_core(name: str, module: str) -> bool:
    """The core's own rows of the table."""
    if is_ros(name) or within(name, 'bevdepth_ros', 'bevdepth_training', 'training'):
        return False
    if module in CORE_BASE:
        return allowed_in_core_base(name)
    if within(module, 'bevdepth_core.ops'):
        inside_ops = within(name, 'bevdepth_core.ops') or not within(name, 'bevdepth_core')
        return inside_ops and (module == 'bevdepth_core.ops.compiled' or not within(name, COMPILED))
    if within(name, COMPILED):
        return False
    if within(module, 'bevdepth_core.model'):
        return not within(name, 'bevdepth_core') or within(name, 'bevdepth_core.model', 'bevdepth_core.ops', *CORE_BASE)
    if within(module, 'bevdepth_core.nuscenes'):
        return not within(name, 'bevdepth_core') or within(name, 'bevdepth_core.nuscenes', 'bevdepth_core.preprocess', *CORE_BASE)
    return not within(name, 'bevdepth_core.nuscenes')


def allowed_in_node(name: str, module: str) -> bool:
    """The ROS package: the core's public names, never the model's insides, kernels or training; the detector knows no other room."""
    if within(module, 'bevdepth_ros.detector') and within(name, 'bevdepth_ros') and not within(name, *DETECTOR_MAY):
        return False
    inner = within(name, 'bevdepth_core.model', 'bevdepth_core.ops', 'bevdepth_training', 'training')
    private = within(name, 'bevdepth_core') and any(part.startswith('_') for part in name.split('.'))
    return not inner and not private


def allowed_in_training(name: str) -> bool:
    """Training: all of the core, never ROS."""
    return not is_ros(name) and not within(name, 'bevdepth_ros') and not within(name, COMPILED)


def violations(source: str, path: Path) -> list[str]:
    """Return what ``source``, the content of the file at ``path``, imports against the table."""
    module = module_name(path)
    if within(module, 'bevdepth_core'):
        return sorted(name for name in imported_names(source, path) if not allowed_in_core(name, module))
    if within(module, 'bevdepth_ros'):
        return sorted(name for name in imported_names(source, path) if not allowed_in_node(name, module))
    return sorted(name for name in imported_names(source, path) if not allowed_in_training(name))


@pytest.mark.parametrize('folder', ['bevdepth_core', 'bevdepth_ros', 'training'])
def test_every_module_imports_only_what_its_row_allows(folder: str) -> None:
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / folder).rglob('*.py'))]
    assert paths
    broken = {str(path): names for path in paths if (names := violations((ROOT / path).read_text(), path))}
    assert broken == {}


@pytest.mark.parametrize(
    ('path', 'source', 'offence'),
    [
        ('bevdepth_core/inference.py', 'import rclpy', 'rclpy'),
        ('bevdepth_core/inference.py', 'from sensor_msgs.msg import Image', 'sensor_msgs.msg.Image'),
        ('bevdepth_core/inference.py', 'from bevdepth_core.nuscenes import classes', 'bevdepth_core.nuscenes.classes'),
        ('bevdepth_core/inference.py', 'def late():\n    from bevdepth_ros.detector import node', 'bevdepth_ros.detector.node'),
        ('bevdepth_core/types.py', 'import torchvision', 'torchvision'),
        ('bevdepth_core/geometry.py', 'from .inference import Detector', 'bevdepth_core.inference.Detector'),
        ('bevdepth_core/model/head.py', 'from ..decode import decode', 'bevdepth_core.decode.decode'),
        ('bevdepth_core/model/view_transform.py', 'from bevdepth_core.ops import _kernels', 'bevdepth_core.ops._kernels'),
        ('bevdepth_core/ops/voxel_pooling_reference.py', 'from . import _kernels', 'bevdepth_core.ops._kernels'),
        ('bevdepth_core/ops/voxel_pooling.py', 'from bevdepth_core.config import BEVGrid', 'bevdepth_core.config.BEVGrid'),
        ('bevdepth_core/nuscenes/index.py', 'from bevdepth_core.model import BEVDepth', 'bevdepth_core.model.BEVDepth'),
        ('bevdepth_core/nuscenes/dataset.py', 'from bevdepth_core.inference import Detector', 'bevdepth_core.inference.Detector'),
        ('bevdepth_ros/detector/node.py', 'import bevdepth_core.model.head', 'bevdepth_core.model.head'),
        ('bevdepth_ros/detector/node.py', 'from bevdepth_core.inference import _warm_up', 'bevdepth_core.inference._warm_up'),
        ('bevdepth_ros/detector/node.py', 'import training.train', 'training.train'),
        ('bevdepth_ros/detector/node.py', 'from bevdepth_ros.bags import reader', 'bevdepth_ros.bags.reader'),
        ('training/train.py', 'import rclpy.node', 'rclpy.node'),
    ],
)
def test_a_forbidden_import_is_found(path: str, source: str, offence: str) -> None:
    assert violations(source, Path(path)) == [offence]
