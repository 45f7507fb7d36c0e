"""Launches the detector. With ``bag:=``, the launch also replays a bag, and then ends."""

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import LogInfo, OpaqueFunction
from launch.logging import get_logger, launch_config
from launch_ros.actions import LifecycleNode
from launch_ros.utilities import get_node_name_count

from bevdepth_ros.bring_up import nodes
from bevdepth_ros.bring_up.arguments import ARGUMENTS, CONFIG, Arguments, read_arguments
from bevdepth_ros.bring_up.interrupt import leave_sigint_to_launch
from bevdepth_ros.bring_up.lifecycle import BringUpError, bring_up, new_enclave
from bevdepth_ros.bring_up.replay import add_replay, end_of_replay
from bevdepth_ros.bring_up.scope import (
    ResolvedDetector,
    actions_in_scope,
    check_weights,
    resolve_detector,
)
from bevdepth_ros.bring_up.views import foxglove_layout, rviz_cameras, rviz_config, write_view


def generate_launch_description() -> LaunchDescription:
    """Return the launch arguments and the actions that depend on them."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Return the actions for the given arguments."""
    leave_sigint_to_launch(context)
    arguments = read_arguments(context, __file__)
    detector = resolve_detector(context, arguments.namespace, arguments.params_files)
    if 'checkpoint' not in arguments.overrides:
        needs_weights = bool(arguments.bag) or arguments.is_direct
        check_weights(detector, required=arguments.autostart and needs_weights)
    if get_node_name_count(context, detector.name):
        raise RuntimeError(
            f'this launch already has a node {detector.name}: set a different namespace:= for '
            f'each detector'
        )
    enclave = new_enclave()
    node = nodes.detector_node(arguments, enclave)
    return [
        node,
        *_bring_up(context, node, enclave, arguments, detector),
        *nodes.view_nodes(arguments, detector),
        *_rviz(arguments, detector),
        *_foxglove(arguments, detector),
    ]


def _bring_up(
    context: LaunchContext,
    node: LifecycleNode,
    enclave: str,
    arguments: Arguments,
    detector: ResolvedDetector,
) -> list[LaunchDescriptionEntity]:
    """Return the actions that bring up the detector, and that then replay the bag of ``bag:=``."""
    recorder = nodes.recorder_node(arguments, detector) if arguments.record else None
    actions = [] if recorder is None else [recorder]
    player = nodes.player_node(arguments, detector) if arguments.bag else None
    if player is None and not arguments.autostart:
        return actions
    replay = [] if player is None else actions_in_scope(context, [player])

    def ended(context: LaunchContext, error: BringUpError | None) -> list:
        if error is not None:
            _report(error, arguments, detector)
        return replay

    topic = detector.outputs['detections']
    actions += bring_up(node, enclave, arguments.autostart, ended, recorder, topic)
    if player is not None:
        add_replay(context, node)
        actions += end_of_replay(node, player)
    return actions


def _report(error: BringUpError, arguments: Arguments, detector: ResolvedDetector) -> None:
    """Log why the detector is not active.

    Raises:
        RuntimeError: the launch is useless without the detector, because it replays a bag, or
            because ``ros2 launch`` was called with this file and there is no failed transition
            that the user can request again.
    """
    if arguments.bag or (arguments.is_direct and not error.transition):
        raise RuntimeError(f'{error}')
    remedy = f'`ros2 lifecycle set {detector.name} {error.transition}`, or launch again'
    get_logger('launch').error(
        f'{error}; correct the cause and use {remedy}' if error.transition else f'{error}'
    )


def _rviz(arguments: Arguments, detector: ResolvedDetector) -> list[LaunchDescriptionEntity]:
    """Return the actions that start RViz, and a republisher for each camera whose images RViz
    cannot read.
    """
    if not arguments.rviz:
        return []
    if not nodes.is_installed('rviz2'):
        get_logger('launch').warning(
            'rviz:=true has no effect: rviz2 is not installed; install rviz2, or use viewer:=web'
        )
        return []
    template = (CONFIG / 'rviz' / 'bevdepth.rviz').read_text()
    folder = Path(launch_config.log_dir)
    config = write_view(rviz_config(template, detector), folder, detector, '.rviz')
    rviz = nodes.rviz_node(arguments, str(config))
    republished = [camera for camera in rviz_cameras(detector) if camera.transport]
    if republished and not nodes.is_installed('image_transport'):
        get_logger('launch').warning(
            'RViz shows no camera images: install the package image_transport and its plugins'
        )
        return [rviz]
    return [rviz, *map(nodes.republisher_node, republished)]


def _foxglove(arguments: Arguments, detector: ResolvedDetector) -> list[LaunchDescriptionEntity]:
    if not arguments.foxglove_layout:
        return []
    template = (CONFIG / 'foxglove' / 'bevdepth.json').read_text()
    path = Path(arguments.foxglove_layout)
    try:
        path.write_text(foxglove_layout(template, detector))
    except OSError as error:
        raise RuntimeError(
            f'foxglove_layout:={path} cannot be written: {error.strerror}; give the path of a '
            'file in an existing folder'
        ) from error
    return [LogInfo(msg=f'wrote {path}: import it in Foxglove as a layout')]
