"""Launches the detector; with ``bag:=`` also a replay, at whose end the launch ends."""

import difflib
from pathlib import Path

import yaml
from ament_index_python.packages import (
    PackageNotFoundError,
    get_package_prefix,
    get_package_share_directory,
)
from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import matches_action
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

from bevdepth_ros.bring_up import BringUpError, bring_up

PACKAGE = 'bevdepth_ros'
CONFIG = Path(get_package_share_directory(PACKAGE)) / 'config'
BOOLEAN = ['true', 'false']
LAST_ANSWERS_S = 60.0
"""At the end of a bag, the detector has this time to answer the last images."""

PRESETS = ', '.join(sorted(path.stem for path in (CONFIG / 'cameras').glob('*.yaml')))

ARGUMENTS = [
    DeclareLaunchArgument(name, default_value=default, description=description, choices=choices)
    for name, default, choices, description in (
        (
            'params_file',
            str(CONFIG / 'detector.yaml'),
            None,
            'YAML file with the parameters of the detector.',
        ),
        (
            'camera_preset',
            '',
            None,
            f'Cameras and frames in place of those of params_file: a file, or one of {PRESETS}.',
        ),
        (
            'checkpoint',
            '',
            None,
            'Weights: .safetensors, .pth or .ckpt. Empty: as in params_file.',
        ),
        ('device', '', None, 'auto, cpu, cuda or cuda:<n>. Empty: as in params_file.'),
        (
            'precision',
            '',
            ['', 'auto', 'fp32', 'fp16', 'bf16'],
            'Arithmetic of the network. Empty: as in params_file.',
        ),
        (
            'bag',
            '',
            None,
            'Folder or file of a rosbag2 to replay; the launch ends with it. Empty: live cameras.',
        ),
        ('rate', '1.0', None, 'Speed of the replay relative to real time.'),
        ('start', '0.0', None, 'Seconds of the bag to leave out at its beginning.'),
        ('duration', '', None, 'Seconds of the bag to replay. Empty: to its end.'),
        (
            'start_paused',
            'false',
            BOOLEAN,
            'Begin the replay paused; services of /bag_player resume or step it.',
        ),
        ('step', '0.1', None, 'Seconds of the bag that the service ~/step of /bag_player plays.'),
        ('loop', 'false', BOOLEAN, 'Replay the bag again and again.'),
        (
            'record',
            '',
            None,
            'Folder for a rosbag2 of what the detector publishes. Empty: nothing is recorded.',
        ),
        (
            'use_sim_time',
            '',
            ['', *BOOLEAN],
            'Take the time from /clock. Empty: true with a bag, whose replay publishes it, else '
            'false.',
        ),
        ('rviz', 'false', BOOLEAN, 'Open RViz with boxes, cameras and tf, where it is installed.'),
        (
            'visualizer',
            'false',
            BOOLEAN,
            'Publish one picture of everything on bevdepth_visualizer/image/compressed.',
        ),
        ('viewer', '', ['', 'web'], 'web: serve a live view for browsers.'),
        (
            'viewer_host',
            '127.0.0.1',
            None,
            'Address that the live view listens on; it has no password.',
        ),
        ('viewer_port', '8080', None, 'Port of the live view; the next free one is taken.'),
        ('namespace', '', None, 'Namespace of the detector and of its output topics.'),
        (
            'autostart',
            'true',
            BOOLEAN,
            'Configure and activate the detector; with false, do so with `ros2 lifecycle set`.',
        ),
    )
]


def generate_launch_description() -> LaunchDescription:
    """Return the arguments and what follows from them."""
    return LaunchDescription([*ARGUMENTS, OpaqueFunction(function=_actions)])


