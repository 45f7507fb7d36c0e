"""The command line on a small nuScenes-format dataset."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.config import load_model_config
from bevdepth_core.inference import Detector
from bevdepth_core.training.checkpoints import main as export
from tests.core.nuscenes.dataroot import SPLIT, VERSION, make_dataroot
from tests.reference import ROOT
from tests.training.runs import run, tiny_config


def train(output: Path, root: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [
        sys.executable,
        'training/train.py',
        '--config',
        'config/training/small.yaml',
        '--output',
        str(output),
    ]
    data = [
        '--data.root',
        str(root),
        '--data.version',
        VERSION,
        '--data.split',
        SPLIT,
        '--data.cache_dir',
        str(root / 'cache'),
    ]
    data += ['--data.batch_size', '2', '--data.class_balanced', 'false', '--data.workers', '1']
    settings = ['--trainer.accelerator', 'cpu', '--trainer.log_every_n_steps', '1']
    return subprocess.run(
        [*command, *data, *settings, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.fixture(scope='module')
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """Return the output of an epoch of the small preset, and its dataset of two key frames."""
    root, output = make_dataroot(tmp_path_factory.mktemp('data')), tmp_path_factory.mktemp('run')
    finished = train(output, root, '--trainer.max_epochs', '1')
    assert finished.returncode == 0, finished.stderr[-2000:]
    return output, root


def test_the_command_trains_and_leaves_weights_that_the_detector_takes(
    trained: tuple[Path, Path],
) -> None:
    path = trained[0] / 'weights/epoch_001.safetensors'
    detector = Detector.from_checkpoint(path)
    assert detector.config == load_model_config(ROOT / 'config/models/small.yaml')
    metadata = load_checkpoint(path).metadata
    description = json.loads(metadata['training'])
    assert (metadata['training_steps'], metadata['averaged']) == ('1', 'true')
    assert description['data']['split'] == SPLIT
    assert description['class_names'] == list(detector.class_names)
    assert description['source_revision']


def test_curves_and_the_whole_configuration_lie_beside_the_weights(
    trained: tuple[Path, Path],
) -> None:
    output = trained[0]
    header, first = (output / 'csv/version_0/metrics.csv').read_text().splitlines()[:2]
    assert {'loss/total', 'loss/heatmap', 'loss/box', 'loss/depth', 'step'} <= set(
        header.split(',')
    )
    assert first
    assert list((output / 'tensorboard/version_0').glob('events.*'))
    assert f'split: {SPLIT}' in (output / 'config.yaml').read_text()


def test_a_finished_epoch_is_kept_and_the_run_goes_on(trained: tuple[Path, Path]) -> None:
    output, root = trained
    refused = train(output, root)
    assert refused.returncode == 1
    assert '--resume true' in refused.stderr
    finished = train(output, root, '--trainer.max_epochs', '2', '--resume', 'true')
    assert finished.returncode == 0, finished.stderr[-2000:]
    assert (
        load_checkpoint(output / 'weights/epoch_002.safetensors').metadata['training_steps'] == '2'
    )


def test_missing_data_is_said_in_one_sentence(tmp_path: Path) -> None:
    refused = train(tmp_path / 'run', tmp_path)
    assert refused.returncode == 1
    assert f'has no folder {VERSION}' in refused.stderr
    assert 'Traceback' not in refused.stderr


def test_mixed_precision_without_a_gpu_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'--trainer\.precision 32-true'):
        run(tiny_config(tmp_path, precision='bf16-mixed'))


@pytest.mark.parametrize('averaging', [True, False])
def test_weights_taken_out_of_a_checkpoint_are_those_of_the_epoch(
    tmp_path: Path, averaging: bool
) -> None:
    settings = {} if averaging else {'averaging': None}
    run(tiny_config(tmp_path, max_epochs=1, **settings))
    export([str(tmp_path / 'last.ckpt'), str(tmp_path / 'taken.safetensors')])
    taken, written = (
        load_checkpoint(tmp_path / name)
        for name in ('taken.safetensors', 'weights/epoch_001.safetensors')
    )
    torch.testing.assert_close(taken.state_dict(), written.state_dict(), rtol=0, atol=0)
    assert taken.metadata == written.metadata


def test_a_foreign_file_is_no_training_checkpoint(tmp_path: Path) -> None:
    torch.save({'state_dict': {}}, tmp_path / 'foreign.ckpt')
    with pytest.raises(SystemExit, match='not a checkpoint of training/train'):
        export([str(tmp_path / 'foreign.ckpt'), str(tmp_path / 'out.safetensors')])
