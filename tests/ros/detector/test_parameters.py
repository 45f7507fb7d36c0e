from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.tracking import TrackerConfig
from bevdepth_ros.detector import parameters
from bevdepth_ros.detector.parameters import FIELDS, Settings
from bevdepth_ros.process import start_problem
from bevdepth_ros.rig.settings import INACTIVE, LIVE, START
from tests.markdown import page, table_rows
from tests.reference import ROOT
from tests.ros.graph import Graph

PARAMETERS = table_rows(page('docs/NODE.md'), 'parameter')
PRESETS = sorted((ROOT / 'config' / 'cameras').glob('*.yaml'))


def values_in(path: Path) -> dict:
    return yaml.safe_load(path.read_text())['/**']['ros__parameters']


def settings(**changes) -> Settings:
    return Settings(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in changes.items()
        }
    )


@pytest.fixture
def node_with(graph: Graph) -> Iterator[Callable[..., Node]]:
    """Yield a function that creates a node with the given parameter values."""
    made: list[Node] = []

    def make(**values) -> Node:
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        made.append(
            Node(
                'declared',
                parameter_overrides=overrides,
                automatically_declare_parameters_from_overrides=True,
            )
        )
        return made[-1]

    yield make
    for node in made:
        node.destroy_node()


def test_the_message_about_an_empty_list_parameter_contains_the_remedy(graph: Graph):
    """The error of rclpy contains neither the name of the parameter nor the cause."""
    with pytest.raises(ValueError, match='NOT_SET') as caught:
        Node(
            'declared',
            cli_args=['--ros-args', '-p', 'classes:=[]'],
            automatically_declare_parameters_from_overrides=True,
        )
    assert 'write [""], or leave the parameter out' in start_problem(caught.value)
    assert start_problem(ValueError('another reason')) == 'another reason'


def test_relative_topic_names_are_resolved_in_the_namespace_of_the_node(graph: Graph):
    given = {
        'image_topics': ['{camera}/image'],
        'camera_info_topics': ['~/{camera}/info'],
        'odometry_topic': '/odom',
    }
    node = Node(
        'declared',
        namespace='/robot',
        parameter_overrides=[Parameter(name, value=value) for name, value in given.items()],
        automatically_declare_parameters_from_overrides=True,
    )
    parameters.declare(node)
    settings = parameters.read(node)
    node.destroy_node()
    assert settings.image_topics == ('/robot/{camera}/image',)
    assert settings.camera_info_topics == ('/robot/declared/{camera}/info',)
    assert settings.odometry_topic == '/odom'


def test_detector_yaml_contains_every_parameter_with_its_default_value():
    assert settings(**values_in(ROOT / 'config' / 'detector.yaml')) == Settings()
    assert values_in(ROOT / 'config' / 'detector.yaml').keys() == FIELDS.keys()


def test_detector_yaml_has_a_comment_above_every_parameter():
    lines = (ROOT / 'config' / 'detector.yaml').read_text().splitlines()
    for name in FIELDS:
        position = next(
            index for index, line in enumerate(lines) if line.strip().startswith(f'{name}:')
        )
        assert lines[position - 1].strip().startswith('# '), name


def test_the_comments_in_detector_yaml_mark_live_and_read_only_parameters():
    text = (ROOT / 'config' / 'detector.yaml').read_text()
    for name, field in FIELDS.items():
        comment = text[: text.index(f'    {name}:')].splitlines()[-1]
        assert ('Live.' in comment, 'Read-only.' in comment) == (
            field.metadata['change'] == LIVE,
            field.metadata['change'] == START,
        ), name


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_every_camera_preset_has_valid_settings_for_six_cameras(path: Path):
    assert len(settings(**values_in(path)).camera_sources) == 6


def test_the_nuscenes_preset_equals_the_default_settings():
    assert settings(**values_in(ROOT / 'config' / 'cameras' / 'nuscenes.yaml')) == Settings()


