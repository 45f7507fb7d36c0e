"""Files of a run: a checkpoint to resume from, and weights for the detector.

    python training/export_weights.py IN.ckpt OUT.safetensors

This command exports the weights of a checkpoint of ``train.py``. The exported weights are averaged
if the run averages weights.
"""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from argparse import ArgumentParser
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins import TorchCheckpointIO

from bevdepth_core.checkpoint import CheckpointError, require_plain_archive, save_checkpoint
from bevdepth_core.config import model_config_from_dict
from bevdepth_core.files import write_atomically
from bevdepth_core.model import BEVDepth
from bevdepth_core.training.averaging import ExponentialAverage

_PREFIX = 'model.'
_LOG = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint to a new file in the same folder, then replaces the earlier checkpoint
    by this file. The base class would write the new file to ``$TMPDIR``. If this folder is on
    another file system, the base class copies the new file over the earlier checkpoint, and an
    interrupted copy leaves a damaged checkpoint.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        """Write ``checkpoint``.

        Raises:
            OSError: the file cannot be written; the earlier checkpoint is then unchanged.
        """
        content = io.BytesIO()
        torch.save(checkpoint, content)
        try:
            write_atomically(path, lambda target: _write(target, content))
        except OSError as error:
            kept = '; the earlier file is unchanged' if Path(path).exists() else ''
            raise OSError(
                f'{path} could not be written ({error.strerror}){kept}: make space in '
                f'{Path(path).parent}, then resume with --resume true'
            ) from error


def _write(target: str, content: io.BytesIO) -> None:
    Path(target).write_bytes(content.getbuffer())


class ResumeCheckpoint(Checkpoint):
    """Writes the complete state of a run, always to the same file.

    Args:
        path: the file.
        every_n_steps: optimizer steps between two writes; the file is also written at the end of
            each epoch and of the run.
    """

    def __init__(self, path: Path, every_n_steps: int) -> None:
        self.path, self.every_n_steps = path, every_n_steps
        self._written_step = 0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        step = trainer.global_step
        if (
            step % self.every_n_steps == 0 or step == trainer.max_steps
        ) and not trainer.is_last_batch:
            self.write(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # If max_steps ends the run within an epoch, on_train_batch_end has written the checkpoint
        # of the last step. A run that is resumed with a higher max_steps continues this epoch.
        if trainer.is_last_batch:
            self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Write the state after the last step, unless it was written already."""
        if trainer.global_step > self._written_step:
            self._written_step = trainer.global_step
            trainer.save_checkpoint(self.path, weights_only=False)


class WeightsExport(Callback):
    """Writes weights for the detector at the end of each epoch; the weights are averaged if the
    run averages weights.

    Args:
        folder: folder of the files: ``epoch_NNN.safetensors`` after NNN complete epochs, and
            ``step_NNNNNN.safetensors`` if ``max_steps`` ends the run within an epoch.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        averages = [each for each in callbacks if isinstance(each, ExponentialAverage)]
        module: Any = averages[0].averaged if averages else pl_module
        name = (
            f'epoch_{trainer.current_epoch + 1:03d}'
            if trainer.is_last_batch
            else f'step_{trainer.global_step:06d}'
        )
        path = self.folder / f'{name}.safetensors'
        metadata = weights_metadata(module.description, trainer.global_step, bool(averages))
        save_checkpoint(module.model, path, metadata)
        _LOG.info('\nwrote %s', path)


def weights_metadata(description: dict, step: int, averaged: bool) -> dict[str, str]:
    """Return the metadata of a weights file; the metadata describe the training run."""
    return {
        'training': json.dumps(description),
        'training_steps': str(step),
        'averaged': str(averaged).lower(),
    }


def source_revision() -> str:
    """Return the git revision of this source, with ``-dirty`` if tracked files have uncommitted
    changes. If git gives no revision, return the version of the installed package, or ``unknown``.
    """
    folder = str(Path(__file__).resolve().parent)
    command = ['git', '-C', folder, 'describe', '--always', '--dirty', '--abbrev=40']
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        with suppress(PackageNotFoundError):
            return version('bevdepth_ros')
        return 'unknown'


def read_training_checkpoint(path: str | Path) -> tuple[BEVDepth, dict[str, str]]:
    """Return the model in a ``.ckpt`` file of ``train.py``, and the metadata of the weights. The
    model is on the CPU and in evaluation mode.

    Raises:
        CheckpointError: the file is missing, damaged, or not written by ``train.py``.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f'{path}: no such checkpoint file; check the path')
    if path.suffix == '.safetensors':
        raise CheckpointError(
            f'{path}: these are weights already, which the detector loads as they are; give the '
            'last.ckpt or best.ckpt of a run'
        )
    require_plain_archive(path)
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
        description = content['description']
        model = BEVDepth(model_config_from_dict(description['model']['network']))
        model.load_state_dict(
            {name.removeprefix(_PREFIX): tensor for name, tensor in content['state_dict'].items()}
        )
    except Exception as error:  # torch raises many types, EOFError and KeyError among them
        raise CheckpointError(
            f'{path} cannot be read as a checkpoint of training/train.py ({error}): give the '
            f'last.ckpt of a run'
        ) from error
    return model.eval(), weights_metadata(
        description, content['global_step'], 'averaging_state' in content
    )


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = ArgumentParser(
        'training/export_weights.py', description='Export the weights of a training checkpoint.'
    )
    parser.add_argument('source', metavar='IN', type=Path, help='last.ckpt of a training run')
    parser.add_argument('target', metavar='OUT', type=Path, help='.safetensors file to write')
    options = parser.parse_args(arguments)
    try:
        model, metadata = read_training_checkpoint(options.source)
        save_checkpoint(model, options.target, metadata)
    except CheckpointError as error:
        sys.exit(str(error))
    print(
        f'wrote {options.target}: {sum(p.numel() for p in model.parameters()):,} parameters, '
        f'trained for {metadata["training_steps"]} steps'
    )


if __name__ == '__main__':
    main()
