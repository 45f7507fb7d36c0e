"""Tests valid launch arguments, and the error messages for invalid arguments."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from bevdepth_ros.bags.writer import BagWriter
from bevdepth_ros.bring_up import arguments
from bevdepth_ros.bring_up.arguments import (
    ARGUMENTS,
    PRESETS,
    Arguments,
    ArgumentsError,
    is_launched_directly,
    read_arguments,
)
from tests.reference import ROOT
from tests.ros.bring_up.contexts import LAUNCH_FILE, launch_context

DIRECT = ['ros2', 'launch', 'bevdepth_ros', 'detect.launch.py']


def read(**values: str | Path) -> Arguments:
    return read_arguments(launch_context(**values), str(LAUNCH_FILE))


def problem(**values: str | Path) -> str:
    with pytest.raises(ArgumentsError) as caught:
        read(**values)
    return str(caught.value)


def test_without_arguments_all_values_are_the_documented_defaults():
    assert read() == Arguments(
        params_files=(),
        overrides={},
        bag='',
        rate=1.0,
        start=0.0,
        duration=None,
        start_paused=False,
        step=0.1,
        loop=False,
        record='',
        use_sim_time=None,
        rviz=False,
        foxglove_layout='',
        visualizer=False,
        viewer=False,
        viewer_host='127.0.0.1',
        viewer_port=8080,
        namespace='',
        autostart=True,
        is_direct=False,
    )


def test_every_launch_argument_has_a_description_and_a_field_unless_it_is_converted():
    for argument in ARGUMENTS:
        assert len(argument.description) > 20, argument.name
    names = {argument.name for argument in ARGUMENTS}
    fields = {field.name for field in dataclasses.fields(Arguments)}
    converted = {'params_file', 'camera_preset', 'checkpoint', 'device', 'precision'}
    assert names - converted == fields - {'params_files', 'overrides', 'is_direct'}


@pytest.mark.parametrize('name', ['start_paused', 'loop', 'rviz', 'visualizer', 'autostart'])
def test_boolean_arguments_accept_the_spelling_of_yaml_and_of_python(name: str):
    for text, value in (('true', True), ('True', True), ('false', False), ('False', False)):
        assert getattr(read(**{name: text}), name) is value


def test_a_start_beyond_the_end_of_the_bag_is_an_error(tmp_path: Path):
    bag = tmp_path / 'bag'
    with BagWriter(bag) as writer:
        for second in (0, 2):
            writer.write_camera_info('CAM_FRONT', (10**9 + second) * 10**9, np.eye(3), 16, 9)
    assert read(bag=bag, start='2').start == 2.0
    assert problem(bag=bag, start='2.1') == (
        'start:=2.1 is beyond the end of the bag, which is 2 s long: give a smaller number'
    )


def test_a_recording_that_exists_is_not_replaced(tmp_path: Path):
    record = tmp_path / 'detections'
    assert read(record=record).record == str(record)
    record.mkdir()
    assert problem(record=record) == (
        f'record:={record} exists: choose another folder, or remove it'
    )


def test_numbers_and_strings_are_passed_on_unchanged():
    got = read(
        rate='0.5', start='2', duration='3.5', step='0.04', viewer='web', viewer_port='0',
        viewer_host='::1', record='recording', namespace='robot', foxglove_layout='a.json',
    )  # fmt: skip
    assert (got.rate, got.start, got.duration, got.step) == (0.5, 2.0, 3.5, 0.04)
    assert (got.viewer, got.viewer_port, got.viewer_host) == (True, 0, '::1')
    assert (got.record, got.namespace, got.foxglove_layout) == ('recording', 'robot', 'a.json')


def test_only_the_given_values_of_checkpoint_device_and_precision_override_parameters():
    got = read(checkpoint='small', precision='fp16')
    assert got.overrides == {'checkpoint': 'small', 'precision': 'fp16'}


def test_weights_that_do_not_exist_are_reported_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    command = '`ros2 run bevdepth_ros weights download 2key_da`'
    assert 'checkpoint:=2key_da: these weights are not' in problem(checkpoint='2key_da')
    assert command in problem(checkpoint='2key_da')
    assert 'did you mean small?' in problem(checkpoint='smal')
    file = tmp_path / 'model.pth'
    file.touch()
    assert read(checkpoint=file).overrides == {'checkpoint': str(file)}
    assert f'did you mean {file}?' in problem(checkpoint=tmp_path / 'model.pt')
    (tmp_path / 'x.pth').mkdir()
    (tmp_path / 'x.yaml').touch()
    without = (
        f'checkpoint:={tmp_path}/x.ckpt: no such checkpoint file; give the path of a file, or '
    )
    assert problem(checkpoint=tmp_path / 'x.ckpt').startswith(f'{without}one of small, 2key, ')
    assert 'the folder /nowhere does not exist' in problem(checkpoint='/nowhere/weights.pth')


@pytest.mark.parametrize(
    ('name', 'text', 'words'),
    [
        ('viewer', 'wbe', ' (did you mean web?)'),
        ('precision', 'fp61', ' (did you mean fp16?)'),
        ('loop', 'ture', ' (did you mean true?)'),
        ('autostart', '1', ': give one of true, false'),
        ('device', 'gpu', ': give auto, cpu, cuda or cuda:<n>'),
        ('device', 'cuda0', ': give auto, cpu, cuda or cuda:<n>'),
    ],
)
def test_a_value_that_is_not_among_the_choices_is_reported_with_a_suggestion(
    name: str, text: str, words: str
):
    assert problem(**{name: text}) == f'{name}:={text} is invalid{words}'


def test_the_description_of_an_argument_lists_its_choices():
    descriptions = {one.name: one.description for one in ARGUMENTS}
    assert descriptions['loop'].endswith(' One of: true, false.')
    assert descriptions['precision'].endswith(' One of: auto, fp32, fp16, bf16.')


@pytest.mark.parametrize('device', ['auto', 'cpu', 'cuda', 'cuda:1'])
def test_every_documented_device_is_valid(device: str):
    assert read(device=device).overrides == {'device': device}


@pytest.mark.parametrize(
    ('name', 'text', 'wanted'),
    [
        ('rate', 'fast', 'greater than 0'),
        ('rate', '0', 'greater than 0'),
        ('rate', '-1', 'greater than 0'),
        ('rate', 'inf', 'greater than 0'),
        ('rate', 'nan', 'greater than 0'),
        ('rate', '', 'greater than 0'),
        ('start', '-0.1', 'of at least 0'),
        ('start', 'late', 'of at least 0'),
        ('duration', '0', 'greater than 0'),
        ('step', '0', 'greater than 0'),
        ('viewer_port', 'http', 'from 0 to 65535'),
        ('viewer_port', '65536', 'from 0 to 65535'),
        ('viewer_port', '-1', 'from 0 to 65535'),
        ('viewer_port', '80.5', 'from 0 to 65535'),
    ],
)
def test_an_invalid_or_out_of_range_number_is_reported_with_its_argument(
    name: str, text: str, wanted: str
):
    assert problem(**{name: text}) == f'{name}:={text} is invalid: give a number {wanted}'


def test_numbers_equal_to_their_limits_are_valid():
    assert read(start='0').start == 0
    assert read(viewer_port='65535').viewer_port == 65535


def test_every_camera_preset_is_found_by_its_name_and_applies_after_the_params_file(
    tmp_path: Path,
):
    path = tmp_path / 'own.yaml'
    path.touch()
    assert len(PRESETS) > 3
    for preset in PRESETS:
        first, second = read(params_file=path, camera_preset=preset).params_files
        assert (first, Path(second).resolve()) == (
            str(path),
            ROOT / 'config' / 'cameras' / f'{preset}.yaml',
        )
    assert read(camera_preset=path).params_files == (str(path),)


def test_a_misspelled_camera_preset_is_reported_with_a_suggestion():
    assert problem(camera_preset='nuscense') == (
        'camera_preset:=nuscense does not exist (did you mean nuscenes?)'
    )
    listed = problem(camera_preset='xyzzy')
    assert all(preset in listed for preset in PRESETS)


def test_files_that_do_not_exist_are_reported(tmp_path: Path):
    assert 'params_file:=/nowhere.yaml does not exist' in problem(params_file='/nowhere.yaml')
    assert f'params_file:={tmp_path} is not a file' in problem(params_file=tmp_path)
    assert 'bag:=/nowhere does not exist' in problem(bag='/nowhere')


@pytest.mark.parametrize('name', ['x.png', 'x.mcap', 'x.db3', 'x'])
def test_a_file_that_is_not_a_bag_is_reported_before_any_process_starts(tmp_path: Path, name: str):
    path = tmp_path / name
    path.write_bytes(b'\x89PNG')
    assert f'bag:={path}: ' in problem(bag=path)


def test_several_problems_are_reported_together():
    found = problem(rate='fast', camera_preset='nuscense', step='x')
    assert found.count(';') == 2
    assert re.search('nuscense.*rate:=fast.*step:=x', found)


def test_use_sim_time_is_true_with_a_bag_if_the_argument_is_not_given(
    small_bag: Path,
):
    assert read(bag=small_bag).use_sim_time is True
    assert read(bag=small_bag, use_sim_time='false').use_sim_time is False
    assert read(use_sim_time='True').use_sim_time is True
    assert read(use_sim_time='').use_sim_time is None


def test_unknown_arguments_are_reported_when_the_file_is_launched_directly(
    monkeypatch: pytest.MonkeyPatch,
):
    words = ['chekpoint:=small', 'device:=cpu', 'xyzzy:=1']
    monkeypatch.setattr('sys.argv', [*DIRECT, *words])
    with pytest.raises(ArgumentsError) as caught:
        read_arguments(launch_context(words), str(LAUNCH_FILE))
    assert str(caught.value) == (
        'chekpoint is not an argument of detect.launch.py (did you mean checkpoint?); '
        'xyzzy is not an argument of detect.launch.py; `--show-args` lists all arguments'
    )


def test_arguments_of_an_enclosing_launch_file_are_not_reported(monkeypatch: pytest.MonkeyPatch):
    words = ['robot_name:=r2']
    monkeypatch.setattr('sys.argv', ['ros2', 'launch', 'robot', 'robot.launch.py', *words])
    assert not read_arguments(launch_context(words), str(LAUNCH_FILE)).is_direct


def test_a_launch_by_package_and_file_name_or_by_path_counts_as_direct(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = str(LAUNCH_FILE)
    assert is_launched_directly(path, [*DIRECT, 'bag:=x'])
    assert is_launched_directly(path, [*DIRECT[:2], '--debug', path, 'bag:=x'])
    monkeypatch.chdir(LAUNCH_FILE.parent)
    assert is_launched_directly(path, [*DIRECT[:2], 'detect.launch.py'])
    other = tmp_path / 'detect.launch.py'
    other.touch()
    assert not is_launched_directly(path, [*DIRECT[:2], str(other)])
    assert not is_launched_directly(path, [*DIRECT[:2], 'my_robot', 'robot.launch.py'])
    assert not is_launched_directly(path, ['pytest'])
    assert not is_launched_directly(path, ['python'])
    assert not is_launched_directly(path, [])
    assert arguments.suggestion('x', []) == ''
