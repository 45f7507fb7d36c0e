from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonargparse import ArgumentError

from bevdepth_core.config import load_model_config
from bevdepth_core.training.config import TrainingConfig, build_parser, plain, read_config
from tests.reference import ROOT

PRESETS = sorted((ROOT / 'config' / 'training').glob('*.yaml'))


def read(*arguments: str) -> TrainingConfig:
    parser = build_parser()
    parser.exit_on_error = False
    return read_config(parser, parser.parse_args(list(arguments)))


def preset(name: str) -> TrainingConfig:
    return read('--config', str(ROOT / 'config' / 'training' / f'{name}.yaml'))


def test_every_promised_preset_exists() -> None:
    paper = ('2key', '2key_ema', '2key_da', '2key_da_ema', '1key_ema')
    promised = {
        *(f'r50_256x704_{name}' for name in paper),
        'r50_512x1408_2key',
        'r50_640x1600_2key',
        'small',
    }
    assert {path.stem for path in PRESETS} == promised


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_says_every_value(path: Path) -> None:
    assert plain(read('--config', str(path))) == yaml.safe_load(path.read_text())


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_trains_the_network_of_its_name(path: Path) -> None:
    network = path.stem.removesuffix('_ema')
    assert preset(path.stem).model.network == load_model_config(
        ROOT / 'config' / 'models' / f'{network}.yaml'
    )


@pytest.mark.parametrize('path', PRESETS, ids=lambda path: path.stem)
def test_a_preset_writes_to_a_folder_of_its_own(path: Path) -> None:
    assert preset(path.stem).output == f'out/training/{path.stem}'


@pytest.mark.parametrize(
    ('name', 'epochs', 'milestones', 'balanced', 'averaged', 'velocity', 'weight_decay'),
    [
        ('r50_256x704_2key', 24, (19, 23), False, False, 1, 1e-7),
        ('r50_256x704_2key_ema', 24, (19, 23), False, True, 1, 1e-7),
        ('r50_256x704_2key_da', 20, (16, 19), True, False, 1, 1e-7),
        ('r50_256x704_2key_da_ema', 20, (16, 19), True, True, 1, 1e-7),
        ('r50_256x704_1key_ema', 24, (), False, True, 0.5, 1e-7),
        ('r50_512x1408_2key', 24, (19, 23), False, False, 1, 1e-3),
        ('r50_640x1600_2key', 24, (19, 23), False, False, 1, 1e-3),
    ],
)
def test_the_recipes_are_those_of_the_paper_s_repository(
    name, epochs, milestones, balanced, averaged, velocity, weight_decay
) -> None:
    config = preset(name)
    assert (config.trainer.max_epochs, config.model.milestones, config.data.class_balanced) == (
        epochs,
        milestones,
        balanced,
    )
    assert (config.trainer.averaging is not None, config.model.weight_decay) == (
        averaged,
        weight_decay,
    )
    assert config.model.code_weights == (1.0,) * 8 + (velocity,) * 2
    assert (
        config.model.learning_rate * config.data.batch_size * 8 / config.model.learning_rate_batch
        == pytest.approx(2e-4)
    )
    assert (
        config.trainer.gradient_clip_norm,
        config.model.pretrained,
        config.model.freeze_stem,
    ) == (5, 'IMAGENET1K_V1', True)


def test_the_command_line_changes_a_preset() -> None:
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
    'arguments',
    [
        ('--data.rot', 'x'),
        ('--trainer.precision', '8-mixed'),
        ('--model.network.image.width', '700'),
    ],
)
def test_unknown_names_and_impossible_values_are_refused(arguments: tuple[str, str]) -> None:
    with pytest.raises((ArgumentError, ValueError)):
        read(*arguments)
