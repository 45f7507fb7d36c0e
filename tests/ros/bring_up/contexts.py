"""Creates launch contexts for detect.launch.py, and returns the actions of the launch file."""

from __future__ import annotations

from pathlib import Path

from launch import Action, LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node

from bevdepth_ros.bring_up.arguments import ARGUMENTS
from tests.reference import ROOT

LAUNCH_FILE = ROOT / 'launch' / 'detect.launch.py'


def launch_context(words: list[str] | None = None, **values: str | Path) -> LaunchContext:
    """Return a context with the arguments ``values``. All other arguments have their defaults.
    ``words`` are the arguments of the launch command."""
    context = LaunchContext(argv=words)
    context.launch_configurations.update({name: str(value) for name, value in values.items()})
    for argument in ARGUMENTS:
        argument.execute(context)
    return context


def described() -> LaunchDescription:
    return PythonLaunchDescriptionSource(str(LAUNCH_FILE)).get_launch_description(LaunchContext())


def actions(context: LaunchContext) -> list[Action]:
    """Return the actions of detect.launch.py without executing them."""
    [function] = [item for item in described().entities if isinstance(item, OpaqueFunction)]
    return function.execute(context)


def command(node: Node, context: LaunchContext) -> list[str]:
    """Return the command line of a node action without the program, which need not be
    installed."""
    node._perform_substitutions(context)
    context.extend_locals({'ros_specific_arguments': {'name': '', 'ns': ''}})
    return [''.join(item.perform(context) for item in word) for word in node.cmd[1:]]


def nodes(context: LaunchContext) -> dict[str, list[str]]:
    """Return the command line of each node that is started immediately, by name of the
    executable."""
    return {
        node.node_executable: command(node, context)
        for node in actions(context)
        if isinstance(node, Node)
    }
