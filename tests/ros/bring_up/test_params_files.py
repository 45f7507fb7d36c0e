"""Errors in parameter files are reported with their remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_ros.bring_up.params_files import (
    ParametersError,
    check_blocks,
    check_file,
    check_names,
)

NAMES = ['/robot/bevdepth_detector', '/robot/bevdepth_viewer']


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / 'own.yaml'


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('cameras: [a]\nbase_frame: b\n', 'cameras, base_frame must be inside a block ros__param'),
        ('/**:\n  cameras: [a]\n', 'cameras must be inside a block ros__parameters; begin the'),
        ('a: {ros__parameters: {x: 1}}\nb: 2\n', ': b must be inside a block'),
        (
            'ros__parameters:\n  a: 1\n',
            'ros__parameters must be inside the block of a node; begin',
        ),
        ('/**: {ros__parameters: {classes: []}}', 'classes has an empty list or no value'),
        ('/**:\n  ros__parameters:\n    a:\n    b: {c: }\n', 'a, c has an empty list or no value'),
        ('cameras: [a', 'is not a YAML file of parameters'),
        ('- a\n', 'contains no parameters; begin the file with the lines'),
        ('', 'contains no parameters'),
        ('\x00', 'is not a YAML file of parameters'),
    ],
)
def test_a_malformed_file_is_reported_with_its_path_and_the_remedy(
    path: Path, text: str, words: str
):
    path.write_text(text)
    with pytest.raises(ParametersError) as caught:
        check_file(str(path))
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_a_file_that_does_not_exist_or_is_not_text_is_reported(path: Path):
    path.write_bytes(b'\xff\xfe\xfd')
    for candidate in (path, path.with_name('none')):
        with pytest.raises(ParametersError, match=r'is not a YAML file|cannot be read'):
            check_file(str(candidate))


def test_nested_parameters_and_nested_namespaces_are_valid(path: Path):
    path.write_text('robot:\n  det:\n    ros__parameters: {a: {b: 1, d: ""}, c: [1]}\n')
    check_file(str(path))


@pytest.mark.parametrize(
    'block',
    [
        '/**',
        '/robot/bevdepth_detector',
        'robot/bevdepth_detector',
        '/robot/bevdepth_viewer',
        '/robot/*',
        '/*/bevdepth_detector',
        '/**/bevdepth_detector',
    ],
)
def test_a_block_that_applies_to_a_node_of_the_launch_is_valid(path: Path, block: str):
    path.write_text(f'{block}:\n  ros__parameters: {{a: 1}}\n')
    check_blocks(str(path), NAMES)


def test_a_block_that_is_nested_in_the_block_of_its_namespace_is_valid(path: Path):
    path.write_text('/robot:\n  bevdepth_viewer:\n    ros__parameters: {a: 1}\n')
    check_blocks(str(path), NAMES)


@pytest.mark.parametrize(
    'block', ['/bevdepth_detector', '/*', '/robot', '/other/*', '/robot/bevdepth', '/robotx/*']
)
def test_if_a_file_has_only_blocks_of_other_nodes_the_error_names_them_and_the_detector(
    path: Path, block: str
):
    path.write_text(f'{block}:\n  ros__parameters: {{a: 1}}\n')
    with pytest.raises(ParametersError) as caught:
        check_blocks(str(path), NAMES)
    assert str(caught.value) == (
        f'{path} has parameters for {block}, but none for /robot/bevdepth_detector: rename the '
        'block to /**, or set namespace:= so that the names are equal'
    )


@pytest.mark.parametrize(
    ('block', 'name', 'words'),
    [
        ('/robot/bevdepth_detector', 'image_topic', 'image_topic (did you mean image_topics?);'),
        ('/**/bevdepth_detector', 'xyzzy', 'xyzzy;'),
        ('/**', 'image_topic', 'image_topic (did you mean image_topics?);'),
    ],
)
def test_an_unknown_parameter_of_the_detector_is_reported(
    path: Path, block: str, name: str, words: str
):
    path.write_text(f'{block}:\n  ros__parameters: {{{name}: a, cameras: [a]}}\n')
    with pytest.raises(ParametersError) as caught:
        check_names(str(path), NAMES[0], ['cameras', 'image_topics'])
    assert f'{path}: {NAMES[0]} has no parameter {words}' in str(caught.value)


@pytest.mark.parametrize(
    'text',
    [
        '/**: {ros__parameters: {robot_name: r1, cameras: [a]}}',
        '/robot/camera_driver: {ros__parameters: {image_topic: a}}',
        '/**: {ros__parameters: {qos_overrides: {/a: {subscription: {depth: 1}}}}}',
        '/robot/bevdepth_detector: {ros__parameters: {qos_overrides./a.depth: 1}}',
        '/robot/bevdepth_detector: {ros__parameters: }',
    ],
    ids=['of another node', 'block of another node', 'nested', 'dotted', 'empty'],
)
def test_parameters_of_other_nodes_and_qos_overrides_are_valid(path: Path, text: str):
    path.write_text(text)
    check_names(str(path), NAMES[0], ['cameras', 'image_topics', 'qos_overrides'])