def _actions(context: LaunchContext) -> list:
    """Return the actions that the arguments ask for."""
    values = {
        argument.name: context.launch_configurations[argument.name] for argument in ARGUMENTS
    }
    _tell_unknown([word.partition(':=')[0] for word in context.argv], list(values))
    use_sim_time = values['use_sim_time'] == 'true' or (
        values['use_sim_time'] == '' and values['bag'] != ''
    )
    files = [
        _existing(values['params_file'], 'params_file'),
        *_preset_files(values['camera_preset']),
    ]
    detector = _detector(values, files, use_sim_time)
    actions = [detector, *_bring_up(detector, values, use_sim_time)]
    if values['record']:
        actions.append(_recorder(values, use_sim_time))
    if values['rviz'] == 'true':
        actions += _rviz(files, use_sim_time)
    return actions + _pictures(values, files, use_sim_time)


def _tell_unknown(given: list[str], known: list[str]) -> None:
    """Say which arguments have no effect, since launch itself takes any."""
    for name in given:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f'; did you mean {nearest[0]}?' if nearest else ''
            get_logger('launch').warning(
                f'{name} is no argument of detect.launch.py and has no effect{hint}'
            )


def _existing(path: str, argument: str) -> str:
    if not Path(path).exists():
        raise RuntimeError(f'{argument}:={path} does not exist')
    return path


def _preset_files(preset: str) -> list[str]:
    """Return the file of a camera preset, given by name or path; nothing for an empty one."""
    if not preset:
        return []
    named = CONFIG / 'cameras' / f'{preset}.yaml'
    return [str(named)] if named.is_file() else [_existing(preset, 'camera_preset')]


def _detector(values: dict, files: list[str], use_sim_time: bool) -> LifecycleNode:
    given = {
        name: ParameterValue(values[name], value_type=str)
        for name in ('checkpoint', 'device', 'precision')
        if values[name]
    }
    return LifecycleNode(
        package=PACKAGE,
        executable='detector',
        name='bevdepth_detector',
        namespace=values['namespace'],
        output='screen',
        parameters=[*files, {'use_sim_time': use_sim_time, **given}],
    )


def _bring_up(detector: LifecycleNode, values: dict, use_sim_time: bool) -> list:
    """Bring the detector up and then play the bag, if there is one."""
    player = _player(values, use_sim_time) if values['bag'] else None

    def ended(context: LaunchContext, error: BringUpError | None) -> list:
        if error is None:
            return [player] if player else []
        if player or not error.mendable:
            raise RuntimeError(f'{error}')
        get_logger('launch').error(
            f'{error}; mend it and use `ros2 lifecycle set {detector.node_name} configure`, or '
            'launch again'
        )
        return []

    autostart = values['autostart'] == 'true'
    actions = bring_up(detector, autostart, ended) if autostart or player else []
    return [*actions, *_end_of_replay(detector, player)] if player else actions


def _player(values: dict, use_sim_time: bool) -> Node:
    options = [
        '--rate',
        values['rate'],
        '--start-offset',
        values['start'],
        '--step',
        values['step'],
    ]
    options += ['--playback-duration', values['duration']] if values['duration'] else []
    flags = {
        '--clock': use_sim_time,
        '--loop': values['loop'] == 'true',
        '--start-paused': values['start_paused'] == 'true',
    }
    options += [flag for flag, wanted in flags.items() if wanted]
    return Node(
        package=PACKAGE,
        executable='player',
        output='screen',
        arguments=[_existing(values['bag'], 'bag'), *options],
    )


def _end_of_replay(detector: LifecycleNode, player: Node) -> list:
    """At the end of the bag let the detector answer the last images, and end. Without a detector,
    fail.
    """
    deactivate = ChangeState(
        lifecycle_node_matcher=matches_action(detector),
        transition_id=Transition.TRANSITION_DEACTIVATE,
    )

    def bag_ended(event, context: LaunchContext) -> list:
        if context.is_shutdown:
            return []
        if event.returncode:
            raise RuntimeError('the bag was not played to its end')
        return [EmitEvent(event=deactivate), _end(after_s=LAST_ANSWERS_S)]

    def detector_ended(event, context: LaunchContext) -> None:
        if not context.is_shutdown:
            raise RuntimeError('the detector ended before the bag')

    answered = OnStateTransition(
        target_lifecycle_node=detector,
        start_state='deactivating',
        goal_state='inactive',
        entities=[_end(after_s=0.5)],
    )
    return [
        RegisterEventHandler(answered),
        RegisterEventHandler(OnProcessExit(target_action=player, on_exit=bag_ended)),
        RegisterEventHandler(OnProcessExit(target_action=detector, on_exit=detector_ended)),
    ]


