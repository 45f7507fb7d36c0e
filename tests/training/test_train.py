"""Tests the training command on a small dataset of another vehicle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

import bevdepth_core.training.train as train_module
from bevdepth_core.checkpoint import CheckpointError, load_checkpoint
from bevdepth_core.config import load_model_config
from bevdepth_core.inference import Detector
from bevdepth_core.training.checkpoints import main as export
from bevdepth_core.training.command_line import InvalidRunError
from bevdepth_core.training.train import build_trainer, loggers, main, resume_command
from tests.core.nuscenes.own_rig import SPLIT, OwnBox, write_own_dataset
from tests.reference import ROOT
from tests.training.runs import run, tiny_config
from tests.training.tiny_runs import command, tiny_checkpoint


@pytest.fixture(scope='module')
def root(tmp_path_factory) -> Path:
    return write_own_dataset(tmp_path_factory.mktemp('own') / 'data', frames=4)


@pytest.fixture(scope='module')
def trained(root: Path, tmp_path_factory) -> Path:
    """Train one step with the preset ``small``, and return the output folder."""
    output = tmp_path_factory.mktemp('run')
    scale = ('--data.augmentation.image.relative=true', '--data.augmentation.image.scale=[1,1]')
    steps = ('--trainer.max_steps=1', '--data.class_balanced=false')
    main(command('small', root, output, *steps, *scale))
    return output


def message(arguments: list[str]) -> str:
    """Run the training command, which must fail, and return the message."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return str(stopped.value.code)


def test_the_command_trains_and_writes_weights_that_the_detector_can_load(trained: Path) -> None:
    path = trained / 'weights/step_000001.safetensors'
    detector = Detector.from_checkpoint(path)
    assert detector.config == load_model_config(ROOT / 'config/models/small.yaml')
    metadata = load_checkpoint(path).metadata
    description = json.loads(metadata['training'])
    assert (metadata['training_steps'], metadata['averaged']) == ('1', 'true')
    assert description['data']['split'] == SPLIT
    assert description['class_names'] == list(detector.class_names)
    assert description['source_revision']


def test_weights_have_the_name_of_an_epoch_only_if_the_epoch_is_complete(tmp_path: Path) -> None:
    """An epoch has five steps."""
    run(tiny_config(tmp_path / 'complete', max_steps=5))
    run(tiny_config(tmp_path / 'incomplete', max_steps=7))
    names = [
        sorted(path.stem for path in (tmp_path / name / 'weights').iterdir())
        for name in ('complete', 'incomplete')
    ]
    assert names == [['epoch_001'], ['epoch_001', 'step_000007']]


def test_loss_curves_and_the_configuration_are_written_to_the_output_folder(
    trained: Path,
) -> None:
    header, first = (trained / 'csv/version_0/metrics.csv').read_text().splitlines()[:2]
    losses = {'loss/total', 'loss/heatmap', 'loss/box', 'loss/depth', 'step'}
    assert losses <= set(header.split(','))
    assert first
    assert list((trained / 'tensorboard/version_0').glob('events.*'))
    assert f'split: {SPLIT}' in (trained / 'config.yaml').read_text()


def test_an_existing_run_is_not_overwritten_and_can_be_resumed(root: Path, tmp_path: Path) -> None:
    init = f'--model.init={tiny_checkpoint(tmp_path)}'
    output = tmp_path / 'run'
    main(command('fine_tune', root, output, init))
    assert '--resume true' in message(command('fine_tune', root, output, init))
    main(command('fine_tune', root, output, init, '--trainer.max_epochs=2', '--resume=true'))
    steps = [
        load_checkpoint(output / f'weights/epoch_00{epoch}.safetensors').metadata['training_steps']
        for epoch in (1, 2)
    ]
    assert steps == ['2', '4']