def test_a_topic_pattern_applies_to_every_camera_and_a_list_has_one_topic_per_camera():
    sources = settings(
        cameras=['a', 'b'], image_topics=['/{camera}/image'], camera_info_topics=['/x', '/y']
    ).camera_sources
    assert [source.image_topic for source in sources] == ['/a/image', '/b/image']
    assert [source.info_topic for source in sources] == ['/x', '/y']


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'cameras': []}, 'one or more different names'),
        ({'cameras': ['a', 'a']}, 'one or more different names'),
        ({'cameras': ['']}, 'one or more different names'),
        (
            {'image_topics': ['/a', '/b']},
            r'image_topics must hold one pattern or one entry per camera \(6\), got 2',
        ),
        ({'image_topics': ['/same']}, 'a different topic'),
        (
            {'camera_info_topics': ['']},
            'camera CAM_FRONT_LEFT needs an entry in camera_info_topics or in camera_info_files',
        ),
        ({'base_frame': ''}, 'base_frame must not be empty'),
        ({'base_frame': '/base_link'}, 'frame /base_link must not begin .* write base_link'),
        ({'fixed_frame': '/odom'}, 'write odom'),
        ({'camera_frames': ['/{camera}_optical']}, 'write {camera}_optical'),
        ({'output_frame': '/map'}, 'write map'),
        ({'fixed_frame': 'base_link'}, r'fixed_frame must not be base_frame \(base_link\)'),
        ({'runtime': 'tensorrt'}, 'runtime must be one of torch, onnx'),
        ({'precision': 'fp8'}, 'precision must be one of auto, fp32, fp16, bf16'),
    ],
)
def test_invalid_and_contradictory_parameter_values_are_rejected_with_the_reason(
    changes: dict, words: str
):
    with pytest.raises(ValueError, match=words):
        settings(**changes)


def test_the_message_about_an_empty_checkpoint_contains_the_remedy():
    with pytest.raises(ValueError, match='give the path or the name of weights'):
        _ = Settings().checkpoint_path


def test_the_runtime_onnx_needs_a_folder():
    assert Settings(onnx_folder='/ignored').exported_network is None
    assert Settings(runtime='onnx', onnx_folder='/x').exported_network == Path('/x')
    with pytest.raises(ValueError, match='runtime is onnx, but onnx_folder is empty'):
        _ = Settings(runtime='onnx').exported_network


def test_every_parameter_has_a_description_and_every_number_has_a_range(node_with):
    node = node_with()
    parameters.declare(node)
    for name, field in FIELDS.items():
        found = node.describe_parameter(name)
        assert found.description
        assert found.read_only == (field.metadata['change'] == START)
        ranges = [*found.floating_point_range, *found.integer_range]
        assert bool(ranges) == (type(field.default) in (int, float)), name
        for limits in ranges:
            assert limits.from_value <= field.default <= limits.to_value
    assert parameters.read(node) == Settings()


def test_an_integer_is_accepted_for_a_float_parameter(node_with):
    node = node_with(score_threshold=1, sync_slop_s=1)
    parameters.declare(node)
    assert parameters.read(node) == dataclasses.replace(
        Settings(), score_threshold=1.0, sync_slop_s=1.0
    )


def test_an_unknown_parameter_is_logged_with_a_suggestion(node_with, capfd: pytest.CaptureFixture):
    node = node_with(score_treshold=0.5, use_sim_time=False)
    parameters.declare(node)
    logged = capfd.readouterr().err
    assert (
        'parameter score_treshold is unknown and has no effect (did you mean score_threshold?)'
        in logged
    )
    assert 'use_sim_time' not in logged


@pytest.mark.parametrize(
    ('name', 'value'),
    [
        ('checkpoint', 3),
        ('cameras', 'CAM_FRONT'),
        ('sync_queue_size', 2.5),
        ('images_rectified', 1),
    ],
)
def test_the_message_about_a_value_of_the_wrong_type_names_the_parameter(
    node_with, name: str, value
):
    node = node_with(**{name: value})
    with pytest.raises(ValueError, match=f'parameter {name} must be'):
        parameters.declare(node)


def test_a_value_out_of_range_is_rejected(node_with):
    node = node_with(score_threshold=1.5)
    with pytest.raises(InvalidParameterValueException, match='out of range'):
        parameters.declare(node)


def test_only_parameters_described_as_live_may_change_while_the_node_is_active():
    parameters.check_live(
        name for name, field in FIELDS.items() if field.metadata['change'] == LIVE
    )
    for name in (name for name, field in FIELDS.items() if field.metadata['change'] == INACTIVE):
        with pytest.raises(ValueError, match=f'{name} cannot change while the node is active'):
            parameters.check_live([name])


def number(value: float) -> str:
    return f'{value:g}'