def _recorder(values: dict, use_sim_time: bool) -> Node:
    names = filter(None, (values['namespace'].strip('/'), 'bevdepth_detector'))
    arguments = ['--out', values['record'], '--detector', '/' + '/'.join(names)]
    return Node(
        package=PACKAGE,
        executable='recorder',
        output='screen',
        arguments=arguments,
        parameters=[{'use_sim_time': use_sim_time}],
    )


def _end(after_s: float) -> TimerAction:
    return TimerAction(period=after_s, actions=[Shutdown(reason='end of the bag')])


def _pictures(values: dict, files: list[str], use_sim_time: bool) -> list:
    """Return the nodes that draw what the detector sees and finds."""
    common = {'package': PACKAGE, 'namespace': values['namespace'], 'output': 'screen'}
    parameters = [*files, {'use_sim_time': use_sim_time}]
    if not values['viewer_port'].isdecimal():
        raise RuntimeError(f'viewer_port:={values["viewer_port"]} is no port: give a number')
    page = {
        'host': ParameterValue(values['viewer_host'], value_type=str),
        'port': int(values['viewer_port']),
    }
    nodes = []
    if values['visualizer'] == 'true':
        nodes.append(
            Node(
                executable='visualizer',
                name='bevdepth_visualizer',
                parameters=parameters,
                **common,
            )
        )
    if values['viewer'] == 'web':
        nodes.append(
            Node(
                executable='viewer',
                name='bevdepth_viewer',
                parameters=[*parameters, page],
                **common,
            )
        )
    return nodes


def _rviz(files: list[str], use_sim_time: bool) -> list:
    """Return RViz and, since it cannot read the compressed topics by their names, a decoder per
    camera.
    """
    if not _installed('rviz2'):
        return [LogInfo(msg='rviz:=true has no effect: rviz2 is not installed')]
    rviz = Node(
        package='rviz2',
        executable='rviz2',
        arguments=['-d', str(CONFIG / 'rviz' / 'bevdepth.rviz')],
        parameters=[{'use_sim_time': use_sim_time}],
    )
    if not _installed('image_transport'):
        return [rviz, LogInfo(msg='RViz shows no camera images: image_transport is not installed')]
    return [rviz, *(_decoder(camera, topic) for camera, topic in _compressed_topics(files))]


def _installed(package: str) -> bool:
    try:
        get_package_prefix(package)
    except PackageNotFoundError:
        return False
    return True


def _compressed_topics(files: list[str]) -> list[tuple[str, str]]:
    """Return (camera, image topic) as the parameter files give them; nothing when images are
    raw.
    """
    values = {}
    for path in files:
        values.update(yaml.safe_load(Path(path).read_text())['/**']['ros__parameters'])
    if values['image_transport'] != 'compressed':
        return []
    topics = values['image_topics'] * (
        len(values['cameras']) if len(values['image_topics']) == 1 else 1
    )
    return [
        (camera, topic.replace('{camera}', camera))
        for camera, topic in zip(values['cameras'], topics, strict=True)
    ]


def _decoder(camera: str, topic: str) -> Node:
    return Node(
        package='image_transport',
        executable='republish',
        name=f'decode_{camera}',
        arguments=['compressed', 'raw'],
        parameters=[{'in_transport': 'compressed', 'out_transport': 'raw'}],
        remappings=[('in/compressed', topic), ('out', f'/{camera}/image_rect')],
    )