# Errors


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--data.rot=x'], "no option --data.rot (did you mean '--data.root'?)"),
        (['--data.split=own_trian'], "did you mean 'own_train'"),
        (['--data.version=v2'], 'has no folder v2'),
        (['--data.cameras=[frnt]'], "did you mean 'front'"),
        (['--trainer.devices=0'], 'trainer.devices must be at least 1'),
        (['--trainer.accelerator=gpu'], 'check --trainer.accelerator'),
        (['--trainer.precision=16-mixed'], '--trainer.precision 32-true'),
        (['--model.network.image.width=500'], 'image.width must be a positive multiple of 32'),
        (['--model.network.depth_bins.step=1.0'], 'differs from model.network in'),
        (['--trainer.logger=mlflow'], 'pip install mlflow'),
        (['--data.categories=nothing.yaml'], 'nothing.yaml cannot be read'),
        (['--data.batch_size=5'], '4 samples are fewer than one batch of 5'),
    ],
)
def test_an_invalid_run_ends_with_one_message(
    root: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    init = f'--model.init={tiny_checkpoint(tmp_path)}'
    text = message(command('fine_tune', root, tmp_path / 'run', init, *arguments))
    assert text.startswith('train: ') and expected in text
    assert len(text.splitlines()) == 1


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['--trainer.accelerator=gpu'], 'check --trainer.accelerator'),
        (['--trainer.precision=bf16-mixed'], '--trainer.precision 32-true'),
        (['--output=/dev/null/run'], '--output /dev/null/run: Not a directory; choose a folder'),
        (['--output=/dev/null'], '--output /dev/null: not a folder; choose a folder'),
        (['--model.init=null', '--model.pretrained=no_file.pth'], 'no_file.pth does not exist'),
    ],
)
def test_devices_output_and_weights_are_checked_before_the_data_is_read(
    tmp_path: Path, arguments: list[str], expected: str
) -> None:
    init = f'--model.init={tiny_checkpoint(tmp_path)}'
    text = message(
        command('fine_tune', tmp_path / 'no dataset', tmp_path / 'run', init, *arguments)
    )
    assert expected in text and len(text.splitlines()) == 1


def test_an_absolute_scale_range_that_does_not_fit_the_images_is_rejected_with_the_remedy(
    root: Path, tmp_path: Path
) -> None:
    text = message(command('small', root, tmp_path / 'run'))
    assert 'the scale that fits images of 96x64 to the network input of 544x192' in text
    remedy = ['--data.augmentation.image.relative=true']
    assert 'set --data.augmentation.image.relative true --data.augmentation.image.scale' in text
    assert 'does not contain 1,' in message(command('small', root, tmp_path / 'run', *remedy))


def test_a_dataset_without_usable_boxes_is_an_error(tmp_path: Path) -> None:
    root = write_own_dataset(tmp_path / 'data', [OwnBox('tram')])
    init = f'--model.init={tiny_checkpoint(tmp_path)}'
    text = message(command('fine_tune', root, tmp_path / 'run', init))
    assert 'no usable boxes' in text and 'tram 3' in text


def test_mixed_precision_without_a_gpu_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InvalidRunError, match=r'--trainer\.precision 32-true'):
        run(tiny_config(tmp_path, precision='bf16-mixed'))


def test_random_weights_that_would_stay_frozen_are_rejected_with_the_remedy(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path)
    frozen = replace(config, model=replace(config.model, freeze_stem=True))
    with pytest.raises(InvalidRunError, match=r'add --model\.freeze_stem false'):
        run(frozen)


def test_several_machines_without_a_launcher_are_rejected_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidRunError, match=r'trainer\.nodes 2 needs torchrun or srun'):
        build_trainer(tiny_config(tmp_path, nodes=2))


@pytest.mark.parametrize('name', ['TORCHELASTIC_RUN_ID', 'MASTER_ADDR'])
def test_several_machines_with_a_launcher_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    started = {'MASTER_ADDR': 'first', 'MASTER_PORT': '29500', 'RANK': '0', 'WORLD_SIZE': '2'}
    for key, value in {**started, 'LOCAL_RANK': '0', 'GROUP_RANK': '0', name: 'first'}.items():
        monkeypatch.setenv(key, value)
    assert build_trainer(tiny_config(tmp_path, nodes=2)).num_nodes == 2


def test_several_processes_without_a_gpu_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    build_trainer(tiny_config(tmp_path))
    assert 'training processes share the CPU' not in caplog.text
    build_trainer(tiny_config(tmp_path, devices=4))
    assert '4 training processes share the CPU' in caplog.text


