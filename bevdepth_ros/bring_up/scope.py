"""Finds the names and parameters that the process of the detector will have.

The current scope of a launch consists of the namespace, remappings, parameters and arguments that
the enclosing launch files and groups have set. They also apply to the detector.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import rclpy
from launch import LaunchContext, LaunchDescriptionEntity
from launch.actions import OpaqueFunction, PopLaunchConfigurations, PushLaunchConfigurations
from launch_ros.utilities import make_namespace_absolute, prefix_namespace
from rclpy.exceptions import InvalidNamespaceException
from rclpy.node import Node
from rclpy.validate_namespace import validate_namespace

from bevdepth_core.weights import WeightsError, locate
from bevdepth_ros.bring_up.arguments import DEFAULT_PARAMS_FILE
from bevdepth_ros.bring_up.params_files import (
    ParametersError,
    check_blocks,
    check_file,
    check_names,
    parameter_names,
)
from bevdepth_ros.rig.settings import COMMON_PARAMETERS, CameraSource, RigSettings, check_range

DETECTOR, VISUALIZER, VIEWER = 'bevdepth_detector', 'bevdepth_visualizer', 'bevdepth_viewer'
OUTPUTS = ('detections', 'objects', 'markers', 'label_info', 'depth_points', 'latency', 'tracks')
"""The recorder and the views may subscribe to these topics ``~/<name>`` of the detector."""
VIEW_PARAMETERS = (
    'annotations_topic',
    'detector',
    'history_s',
    'host',
    'jpeg_quality',
    'min_score',
    'port',
    'rate_hz',
    'width',
)
"""Parameters of the visualizer and the live view that the detector does not have."""
FIELDS = {field.name: field for field in dataclasses.fields(RigSettings)}
"""Parameters of cameras and tf frames, by name."""


@dataclasses.dataclass(frozen=True)
class ResolvedDetector:
    """Names and parameters that the process of the detector will have after its start.

    Attributes:
        name: fully qualified name of the node.
        namespace: the part of the name before the last slash, or ``/`` for the root.
        rig: parameters of cameras and tf frames.
        given: values of the parameters in ``rig`` that parameter files or enclosing launch files
            set, by name of the parameter.
        sources: the cameras, with resolved topics.
        outputs: resolved topic of each output, by name, such as ``detections``.
        checkpoint: value of the parameter checkpoint in parameter files or enclosing launch files;
            empty if they do not set this parameter.
    """

    name: str
    namespace: str
    rig: RigSettings
    given: dict[str, Any]
    sources: tuple[CameraSource, ...]
    outputs: dict[str, str]
    checkpoint: str

    def remappings_for_others(self) -> list[tuple[str, str]]:
        """Return remappings for nodes that subscribe to the default topics of the outputs. With
        them, such a node also receives an output that is remapped to another topic.
        """
        return [
            (f'{self.name}/{output}', topic)
            for output, topic in self.outputs.items()
            if topic != f'{self.name}/{output}'
        ]


def actions_in_scope(
    context: LaunchContext, actions: Sequence[LaunchDescriptionEntity]
) -> list[LaunchDescriptionEntity]:
    """Return actions that an event handler can execute later in the current scope.

    Launch executes event handlers outside of every group. Therefore, the returned actions first
    restore the namespace, the remappings and the arguments of the current group.
    """
    saved = dict(context.launch_configurations)

    def restore(later: LaunchContext) -> None:
        later.launch_configurations.update(saved)

    return [
        PushLaunchConfigurations(),
        OpaqueFunction(function=restore),
        *actions,
        PopLaunchConfigurations(),
    ]


def resolve_detector(
    context: LaunchContext, namespace: str, params_files: Sequence[str]
) -> ResolvedDetector:
    """Return names and parameters of a detector in the current scope.

    Names and parameters are read from a temporary node that has the arguments of the detector. So
    rclpy itself merges the parameter files, including blocks with wildcards, and resolves the
    names.

    Raises:
        ParametersError: a file is malformed, has no block for a node of this launch, has a
            parameter that does not exist, or has values that contradict each other.
    """
    for path in params_files:
        check_file(path)
    words = [
        *_scope_arguments(context, namespace),
        *(word for path in params_files for word in ('--params-file', path)),
    ]
    with _node(DETECTOR, words) as node:
        resolved = _resolved(node)
    names = [f'{resolved.namespace.rstrip("/")}/{name}' for name in (DETECTOR, VISUALIZER, VIEWER)]
    known = [*parameter_names(DEFAULT_PARAMS_FILE), *COMMON_PARAMETERS, *VIEW_PARAMETERS]
    for path in params_files:
        check_blocks(path, names)
        check_names(path, resolved.name, known)
    return resolved


def check_weights(detector: ResolvedDetector, required: bool) -> None:
    """Check that the parameter checkpoint of ``detector`` is an existing file or name of weights.

    Raises:
        ParametersError: the weights do not exist, or the parameter is empty and ``required`` is
            True.
    """
    if detector.checkpoint:
        try:
            locate(detector.checkpoint)
        except WeightsError as error:
            raise ParametersError(f'parameter checkpoint of {DETECTOR}: {error}') from error
    elif required:
        raise ParametersError(
            f'parameter checkpoint of {DETECTOR} is empty: add checkpoint:=small, or the path '
            'of a file of weights, or a name from `ros2 run bevdepth_ros weights list`'
        )


def _scope_arguments(context: LaunchContext, namespace: str) -> list[str]:
    """Return the ROS arguments that launch_ros passes to every node of the scope, including the
    namespace.
    """
    outer = context.launch_configurations.get('ros_namespace')
    absolute = make_namespace_absolute(prefix_namespace(outer, namespace)) or '/'
    try:
        validate_namespace(absolute)
    except InvalidNamespaceException as error:
        reason = str(error).partition(':\n')[0].partition(': ')[2]
        raise ParametersError(f'namespace {absolute} is invalid: {reason}') from error
    words = ['--ros-args', '-r', f'__ns:={absolute}']
    for parameter in context.launch_configurations.get('global_params') or ():
        words += (
            ['-p', f'{parameter[0]}:={parameter[1]}']
            if isinstance(parameter, tuple)
            else ['--params-file', os.path.abspath(parameter)]
        )
    for source, target in context.launch_configurations.get('ros_remaps') or ():
        words += ['-r', f'{source}:={target}']
    return words


@contextmanager
def _node(name: str, words: list[str]) -> Iterator[Node]:
    """Yield a node without services, in a separate ROS context with the arguments ``words``."""
    ros_context = rclpy.Context()
    try:
        rclpy.init(args=words, context=ros_context)
        node = Node(
            name,
            context=ros_context,
            enable_rosout=False,
            start_parameter_services=False,
            automatically_declare_parameters_from_overrides=True,
        )
    except Exception as error:  # rclpy raises RCLError, ValueError and others
        raise ParametersError(f'{name} would not start: {_reason(error)}') from error
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.shutdown(context=ros_context)


def _resolved(node: Node) -> ResolvedDetector:
    parameters = node.get_parameters_by_prefix('')
    given = {name: parameters[name].value for name in FIELDS if name in parameters}
    try:
        checked = {name: _checked(name, value) for name, value in given.items()}
        for name, value in checked.items():
            check_range(FIELDS[name], value)
        rig = RigSettings(**checked)
        sources = tuple(_resolved_source(node, source) for source in rig.camera_sources)
    except ValueError as error:
        raise ParametersError(f'parameters of {DETECTOR}: {error}') from error
    return ResolvedDetector(
        node.get_fully_qualified_name(),
        node.get_namespace(),
        rig,
        given,
        sources,
        {output: node.resolve_topic_name(f'~/{output}') for output in OUTPUTS},
        str(parameters['checkpoint'].value) if 'checkpoint' in parameters else '',
    )


def _resolved_source(node: Node, source: CameraSource) -> CameraSource:
    return dataclasses.replace(
        source,
        image_topic=_resolved_topic(node, 'image_topics', source.image_topic),
        info_topic=_resolved_topic(node, 'camera_info_topics', source.info_topic),
    )


def _resolved_topic(node: Node, parameter: str, topic: str) -> str:
    """Return the absolute name of ``topic`` after remapping; an empty name stays empty."""
    try:
        return node.resolve_topic_name(topic) if topic else ''
    except Exception as error:  # rclpy raises RCLError, ValueError and others
        raise ValueError(f'{parameter}: {topic!r}: {_reason(error)}') from error


def _reason(error: Exception) -> str:
    """Return the message of an error of rclpy, without the path of the source file at its end."""
    return str(error).split(', at /')[0]


def _checked(name: str, value: Any) -> Any:
    """Return ``value``, converted to the type of the parameter's default.

    Raises:
        ValueError: the value has another type.
    """
    default = FIELDS[name].default
    if isinstance(default, tuple):
        if not isinstance(value, (list, tuple)) or not all(
            isinstance(entry, str) for entry in value
        ):
            raise ValueError(f'{name} must be a list of strings, got {value!r}')
        return tuple(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise ValueError(f'{name} must be of type {type(default).__name__}, got {value!r}')
    return value