def documented_range(field: dataclasses.Field) -> str:
    metadata = field.metadata
    if metadata['choices']:
        return ', '.join(f'`{choice}`' for choice in metadata['choices'])
    return (
        ''
        if metadata['low'] is None
        else f'{number(metadata["low"])} to {number(metadata["high"])}'
    )


def documented_default(value: object) -> str:
    """Return the text of a default value in the table of docs/NODE.md.

    A list with one entry is written as this entry, and an empty string as ``none``. The only
    longer list contains the cameras; the table describes this list in words.
    """
    if isinstance(value, tuple) and len(value) > 1:
        return 'the six cameras of nuScenes'
    (value,) = value if isinstance(value, tuple) else (value,)
    text = str(value).lower() if isinstance(value, bool) else value
    text = number(text) if isinstance(text, float) else str(text)
    return f'`{text}`' if text else 'none'


def test_docs_node_md_documents_exactly_the_parameters_of_the_node() -> None:
    assert set(PARAMETERS) == set(FIELDS)


@pytest.mark.parametrize('name', FIELDS)
def test_the_columns_default_range_and_change_of_docs_node_md_agree_with_the_code(
    name: str,
) -> None:
    field = FIELDS[name]
    expected = [
        documented_default(field.default),
        documented_range(field),
        field.metadata['change'],
    ]
    assert PARAMETERS[name][:3] == expected, f'docs/NODE.md, row {name}'


def test_the_default_cameras_are_the_six_cameras_of_nuscenes() -> None:
    assert FIELDS['cameras'].default == CAMERAS


CLASSES = ('car', 'pedestrian', 'bus')


def test_parameters_define_the_output_filters():
    found = settings(
        score_threshold=0.3,
        class_score_thresholds=['pedestrian=0.05'],
        classes=['car', 'pedestrian'],
        class_name_map=['car=CAR'],
        max_range_m=40.0,
        region_of_interest='[[0, 0], [1, 0], [0, 1]]',
        track_min_age_s=0.5,
    )
    selection = found.selection(CLASSES)
    assert selection.names == ('CAR', 'pedestrian', 'bus')
    assert selection.thresholds.tolist() == [0.3, 0.05, float('inf')]
    assert selection.region.tolist() == [[0, 0], [1, 0], [0, 1]]
    assert (selection.max_range_m, selection.min_age_s) == (40.0, 0.5)
    assert found.lowest_threshold == 0.05
    assert settings(class_score_thresholds=['bus=0.9']).lowest_threshold == 0.1
    with pytest.raises(ValueError, match='the detector has no class'):
        found.selection(('car', 'bus'))


@pytest.mark.parametrize('name', ['class_score_thresholds', 'class_name_map'])
def test_the_message_about_a_value_in_a_wrong_format_contains_an_example(name: str):
    with pytest.raises(ValueError, match=f'{name}: write an entry like'):
        settings(**{name: ['car']})


def test_a_region_of_interest_that_is_not_a_list_of_corners_is_rejected():
    with pytest.raises(ValueError, match='region_of_interest must be a list of corners'):
        parameters.check_formats({'region_of_interest': 'front', 'device': 'cpu'})


def test_the_tracker_is_configured_by_the_parameters():
    usual = TrackerConfig()
    found = settings(track_birth_score=0.7, track_min_hits=4, track_coast_s=0.3).tracker_config
    assert (found.birth_score, found.min_hits, found.coast_s) == (0.7, 4, 0.3)
    assert found.keep_s == usual.keep_s > 0.3
    assert settings(track_coast_s=9.0).tracker_config.keep_s == 9.0


def test_a_tilde_at_the_start_of_a_path_is_replaced_by_the_home_folder(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setenv('HOME', '/home/someone')
    found = Settings(checkpoint='~/a.pth', runtime='onnx', onnx_folder='~/b')
    assert found.checkpoint_path == Path('/home/someone/a.pth')
    assert found.exported_network == Path('/home/someone/b')


def test_check_choices_checks_only_parameters_that_have_choices():
    parameters.check_choices({'precision': 'fp16', 'device': 'anything'})
    with pytest.raises(ValueError, match='precision must be one of'):
        parameters.check_choices({'device': 'cpu', 'precision': 'fp8'})


def test_a_list_of_numbers_is_rejected_where_strings_are_expected(node_with):
    with pytest.raises(ValueError, match='parameter cameras must be a list of strings'):
        parameters.declare(node_with(cameras=[1, 2]))
