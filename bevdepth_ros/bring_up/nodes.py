"""The nodes that ``detect.launch.py`` starts."""

from __future__ import annotations

import re
import shutil
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue

from bevdepth_ros.bring_up.arguments import Arguments
from bevdepth_ros.bring_up.scope import DETECTOR, VIEWER, VISUALIZER, ResolvedDetector
from bevdepth_ros.bring_up.views import RvizCamera
from bevdepth_ros.launching import PACKAGE

END_WITH_LAUNCH = 'setpriv --pdeathsig TERM' if shutil.which('setpriv') else ''
"""Prefix of the command of each process. The program setpriv of util-linux makes the kernel end
the process when launch dies. The prefix is empty if setpriv is not installed."""


def _program(package: str, executable: str) -> dict[str, Any]:
    """Return the arguments of ``Node`` that start a program of a package.

    The prefix is needed because ``ros2 launch`` ends its processes on SIGINT only. Without the
    prefix, the processes would continue after SIGTERM or SIGKILL has ended the launch.
    """
    prefix = LaunchConfiguration('launch-prefix', default=END_WITH_LAUNCH)
    return {
        'package': package,
        'executable': executable,
        'exec_name': executable,  # otherwise, the log shows the prefix
        'prefix': prefix,
        'output': 'screen',
    }


def _text(value: str) -> ParameterValue:
    """Return a parameter that stays a string even if YAML would read it as a number."""
    return ParameterValue(value, value_type=str)


def _time_source(arguments: Arguments) -> dict[str, Any]:
    """Return ``use_sim_time`` if the arguments set it."""
    is_set = arguments.use_sim_time is not None
    return {'use_sim_time': arguments.use_sim_time} if is_set else {}


def _parameters(arguments: Arguments, overrides: dict[str, Any]) -> list:
    """Return the parameters of a node: first the parameter files, then the parameters that launch
    arguments set.
    """
    last = _time_source(arguments) | overrides
    return [*arguments.params_files, *([last] if last else [])]


def detector_node(arguments: Arguments, enclave: str) -> LifecycleNode:
    """Return the detector, which stays unconfigured until it is brought up. ``bring_up`` must
    receive the same ``enclave``.
    """
    overrides = {name: _text(value) for name, value in arguments.overrides.items()}
    return LifecycleNode(
        **_program(PACKAGE, 'detector'),
        name=DETECTOR,
        namespace=arguments.namespace,
        parameters=_parameters(arguments, overrides),
        ros_arguments=['--enclave', enclave] if enclave else None,
    )


def player_node(arguments: Arguments, detector: ResolvedDetector) -> Node:
    """Return the player of the bag. The player does not play the topics of ``detector``. The bag
    contains these topics if it was recorded while the detector ran.
    """
    options = {
        '--rate': arguments.rate,
        '--start-offset': arguments.start,
        '--step': arguments.step,
        '--playback-duration': arguments.duration,
        '--exclude-regex': _own_topics(detector),
    }
    flags = {
        '--clock': arguments.use_sim_time,
        '--loop': arguments.loop,
        '--start-paused': arguments.start_paused,
    }
    words = [
        word
        for option, value in options.items()
        if value is not None
        for word in (option, str(value))
    ]
    words += [flag for flag, is_set in flags.items() if is_set]
    return Node(**_program(PACKAGE, 'player'), arguments=[arguments.bag, *words])


def _own_topics(detector: ResolvedDetector) -> str:
    """Return a regular expression that matches the topics of the detector and the visualizer.

    A recording of all topics contains these topics. If they were replayed, each result would have
    two publishers, and a recorded transition event would look like an event of the running node.
    """
    namespace = detector.namespace.rstrip('/')
    patterns = [f'{re.escape(f"{namespace}/{name}/")}.*' for name in (DETECTOR, VISUALIZER)]
    return '|'.join([*patterns, *map(re.escape, detector.outputs.values())])


def recorder_node(arguments: Arguments, detector: ResolvedDetector) -> Node:
    """Return the recorder of the outputs of ``detector``."""
    return Node(
        **_program(PACKAGE, 'recorder'),
        namespace=arguments.namespace,
        arguments=['--out', arguments.record, '--detector', detector.name],
        parameters=_parameters(arguments, {})[-1:] if _time_source(arguments) else None,
        remappings=detector.remappings_for_others(),
    )


def view_nodes(arguments: Arguments, detector: ResolvedDetector) -> list[Node]:
    """Return the visualizer and the live view, if the arguments request them."""
    page = {'host': _text(arguments.viewer_host), 'port': arguments.viewer_port}
    wanted = {
        (VISUALIZER, 'visualizer'): (arguments.visualizer, {}),
        (VIEWER, 'viewer'): (arguments.viewer, page),
    }
    return [
        _view_node(name, executable, arguments, detector, overrides)
        for (name, executable), (is_wanted, overrides) in wanted.items()
        if is_wanted
    ]


def _view_node(
    name: str, executable: str, arguments: Arguments, detector: ResolvedDetector, overrides: dict
) -> Node:
    """Return a node that reads the images of the detector.

    A parameter file may have a block for the detector only. So this node first gets the parameters
    that the detector reads from the files; blocks with the name of this node override them.
    """
    first = [detector.given] if detector.given else []
    return Node(
        **_program(PACKAGE, executable),
        name=name,
        namespace=arguments.namespace,
        parameters=[*first, *_parameters(arguments, overrides)],
        remappings=detector.remappings_for_others(),
    )


def rviz_node(arguments: Arguments, config: str) -> Node:
    """Return RViz with the configuration file ``config``."""
    return Node(
        **_program('rviz2', 'rviz2'),
        arguments=['-d', config],
        parameters=[_time_source(arguments)] if _time_source(arguments) else None,
    )


def republisher_node(camera: RvizCamera) -> Node:
    """Return a node that republishes the images of a camera as raw images, on the topic that RViz
    reads.
    """
    source = 'in' if camera.transport == 'raw' else f'in/{camera.transport}'
    name = re.sub('[^0-9A-Za-z]', '_', camera.source.name)
    return Node(
        **_program('image_transport', 'republish'),
        name=f'republish_{name}',
        arguments=[camera.transport, 'raw'],
        parameters=[{'in_transport': camera.transport, 'out_transport': 'raw'}],
        remappings=[(source, camera.source.image_topic), ('out', camera.topic)],
    )


def is_installed(package: str) -> bool:
    """Return True if a ROS package is in the environment."""
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True
