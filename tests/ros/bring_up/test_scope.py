"""Compares the names and parameters that a launch file resolves for a detector with the names and
parameters of a running node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from launch import LaunchContext
from launch.actions import OpaqueFunction
from launch_ros.actions import PushRosNamespace, SetParameter, SetParametersFromFile, SetRemap
from rclpy.parameter import Parameter

from bevdepth_ros.bring_up.params_files import ParametersError
from bevdepth_ros.bring_up.scope import (
    FIELDS,
    VIEW_PARAMETERS,
    ResolvedDetector,
    actions_in_scope,
    check_weights,
    resolve_detector,
)
from bevdepth_ros.rendering.visualizer import Visualizer
from bevdepth_ros.rig.settings import COMMON_PARAMETERS, RigSettings
from bevdepth_ros.viewer.node import Viewer
from tests.ros.bring_up.contexts import launch_context
from tests.ros.graph import Graph

NODE = """
import json, sys
import rclpy
from rclpy.node import Node
rclpy.init(args=sys.argv)
node = Node('bevdepth_detector', automatically_declare_parameters_from_overrides=True)
values = {name: one.value for name, one in node.get_parameters_by_prefix('').items()}
print(json.dumps([node.get_fully_qualified_name(), values]))
"""
FILES = {
    'dumped': {'/robot/bevdepth_detector': {'cameras': ['a', 'b'], 'fixed_frame': 'odom'}},
    'partial': {'/**': {'image_transport': 'raw'}},
    'name wins': {'/**': {'base_frame': 'all'}, '/robot/bevdepth_detector': {'base_frame': 'own'}},
    'name first': {
        '/robot/bevdepth_detector': {'base_frame': 'own'},
        '/**': {'base_frame': 'all'},
    },
    'one token': {'/robot/*': {'base_frame': 'token'}, '/*': {'fixed_frame': 'not_in_robot'}},
    'any depth': {'/**/bevdepth_detector': {'base_frame': 'deep'}},
    'other node': {'/robot/bevdepth_viewer': {'base_frame': 'viewer'}},
    'later': {'/**': {'base_frame': 'later', 'sync_slop_s': 0.03}},
}


def write(path: Path, blocks: dict) -> str:
    text = {name: {'ros__parameters': values} for name, values in blocks.items()}
    path.write_text(yaml.safe_dump(text, sort_keys=False))
    return str(path)


def in_process(*arguments: str) -> list:
    """Return name and parameters of a node that a new process starts with these ROS arguments."""
    command = [sys.executable, '-c', NODE, '--ros-args', *arguments]
    return yaml.safe_load(subprocess.run(command, check=True, capture_output=True).stdout)


def resolve(*files: str, context: LaunchContext | None = None, ns: str = '') -> ResolvedDetector:
    return resolve_detector(context or launch_context(), ns, files)


@pytest.mark.parametrize(
    'names', [*([name] for name in FILES), list(FILES)], ids=[*FILES, 'all files']
)
def test_parameter_files_are_merged_as_in_the_process_of_the_node(
    domain_id: int, tmp_path: Path, names: list[str]
):
    files = [write(tmp_path / f'{number}.yaml', FILES[name]) for number, name in enumerate(names)]
    arguments = [argument for path in files for argument in ('--params-file', path)]
    name, values = in_process('-r', '__ns:=/robot', *arguments)
    got = resolve(*files, ns='robot')
    assert got.name == name == '/robot/bevdepth_detector'
    assert got.namespace == '/robot'
    assert got.given == {key: value for key, value in values.items() if key in FIELDS}


def test_a_file_for_a_node_outside_the_namespace_is_rejected(domain_id: int, tmp_path: Path):
    file = write(tmp_path / 'bare.yaml', {'bevdepth_detector': {'base_frame': 'bare'}})
    with pytest.raises(ParametersError, match='has parameters for /bevdepth_detector, but none'):
        resolve(file, ns='robot')


def test_without_files_the_rig_has_the_defaults_and_topics_are_absolute(domain_id: int):
    got = resolve()
    assert (got.name, got.namespace, got.given, got.rig) == (
        '/bevdepth_detector',
        '/',
        {},
        RigSettings(),
    )
    assert got.sources == RigSettings().camera_sources
    assert got.outputs['markers'] == '/bevdepth_detector/markers'
    assert got.remappings_for_others() == []


def test_namespaces_remappings_and_parameters_of_enclosing_launch_files_apply(
    domain_id: int, tmp_path: Path
):
    context = launch_context()
    file = write(tmp_path / 'all.yaml', {'/**': {'fixed_frame': 'odom'}})
    for action in (
        PushRosNamespace('fleet'),
        SetRemap('/b/image', '/b/other'),
        SetRemap('~/objects', '~/boxes'),
        SetParameter('base_frame', 'axle'),
        SetParametersFromFile(file),
    ):
        action.execute(context)
    parameters = {
        'cameras': ['a', 'b'],
        'image_topics': ['{camera}/image', '/b/image'],
        'camera_info_topics': ['{camera}/info', ''],
        'camera_info_files': ['', 'b.yaml'],
    }
    got = resolve(write(tmp_path / 'own.yaml', {'/**': parameters}), context=context, ns='robot')
    assert got.name == '/fleet/robot/bevdepth_detector'
    assert (got.rig.base_frame, got.rig.fixed_frame) == ('axle', 'odom')
    assert [source.image_topic for source in got.sources] == ['/fleet/robot/a/image', '/b/other']
    assert [source.info_topic for source in got.sources] == ['/fleet/robot/a/info', '']
    assert [source.info_file for source in got.sources] == ['', 'b.yaml']
    assert got.outputs['objects'] == '/fleet/robot/bevdepth_detector/boxes'
    assert got.remappings_for_others() == [
        ('/fleet/robot/bevdepth_detector/objects', '/fleet/robot/bevdepth_detector/boxes')
    ]


@pytest.mark.parametrize(
    ('values', 'message_pattern'),
    [
        ({'cameras': ['a', 'a']}, 'cameras must be one or more different names'),
        ({'cameras': 'CAM_FRONT'}, "cameras must be a list of strings, got 'CAM_FRONT'"),
        ({'cameras': [1, 2]}, 'cameras must be a list of strings'),
        ({'base_frame': 5}, 'base_frame must be of type str, got 5'),
        ({'sync_queue_size': True}, 'sync_queue_size must be of type int, got True'),
        ({'sync_slop_s': 5.0}, r'sync_slop_s must lie in 0\.001 to 1, got 5'),
        ({'min_cameras': 0}, 'min_cameras must lie in 1 to 100, got 0'),
        ({'image_transport': 'h264'}, 'image_transport must be one of compressed, raw'),
        (
            {'image_topics': ['{camera} b']},
            "detector: image_topics: 'CAM_FRONT_LEFT b': .*name must",
        ),
        ({'camera_info_topics': ['a b']}, "detector: camera_info_topics: 'a b': .*[^0-9]$"),
    ],
)
def test_invalid_parameters_are_reported_by_name(
    domain_id: int, tmp_path: Path, values: dict, message_pattern: str
):
    with pytest.raises(ParametersError, match=message_pattern):
        resolve(write(tmp_path / 'own.yaml', {'/**': values}))


def test_a_misspelled_parameter_is_reported_with_a_suggestion(domain_id: int, tmp_path: Path):
    file = write(tmp_path / 'own.yaml', {'/**': {'image_topic': ['/a']}})
    words = r'/bevdepth_detector has no parameter image_topic \(did you mean image_topics\?\)'
    with pytest.raises(ParametersError, match=words):
        resolve(file)


def test_the_block_of_the_detector_may_contain_parameters_of_the_views_and_of_every_ros_node(
    graph: Graph, tmp_path: Path
):
    declared = set()
    for node in (Visualizer(), Viewer(parameter_overrides=[Parameter('port', value=0)])):
        graph.add(node)
        declared |= node.get_parameters_by_prefix('').keys()
    assert set(VIEW_PARAMETERS) == declared - FIELDS.keys() - set(COMMON_PARAMETERS)
    values = {**dict.fromkeys(VIEW_PARAMETERS, 1), 'use_sim_time': True}
    resolve(write(tmp_path / 'own.yaml', {'/bevdepth_detector': values}))


def test_missing_weights_that_a_parameter_file_names_are_reported(domain_id: int, tmp_path: Path):
    (tmp_path / 'model.pth').touch()
    check_weights(resolve(), required=False)
    with pytest.raises(ParametersError, match='is empty: add checkpoint:=small'):
        check_weights(resolve(), required=True)
    small = write(tmp_path / 'a.yaml', {'/**': {'checkpoint': 'small'}})
    check_weights(resolve(small), required=True)
    path = tmp_path / 'modle.pth'
    file = write(tmp_path / 'b.yaml', {'/**': {'checkpoint': str(path)}})
    with pytest.raises(ParametersError, match=f'did you mean {tmp_path}/model.pth'):
        check_weights(resolve(file), required=False)


def test_an_integer_is_valid_for_a_float_parameter(domain_id: int, tmp_path: Path):
    file = write(tmp_path / 'own.yaml', {'/**': {'tf_buffer_s': 20}})
    assert resolve(file).rig.tf_buffer_s == 20.0


def test_a_namespace_that_ros_does_not_accept_is_reported(domain_id: int):
    with pytest.raises(
        ParametersError,
        match=r'^namespace /my-robot is invalid: namespace must not contain characters other than',
    ):
        resolve(ns='my-robot')


def test_later_actions_run_in_the_scope_in_which_they_were_created():
    context = launch_context(namespace='inner')
    PushRosNamespace('robot').execute(context)
    seen = []

    def look(later: LaunchContext) -> None:
        seen.append(dict(later.launch_configurations))

    wrapped = actions_in_scope(context, [OpaqueFunction(function=look)])
    later = launch_context(namespace='outer')
    before = dict(later.launch_configurations)
    for action in wrapped:
        action.execute(later)
    assert seen[0]['ros_namespace'] == '/robot'
    assert seen[0]['namespace'] == 'inner'
    assert dict(later.launch_configurations) == before
