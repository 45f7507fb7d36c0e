"""Resumes training from checkpoints that do not fit the run, and writes to a full disk."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.model import BEVDepth
from bevdepth_core.training.command_line import InvalidRunError
from bevdepth_core.training.config import TrainingConfig
from tests.networks import TINY
from tests.training.runs import Noise, run, tiny_config


@pytest.fixture(scope='module')
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the output folder of a training run with two steps."""
    folder = tmp_path_factory.mktemp('started')
    run(tiny_config(folder, max_steps=2))
    return folder


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def with_model(config: TrainingConfig, **settings) -> TrainingConfig:
    return replace(config, model=replace(config.model, **settings))


def with_grid(config: TrainingConfig) -> TrainingConfig:
    network = config.model.network
    grid = replace(network.grid, x=(-25.6, 25.6, 1.6))
    return with_model(config, network=replace(network, grid=grid))


def with_wider_head(config: TrainingConfig) -> TrainingConfig:
    network = config.model.network
    return with_model(config, network=replace(network, head=replace(network.head, channels=8)))


@pytest.mark.parametrize(
    ('change', 'expected'),
    [
        (
            lambda config: with_model(config, learning_rate=0.1, weight_decay=0.5),
            'model.learning_rate was 0.05 and is 0.1, model.weight_decay was 1e-07 and is 0.5',
        ),
        (
            lambda config: with_model(config, learning_rate_batch=8),
            'model.learning_rate_batch was 64 and is 8',
        ),
        (with_wider_head, 'model.network.head.channels was 4 and is 8'),
        (with_grid, 'model.network.grid.x was [-12.8, 12.8, 1.6] and is [-25.6, 25.6, 1.6]'),
        (
            lambda config: replace(config, data=replace(config.data, batch_size=1)),
            'data.batch_size was 2 and is 1',
        ),
        (lambda config: replace(config, seed=4), 'seed was 3 and is 4'),
        (
            lambda config: replace(config, trainer=replace(config.trainer, averaging=None)),
            "trainer.averaging was {'decay': 0.9, 'ramp_updates': 0} and is null",
        ),
    ],
)
def test_the_error_about_changed_settings_names_the_settings_and_no_file_is_written(
    output: Path, change: Callable[[TrainingConfig], TrainingConfig], expected: str
) -> None:
    before = files(output)
    with pytest.raises(InvalidRunError) as rejected:
        run(change(tiny_config(output)), resume=True)
    assert f'cannot be resumed with other settings: {expected}' in str(rejected.value)
    assert 'start a new run with another --output' in str(rejected.value)
    assert files(output) == before


def test_resuming_with_another_number_of_samples_writes_no_file(output: Path) -> None:
    before = files(output)
    with pytest.raises(InvalidRunError, match='samples was 10 and is 12'):
        run(tiny_config(output), Noise(12), resume=True)
    assert files(output) == before


def test_a_run_is_resumed_if_only_settings_outside_the_optimization_changed(
    tmp_path: Path,
) -> None:
    run(tiny_config(tmp_path, max_steps=2))
    config = tiny_config(tmp_path, max_epochs=1, log_every_n_steps=2, checkpoint_every_n_steps=4)
    run(with_model(config, pretrained='none', init=None), resume=True)
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 5


def test_a_run_is_resumed_from_a_checkpoint_without_stored_settings(tmp_path: Path) -> None:
    run(tiny_config(tmp_path, max_steps=2))
    path = tmp_path / 'last.ckpt'
    content = torch.load(path, weights_only=True)
    del content['description']
    torch.save(content, path)
    run(tiny_config(tmp_path, max_epochs=1), resume=True)
    assert torch.load(path, weights_only=True)['global_step'] == 5


def test_the_message_about_a_truncated_checkpoint_suggests_a_backup_copy_or_a_new_run(
    tmp_path: Path,
) -> None:
    (tmp_path / 'last.ckpt').write_bytes(b'PK')
    with pytest.raises(InvalidRunError) as rejected:
        run(tiny_config(tmp_path), resume=True)
    text = str(rejected.value)
    assert f'{tmp_path / "last.ckpt"} is truncated or damaged' in text
    assert 'restore a copy, or start a new run' in text and 'PyTorch' not in text


# Full disk


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let every write fail that makes a file larger than ``size`` bytes, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


class FillDisk(Callback):
    """Limits the size of files to ``size`` bytes after step ``step``, before last.ckpt is
    written."""

    def __init__(self, step: int, size: int = 100_000) -> None:
        self._step, self._limit = step, files_limited_to(size)

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        if trainer.global_step == self._step:
            self._limit.__enter__()

    def on_exception(self, trainer, pl_module, exception) -> None:
        self._limit.__exit__(None, None, None)


def test_on_a_full_disk_the_earlier_checkpoint_is_kept_and_the_error_is_reported(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path, checkpoint_every_n_steps=2)
    with pytest.raises(OSError, match=r'could not be written \(File too large\)') as stopped:
        run(config, watchers=[FillDisk(4)])
    assert f'make space in {tmp_path}' in str(stopped.value)
    assert [path.name for path in tmp_path.glob('*last.ckpt*')] == ['last.ckpt']
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 2
    run(config, resume=True)
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 10


# The TensorBoard thread that writes files also raises an exception. Without the filter, pytest
# would warn about this exception.
@pytest.mark.filterwarnings('ignore::pytest.PytestUnhandledThreadExceptionWarning')
def test_the_message_about_tensorboard_files_that_cannot_be_written_names_the_folder(
    tmp_path: Path,
) -> None:
    with pytest.raises(OSError, match=f'^{tmp_path}: File too large: make space there'):
        run(tiny_config(tmp_path), watchers=[FillDisk(1, size=10)])


def test_the_message_about_weights_that_cannot_be_written_names_the_folder(tmp_path: Path) -> None:
    with (
        files_limited_to(1000),
        pytest.raises(OSError, match=f'File too large.*: make space in {tmp_path}'),
    ):
        save_checkpoint(BEVDepth(TINY), tmp_path / 'weights.safetensors')
    assert not list(tmp_path.iterdir())