HOLD = """
import sys, pathlib
from bevdepth_core.training.run_lock import locked
with locked(pathlib.Path(sys.argv[1])):
    print('locked', flush=True)
    sys.stdin.read()
"""


def test_a_second_run_with_the_same_output_is_rejected_until_the_first_run_ends(
    tmp_path: Path,
) -> None:
    command = [sys.executable, '-c', HOLD, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == 'locked\n'
        with pytest.raises(InvalidRunError, match=f'another training writes to {tmp_path}'):
            run(tiny_config(tmp_path))
        other.kill()
    run(tiny_config(tmp_path, max_steps=1))


@pytest.mark.parametrize('name', ['wandb', 'mlflow'])
def test_the_message_about_a_missing_logger_package_names_the_package(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(InvalidRunError, match=f'needs the package {name}: pip install {name}'):
        loggers(tiny_config(tmp_path, logger=name))


# Ctrl-C and SIGTERM


class Interrupt(Callback):
    """Sends the signal ``number`` to this process after ``step`` steps."""

    def __init__(self, step: int, number: int) -> None:
        self._step, self._number = step, number

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if trainer.global_step == self._step:
            os.kill(os.getpid(), self._number)


@pytest.mark.parametrize(
    ('number', 'status', 'word'),
    [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'terminated')],
)
def test_after_a_signal_training_saves_a_checkpoint_and_prints_the_command_to_resume(
    root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    number: int,
    status: int,
    word: str,
) -> None:
    callbacks = train_module.callbacks
    monkeypatch.setattr(
        train_module, 'callbacks', lambda config: [*callbacks(config), Interrupt(1, number)]
    )
    init = f'--model.init={tiny_checkpoint(tmp_path)}'
    arguments = command('fine_tune', root, tmp_path / 'my run', init)
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == status
    assert torch.load(tmp_path / 'my run/last.ckpt', weights_only=True)['global_step'] == 1
    text = capsys.readouterr().err
    assert f'{word} after step 1; wrote ' in text
    assert text.splitlines()[-1].strip() == resume_command(arguments)


def test_the_command_to_resume_is_quoted_and_contains_the_option_resume_once() -> None:
    arguments = ['--config', 'a b.yaml', '--resume', 'false', '--seed', '3', '--resume=false']
    expected = "python training/train.py --config 'a b.yaml' --seed 3 --resume true"
    assert resume_command(arguments) == expected


# Export


@pytest.mark.parametrize('averaging', [True, False])
def test_weights_exported_from_a_checkpoint_equal_the_weights_of_the_epoch(
    tmp_path: Path, averaging: bool
) -> None:
    settings = {} if averaging else {'averaging': None}
    run(tiny_config(tmp_path, max_epochs=1, **settings))
    export([str(tmp_path / 'last.ckpt'), str(tmp_path / 'exported.safetensors')])
    exported, written = (
        load_checkpoint(tmp_path / name)
        for name in ('exported.safetensors', 'weights/epoch_001.safetensors')
    )
    torch.testing.assert_close(exported.state_dict(), written.state_dict(), rtol=0, atol=0)
    assert exported.metadata == written.metadata


def test_if_a_training_checkpoint_is_loaded_as_weights_the_message_contains_the_export_command(
    tmp_path: Path,
) -> None:
    run(tiny_config(tmp_path, max_steps=1))
    path = tmp_path / 'last.ckpt'
    with pytest.raises(CheckpointError) as rejected:
        load_checkpoint(path)
    command = f'python training/export_weights.py {path} OUT.safetensors'
    assert f'{path}: a checkpoint of a training' in str(rejected.value)
    assert command in str(rejected.value)


def test_exporting_a_file_that_already_contains_weights_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r'these are weights already.*give the last\.ckpt'):
        export([str(tiny_checkpoint(tmp_path)), str(tmp_path / 'out.safetensors')])


def test_exporting_a_file_of_another_format_is_rejected(tmp_path: Path) -> None:
    torch.save({'state_dict': {}}, tmp_path / 'foreign.ckpt')
    with pytest.raises(SystemExit, match='cannot be read as a checkpoint of training/train'):
        export([str(tmp_path / 'foreign.ckpt'), str(tmp_path / 'out.safetensors')])
