"""Tests which nodes detect.launch.py starts, and their command lines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from launch.actions import RegisterEventHandler, SetLaunchConfiguration
from launch_ros.actions import PushRosNamespace, SetRemap
from launch_ros.utilities import add_node_name

from bevdepth_ros.bring_up.arguments import read_arguments
from bevdepth_ros.bring_up.lifecycle import BringUpEnded, BringUpError
from bevdepth_ros.bring_up.nodes import player_node, republisher_node, rviz_node
from bevdepth_ros.bring_up.params_files import ParametersError
from bevdepth_ros.bring_up.scope import resolve_detector
from bevdepth_ros.bring_up.views import rviz_cameras
from tests.ros.bring_up.contexts import LAUNCH_FILE, actions, command, launch_context, nodes

pytestmark = pytest.mark.usefixtures('domain_id')


def parameters(words: list[str]) -> list[dict]:
    """Return the values of each parameter file on a command line, in order."""
    paths = [words[place + 1] for place, word in enumerate(words) if word == '--params-file']
    documents = [yaml.unsafe_load(Path(path).read_text()) for path in paths]
    return [block['ros__parameters'] for document in documents for block in document.values()]


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def player(**values: str | Path) -> list[str]:
    context = launch_context(**values)
    SetRemap('~/objects', '/boxes').execute(context)
    arguments = read_arguments(context, str(LAUNCH_FILE))
    detector = resolve_detector(context, arguments.namespace, arguments.params_files)
    return command(player_node(arguments, detector), context)


def test_without_arguments_only_the_detector_starts_and_has_no_parameter_file():
    started = nodes(launch_context())
    assert list(started) == ['detector']
    assert '--params-file' not in started['detector']


def test_arguments_override_the_parameters_of_the_detector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    Path('1.5').touch()
    params = tmp_path / 'own.yaml'
    params.write_text('/**: {ros__parameters: {score_threshold: 0.5}}')
    context = launch_context(params_file=params, checkpoint='1.5', use_sim_time='true')
    assert parameters(nodes(context)['detector']) == [
        {'score_threshold': 0.5},
        {'use_sim_time': True, 'checkpoint': '1.5'},
    ]


def test_the_views_also_use_cameras_from_the_parameter_block_of_the_detector(tmp_path: Path):
    params = tmp_path / 'own.yaml'
    params.write_text('/bevdepth_detector: {ros__parameters: {cameras: [a, b], device: cpu}}')
    context = launch_context(
        params_file=params, visualizer='true', viewer='web', viewer_port='99', viewer_host='0'
    )
    started = nodes(context)
    assert set(started) == {'detector', 'visualizer', 'viewer'}
    assert parameters(started['visualizer'])[0] == {'cameras': ('a', 'b')}
    viewer = parameters(started['viewer'])
    assert (viewer[0], viewer[-1]) == ({'cameras': ('a', 'b')}, {'host': '0', 'port': 99})


def test_the_views_and_the_recorder_use_the_remapped_topics_of_the_detector(tmp_path: Path):
    context = launch_context(visualizer='true', record=tmp_path / 'bag')
    PushRosNamespace('robot').execute(context)
    SetRemap('~/objects', '/boxes').execute(context)
    started = nodes(context)
    for executable in ('visualizer', 'recorder'):
        assert '/robot/bevdepth_detector/objects:=/boxes' in started[executable]
    assert after(started['recorder'], '--detector') == '/robot/bevdepth_detector'
    assert after(started['recorder'], '--out') == str(tmp_path / 'bag')


@pytest.mark.parametrize(('given', 'value'), [('', True), ('true', True), ('false', False)])
def test_every_node_of_a_replay_has_the_same_time_source(
    small_bag: Path, tmp_path: Path, given: str, value: bool
):
    arguments = {'bag': small_bag, 'use_sim_time': given}
    context = launch_context(
        **arguments, checkpoint='small', record=tmp_path / 'out', visualizer='true'
    )
    started = nodes(context)
    assert set(started) == {'detector', 'recorder', 'visualizer'}
    for words in started.values():
        assert parameters(words)[-1]['use_sim_time'] is value
    assert ('--clock' in player(**arguments)) is value


def test_recorded_outputs_with_the_topic_names_of_the_running_detector_are_not_replayed(
    small_bag: Path,
):
    left_out = re.compile(after(player(bag=small_bag, namespace='robot'), '--exclude-regex'))
    detector = '/robot/bevdepth_detector'
    for topic in (f'{detector}/detections', f'{detector}/transition_event', '/boxes'):
        assert left_out.fullmatch(topic), topic
    for topic in ('/bevdepth_detector/detections', f'{detector}_2/detections', '/tf', '/boxes_2'):
        assert not left_out.fullmatch(topic), topic


def test_a_replay_without_weights_is_rejected_before_a_node_starts(small_bag: Path):
    with pytest.raises(ParametersError, match='add checkpoint:=small'):
        actions(launch_context(bag=small_bag))
    assert actions(launch_context(bag=small_bag, autostart='false'))


def test_if_rviz_is_not_installed_a_warning_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr('bevdepth_ros.bring_up.nodes.is_installed', lambda package: False)
    actions(launch_context(rviz='true'))
    [record] = [one for one in caplog.records if 'rviz2 is not installed' in one.message]
    assert record.levelname == 'WARNING'


def test_the_player_receives_the_options_of_the_replay(small_bag: Path):
    words = player(
        bag=small_bag, rate='0.5', start='2', duration='3', step='0.04',
        loop='true', start_paused='true',
    )  # fmt: skip
    assert str(small_bag) in words
    assert {'--loop', '--start-paused', '--clock'} <= set(words)
    options = ('--rate', '--start-offset', '--playback-duration', '--step')
    assert [float(after(words, option)) for option in options] == [0.5, 2.0, 3.0, 0.04]
    assert not {'--loop', '--start-paused', '--playback-duration'} & set(player(bag=small_bag))


def test_without_autostart_and_bag_the_launch_file_does_not_change_the_state_of_the_detector():
    def handlers(**values: str) -> int:
        found = actions(launch_context(**values))
        return sum(isinstance(action, RegisterEventHandler) for action in found)

    assert (handlers(autostart='false'), handlers()) == (0, 1)


@pytest.mark.parametrize('transition', ['configure', 'activate'])
def test_the_report_of_a_failed_transition_names_the_command_that_requests_it_again(
    caplog: pytest.LogCaptureFixture, transition: str
):
    context = launch_context()
    detector, registration, *_ = actions(context)
    error = BringUpError(f'the detector did not {transition}', transition)
    [report] = registration.event_handler.handle(BringUpEnded(detector, error), context)
    report.execute(context)
    logged = caplog.text
    assert f'did not {transition}; correct the cause and use `ros2 lifecycle set' in logged
    assert f'set /bevdepth_detector {transition}`' in logged


def test_a_second_detector_of_the_same_name_in_one_launch_is_reported():
    context = launch_context()
    add_node_name(context, '/bevdepth_detector')
    with pytest.raises(RuntimeError, match='set a different namespace:= for each detector'):
        actions(context)
    SetLaunchConfiguration('namespace', 'second').execute(context)
    assert actions(context)


def test_a_foxglove_layout_is_written_to_the_given_path(tmp_path: Path):
    layout = tmp_path / 'layout.json'
    actions(launch_context(namespace='robot', foxglove_layout=layout))
    assert '/robot/bevdepth_detector/markers' in layout.read_text()
    with pytest.raises(RuntimeError, match=r'foxglove_layout:=.*No such file.*an existing folder'):
        actions(launch_context(foxglove_layout=tmp_path / 'nowhere' / 'layout.json'))


def test_images_that_rviz_cannot_read_are_republished(tmp_path: Path):
    context = launch_context(use_sim_time='true')
    camera = rviz_cameras(resolve_detector(context, '', ()))[0]
    words = command(republisher_node(camera), context)
    assert 'compressed' in words and 'raw' in words
    assert 'in/compressed:=/CAM_FRONT_LEFT/image_rect_compressed' in words
    assert 'out:=/CAM_FRONT_LEFT/image_decoded' in words
    assert parameters(words) == [{'in_transport': 'compressed', 'out_transport': 'raw'}]


def test_rviz_receives_its_configuration_and_the_time_source():
    context = launch_context(use_sim_time='true')
    words = command(rviz_node(read_arguments(context, str(LAUNCH_FILE)), 'own.rviz'), context)
    assert after(words, '-d') == 'own.rviz'
    assert parameters(words) == [{'use_sim_time': True}]
