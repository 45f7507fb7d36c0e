"""Reads the imports of the modules of this repository from their source."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROS_LIBRARIES = {
    'ament_index_python', 'cv_bridge', 'diagnostic_updater', 'launch', 'launch_ros',
    'message_filters', 'rclpy', 'rosidl_runtime_py',
    'sensor_msgs_py', 'tf2_geometry_msgs', 'tf2_py', 'tf2_ros',
}  # fmt: skip


def module_name(path: Path) -> str:
    """Return the dotted name under which a Python file is imported. ``path`` is relative to the
    repository."""
    parts = path.with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def imported_names(source: str, path: Path) -> set[str]:
    """Return the absolute dotted name of everything that ``source`` imports; for
    ``from a import b``, this is ``a.b``."""
    package = module_name(path).split('.')
    if path.name != '__init__.py':
        package = package[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            origin = '.'.join([*base, *([node.module] if node.module else [])])
            names |= {f'{origin}.{alias.name}' for alias in node.names}
    return names


def is_ros(name: str) -> bool:
    """Return True if ``name`` is in a ROS library or in a package of ROS messages."""
    top = name.split('.')[0]
    return top in ROS_LIBRARIES or top.endswith(('_msgs', '_interfaces'))
