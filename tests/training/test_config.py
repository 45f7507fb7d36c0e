"""Tests the training presets and the command line of training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import (
    DecodeConfig,
    ScaleNMSConfig,
    SizeAwareNMSConfig,
    StereoConfig,
    load_model_config,
)
from bevdepth_core.model import BEVDepth
from bevdepth_core.training.command_line import InvalidRunError
from bevdepth_core.training.config import TrainingConfig, build_parser, plain, read_arguments
from tests.networks import TINY
from tests.reference import ROOT

TRAINING = ROOT / 'config' / 'training'
ADAPTATION = ('adapt_depth', 'distill', 'fine_tune')
"""Presets that start from a checkpoint and use the network of this checkpoint."""
OFFICIAL_GPUS = 8
"""Number of GPUs in the official experiments. Each GPU processed its own batch."""
PRESETS = sorted(path for path in TRAINING.glob('*.yaml') if path.stem not in ADAPTATION)


def read(*arguments: str) -> TrainingConfig:
    return read_arguments(build_parser(), list(arguments))[0]


def preset(name: str) -> TrainingConfig:
    return read('--config', str(ROOT / 'config' / 'training' / f'{name}.yaml'))


def test_the_presets_that_start_without_a_checkpoint_are_exactly_the_expected_presets() -> None:
    official_variants = ('2key', '2key_ema', '2key_da', '2key_da_ema', '1key_ema')
    expected = {
        *(f'r50_256x704_{name}' for name in official_variants),
        *(f'stereo_r50_256x704_{name}' for name in official_variants if '2key' in name),
        'r50_512x1408_2key',
        'r50_640x1600_2key',
        'small',
    }
    assert {path.stem for path in PRESETS} == expected


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_sets_every_value(path: Path) -> None:
    assert plain(read('--config', str(path))) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize('name', ADAPTATION)
def test_a_preset_that_starts_from_a_checkpoint_sets_every_value_except_the_network(
    name: str,
) -> None:
    values = yaml.safe_load((TRAINING / f'{name}.yaml').read_text())
    complete = plain(read('--config', str(TRAINING / f'{name}.yaml')))
    complete['model'].pop('network')
    assert complete == values and values['model']['init'] == 'small'
    assert values['output'] == f'out/training/{name}'


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_training_preset_has_the_network_of_the_model_preset_with_the_same_name(
    path: Path,
) -> None:
    network = path.stem.removesuffix('_ema')
    assert preset(path.stem).model.network == load_model_config(
        ROOT / 'config' / 'models' / f'{network}.yaml'
    )


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_writes_to_the_output_folder_with_its_name(path: Path) -> None:
    assert preset(path.stem).output == f'out/training/{path.stem}'


OFFICIAL = {
    'epochs': 24,
    'milestones': (19, 23),
    'class_balanced': False,
    'averaged': False,
    'velocity_weight': 1,
    'weight_decay': 1e-7,
    'learning_rate': 2e-4,
}
"""Settings that most of the official experiments have in common."""
CBGS = {'epochs': 20, 'milestones': (16, 19), 'class_balanced': True}
STEREO_CBGS = {**CBGS, 'weight_decay': 1e-2, 'learning_rate': 4e-4}


@pytest.mark.parametrize(
    ('name', 'differences'),
    [
        ('r50_256x704_2key', {}),
        ('r50_256x704_2key_ema', {'averaged': True}),
        ('r50_256x704_2key_da', CBGS),
        ('r50_256x704_2key_da_ema', {**CBGS, 'averaged': True}),
        ('r50_256x704_1key_ema', {'milestones': (), 'averaged': True, 'velocity_weight': 0.5}),
        ('r50_512x1408_2key', {'weight_decay': 1e-3}),
        ('r50_640x1600_2key', {'weight_decay': 1e-3}),
        ('stereo_r50_256x704_2key', {}),
        ('stereo_r50_256x704_2key_ema', {'averaged': True}),
        ('stereo_r50_256x704_2key_da', STEREO_CBGS),
        ('stereo_r50_256x704_2key_da_ema', {**STEREO_CBGS, 'averaged': True}),
    ],
)
def test_the_training_settings_of_a_preset_equal_the_settings_of_the_official_repository(
    name: str, differences: dict
) -> None:
    config = preset(name)
    trainer, model, batch = config.trainer, config.model, config.data.batch_size * OFFICIAL_GPUS
    assert model.code_weights[:8] == (1.0,) * 8
    assert model.code_weights[8] == model.code_weights[9]
    settings = {
        'epochs': trainer.max_epochs,
        'milestones': model.milestones,
        'class_balanced': config.data.class_balanced,
        'averaged': trainer.averaging is not None,
        'velocity_weight': model.code_weights[8],
        'weight_decay': model.weight_decay,
        'learning_rate': pytest.approx(model.learning_rate * batch / model.learning_rate_batch),
    }
    assert settings == {**OFFICIAL, **differences}
    assert (trainer.gradient_clip_norm, model.pretrained, model.freeze_stem) == (
        5,
        'IMAGENET1K_V1',
        True,
    )


def test_options_on_the_command_line_override_the_values_of_a_preset() -> None:
    path = str(ROOT / 'config' / 'training' / 'small.yaml')
    changed = read(
        '--config',
        path,
        '--data.root',
        'elsewhere',
        '--trainer.averaging',
        'null',
        '--model.network.image.width',
        '704',
    )
    assert (changed.data.root, changed.trainer.averaging, changed.model.network.image.width) == (
        'elsewhere',
        None,
        704,
    )


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (('--data.rot', 'x'), r"no option --data\.rot .did you mean '--data\.root'"),
        (('--data.rot=x',), r"no option --data\.rot .did you mean '--data\.root'"),
        (('--dta.root', 'x'), r"did you mean '--data\.root'"),
        (('--trainer.max_epoch', '3'), r"did you mean '--trainer\.max_epochs'"),
        (('data',), "unexpected argument 'data': options start with --"),
        (('--trainer.precision', '8-mixed'), "precision.*one of '16-mixed', 'bf16-mixed'"),
        (('--data.batch_size', 'many'), 'batch_size.*a value of type int. Got value: many'),
        (('--model.network.image.width', '500'), 'image.width must be a positive multiple of 32'),
        (('--model.network.key_frames', '3'), 'key_frames must be 1 or 2, got 3'),
        (('--config', 'xyz.yaml'), r'--config xyz\.yaml: no such file; config/training contains'),
        (('--config', 'smal.yaml'), r"no such file .did you mean 'config/training/small\.yaml'"),
        (('--model', '{netwrk: {}}'), r"key model\.netwrk .did you mean 'model\.network'"),
        (('--model={network: {imge: {}}}',), r"did you mean 'model\.network\.image'"),
        (('--trainer.averaging', '{deca: {}}'), r'unknown key trainer\.averaging\.deca'),
        (('--config', '{mdel: {}}'), "unknown key mdel .did you mean 'model'"),
        (('--model', '{network: null}'), 'the section model.network of the config'),
        (('--model', '{network: '), 'model.*while parsing a flow node'),
        (
            ('--model.init', str(TRAINING / 'small.yaml')),
            r'small\.yaml: a YAML file is a configuration; give a file with weights',
        ),
        (('--model.init', 'smal'), r'smal: neither a checkpoint file .*did you mean small\?'),
    ],
)
def test_an_invalid_argument_is_reported_in_one_line(
    arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InvalidRunError, match=message) as rejected:
        read(*arguments)
    assert '\n' not in str(rejected.value)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('data: {rot: 3}', r"unknown key data\.rot .did you mean 'data\.root'"),
        ('data: {batch_size: many}', 'data.batch_size.*type int'),
        ('model: {network: {key_frames: 3}}', 'key_frames must be 1 or 2'),
        ('data: [', r'preset\.yaml: not YAML: while parsing a flow node.*line 1, column 8'),
        *(
            (text, 'preset.yaml: a configuration must be a YAML mapping')
            for text in ('', '[]', '5')
        ),
    ],
)
def test_an_invalid_preset_is_reported_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / 'preset.yaml').write_text(text)
    with pytest.raises(InvalidRunError, match=message) as rejected:
        read('--config', str(tmp_path / 'preset.yaml'))
    assert '\n' not in str(rejected.value)


def test_if_the_file_for_a_section_contains_no_mapping_the_message_names_the_file(
    tmp_path: Path,
) -> None:
    (tmp_path / 'network.yaml').write_text('[]')
    with pytest.raises(
        InvalidRunError, match=r'network\.yaml: a configuration must be a YAML map'
    ):
        read('--model.network', str(tmp_path / 'network.yaml'))


@pytest.mark.parametrize('name', ADAPTATION)
def test_the_checkpoint_of_model_init_defines_the_network_and_options_can_change_the_network(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / 'tiny.safetensors'
    save_checkpoint(BEVDepth(TINY), path)
    arguments = ('--config', str(TRAINING / f'{name}.yaml'), '--model.init', str(path))
    assert read(*arguments).model.network == TINY
    changed = read(*arguments, '--model.network.image.width', '96')
    assert changed.model.network == replace(TINY, image=replace(TINY.image, width=96))


def test_a_checkpoint_with_every_optional_section_defines_the_network(tmp_path: Path) -> None:
    path = tmp_path / 'stereo.safetensors'
    optional = replace(
        TINY,
        image_encoder=replace(TINY.image_encoder, stride=16),
        stereo=StereoConfig((2.0, 8.0, 18.0)),
        decode=DecodeConfig(scale_nms=ScaleNMSConfig(), size_aware_nms=SizeAwareNMSConfig()),
    )
    save_checkpoint(BEVDepth(optional), path)
    preset = ('--config', str(TRAINING / 'adapt_depth.yaml'), '--model.init', str(path))
    assert read(*preset).model.network == optional
    changed = read(*preset, '--model.network.stereo.iterations=2').model.network
    assert changed == replace(optional, stereo=StereoConfig((2.0, 8.0, 18.0), iterations=2))
    monocular = read(*preset, '--model.network.stereo=null').model.network
    assert monocular == replace(optional, stereo=None)
    file = tmp_path / 'null.yaml'
    file.write_text('model: {network: {stereo: null, decode: {scale_nms: null}}}')
    without = read(*preset, '--config', str(file)).model.network
    decode = replace(optional.decode, scale_nms=None)
    assert without == replace(optional, stereo=None, decode=decode)


def test_head_tasks_on_the_command_line_replace_the_tasks_of_the_checkpoint(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'tiny.safetensors'
    save_checkpoint(BEVDepth(TINY), path)
    tasks = '[{classes: [tram, car], nms_distance_squared: 4.0}]'
    network = read('--model.init', str(path), '--model.network.head.tasks', tasks).model.network
    assert network.class_names == ('tram', 'car')
    assert network.depth_bins == TINY.depth_bins


# Invalid values


@pytest.mark.parametrize(
    ('argument', 'expected'),
    [
        ('--data.batch_size=0', 'data.batch_size must be at least 1, got 0'),
        ('--data.workers=-1', 'data.workers must be at least 0, got -1'),
        ('--trainer.max_epochs=0', 'trainer.max_epochs must be at least 1'),
        ('--trainer.max_steps=0', 'trainer.max_steps must be at least 1'),
        ('--trainer.devices=0', 'trainer.devices must be at least 1'),
        ('--trainer.devices=fast', "trainer.devices must be a value of type int or one of 'auto'"),
        ('--trainer.accumulate_grad_batches=0', 'accumulate_grad_batches must be at least 1'),
        ('--trainer.checkpoint_every_n_steps=0', 'checkpoint_every_n_steps must be at least 1'),
        ('--trainer.averaging.decay=1', 'trainer.averaging.decay must be below 1, got 1'),
        ('--model.learning_rate=-1', 'model.learning_rate must be at least 0, got -1'),
        ('--data.augmentation.image.scale=[1.25,0.88]', 'scale must be [lowest, highest]'),
        ('--data.augmentation.bev.scale=[0,1]', 'bev.scale must be positive factors'),
        ('--data.augmentation.image.flip_probability=2', 'flip_probability must be 0 to 1'),
    ],
)
def test_the_message_about_an_impossible_value_names_its_option(
    argument: str, expected: str
) -> None:
    with pytest.raises(InvalidRunError) as rejected:
        read('--config', str(TRAINING / 'small.yaml'), argument)
    assert expected in str(rejected.value)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('modle:\n  init: small', "unknown key modle.init (did you mean 'model.init'?)"),
        (
            'data:\n  augmentation:\n    rig: {focl: [1, 2]}',
            'unknown key data.augmentation.rig.focl',
        ),
        ('data:\n  cameras: front', 'data.cameras must be list[str] or null, got front'),
        ('model: {netwrk: {}}', "unknown key model.netwrk (did you mean 'model.network'?)"),
        ('mdel: {}', "unknown key mdel (did you mean 'model'?)"),
        ('trainer: {averaging: {deca: {}}}', 'unknown key trainer.averaging.deca'),
        ('data: null', 'the section data of the configuration is empty'),
        ('model: {network: {image: null}}', 'the section model.network.image of the config'),
        ('model: null', 'the section model of the configuration is empty'),
        ('trainer: [1]', 'a section of the configuration does not map keys to values'),
    ],
)
def test_the_message_about_an_invalid_configuration_file_is_one_line_and_names_the_error(
    tmp_path: Path, text: str, expected: str
) -> None:
    (tmp_path / 'run.yaml').write_text(text)
    with pytest.raises(InvalidRunError) as rejected:
        read('--config', str(tmp_path / 'run.yaml'))
    assert expected in str(rejected.value) and '\n' not in str(rejected.value)
