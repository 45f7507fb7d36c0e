r"""Trains BEVDepth.

Run from the repository root after `. ./env.sh`:

    python training/train.py --data.root data/nuscenes \
        --config config/training/r50_256x704_2key.yaml

Every value of a preset can be changed on the command line, for example with `--data.batch_size 4
--trainer.max_epochs 12`. `--help` lists all values. The run writes these files to the folder
`output`, which is out/training/<preset> in the presets:

    config.yaml                       the complete configuration of the run; usable as a preset
    last.ckpt                         state from which the run is resumed, written every
                                      trainer.checkpoint_every_n_steps steps
    best.ckpt                         state with the highest NDS (with model.objective depth: with
                                      the lowest loss) on data.val_split, if this split is given
    weights/epoch_001.safetensors     weights for the detector after each epoch, averaged if
                                      trainer.averaging is given; step_000500.safetensors if
                                      max_steps ends the run within an epoch
    csv/, tensorboard/                curves, with one folder version_N per start of the run

After Ctrl-C or SIGTERM, the run finishes the step, writes last.ckpt and prints the command that
resumes the run. A second Ctrl-C stops the run immediately. `--resume true` resumes a run, also in
the middle of an epoch. If there is no last.ckpt, `--resume true` starts a new run. A job scheduler
can therefore always use the same command. A run must be resumed with the settings with which it
was started, except for the settings that docs/TRAINING.md lists.

`--data.val_split val` validates after every `trainer.validate_every_n_epochs` epochs, and logs
the losses. Unless model.objective is depth, it also logs mAP and NDS.

To start from trained weights, use `--model.init FILE`, or the presets fine_tune.yaml (for
annotated data) and adapt_depth.yaml (for data with lidar and without annotations). The run
then uses the network of the checkpoint.

By default, all GPUs of the machine are used; `--trainer.devices 2` uses two GPUs. The learning
rate is proportional to the number of samples per step. On several machines with 8 GPUs each, run
this command on every machine:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        training/train.py --config PRESET --trainer.nodes 2

or use SLURM:

    srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 \
        python training/train.py --config PRESET --trainer.nodes 2

Without a GPU, set `--trainer.precision 32-true`. Without an internet connection, set
`--model.pretrained FILE` (a file of torchvision's ResNet-50) or `--model.pretrained none
--model.freeze_stem false`. If a loss is not finite, the run ends with a message that names the
samples.
`training/export_weights.py` exports the weights of a .ckpt file.
"""

from __future__ import annotations

import errno
import logging
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import yaml
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import (
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.utilities import rank_zero_only

from bevdepth_core.training.averaging import ExponentialAverage
from bevdepth_core.training.checkpoints import (
    AtomicCheckpointIO,
    ResumeCheckpoint,
    WeightsExport,
    source_revision,
)
from bevdepth_core.training.command_line import InvalidRunError, require_writable
from bevdepth_core.training.config import TrainingConfig, build_parser, plain, read_arguments
from bevdepth_core.training.data import TrainingData, open_nuscenes, open_validation
from bevdepth_core.training.interrupt import RunInterruptedError, StopOnInterrupt
from bevdepth_core.training.module import BEVDepthModule, NonFiniteLossError
from bevdepth_core.training.progress import ProgressBar
from bevdepth_core.training.resume import require_resumable
from bevdepth_core.training.run_lock import locked
from bevdepth_core.training.seeded_sampler import OrderChangedError
from bevdepth_core.training.validation import ValidationScore

_LOG = logging.getLogger(__name__)
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
INTERRUPTED = 130
"""Exit status after Ctrl-C, as in a shell."""
EXPERIMENT = 'bevdepth'
"""Name of the project in W&B, and of the experiment in MLflow."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. The exit status is 1 after an error, 130 after Ctrl-C, and 143 after
    SIGTERM. Errors are printed.
    """
    logging.basicConfig(format='%(message)s')
    logging.getLogger('bevdepth_core').setLevel(logging.INFO)
    parser = build_parser(__doc__ or '')
    parser.add_argument(
        '--resume', type=bool, default=False, help='resume from last.ckpt in output, if it exists'
    )
    try:
        config, values = read_arguments(parser, arguments)
        _train_until_interrupted(config, values.resume, arguments)
    except (InvalidRunError, NonFiniteLossError, ConnectionError, FileExistsError) as error:
        sys.exit(f'train: {error}')
    except OSError as error:
        # The text of an error in a loader process begins with a traceback.
        sys.exit(f'train: {str(error).strip().splitlines()[-1]}')


def _train_until_interrupted(
    config: TrainingConfig, resume: bool, arguments: list[str] | None
) -> None:
    try:
        train(config, resume)
    except RunInterruptedError as error:
        _report_interrupt(str(error), config, arguments)
        sys.exit(error.status)
    except KeyboardInterrupt:
        _report_interrupt('interrupted', config, arguments)
        sys.exit(INTERRUPTED)


@rank_zero_only
def _report_interrupt(message: str, config: TrainingConfig, arguments: list[str] | None) -> None:
    print(f'train: {message}', file=sys.stderr)
    if checkpoint_path(config).exists():
        print(f'Resume with:\n    {resume_command(arguments)}', file=sys.stderr)


def resume_command(arguments: list[str] | None) -> str:
    """Return the command that resumes a run.

    Args:
        arguments: the arguments of the run; None for the arguments of this process.
    """
    program = 'training/train.py' if arguments is not None else sys.argv[0]
    words = list(sys.argv[1:] if arguments is None else arguments)
    kept = [
        word
        for index, word in enumerate(words)
        if word.split('=')[0] != '--resume' and (not index or words[index - 1] != '--resume')
    ]
    return shlex.join(['python', program, *kept, '--resume', 'true'])


def train(config: TrainingConfig, resume: bool = False, watchers: Sequence[Callback] = ()) -> None:
    """Train on a nuScenes-format dataset.

    Args:
        config: settings of the run.
        resume: resume from ``last.ckpt`` in the output folder, if this file exists.
        watchers: additional callbacks.

    Raises:
        InvalidRunError: the settings, the data or the checkpoint are invalid.
        FileExistsError: the output folder contains an earlier run, and ``resume`` is False.
        NonFiniteLossError: the loss became NaN or infinite.
        OSError: a file cannot be read or written.
        RunInterruptedError: Ctrl-C or SIGTERM stopped the run.
    """
    needs_boxes = config.model.objective == 'detection'
    network, data = config.model.network, config.data
    training_data = TrainingData(
        partial(open_nuscenes, data, network, needs_boxes),
        network,
        data.batch_size,
        data.workers,
        config.seed,
        partial(open_validation, data, network, needs_boxes) if data.val_split else None,
    )
    fit(config, training_data, resume, watchers)


@rank_zero_only
def _open(data: TrainingData, processes: int) -> None:
    """Open the datasets before Lightning does, so that an error is printed without a traceback."""
    try:
        data.prepare_data()
        data.batches(processes)
    except ValueError as error:
        raise InvalidRunError(str(error)) from error


def fit(
    config: TrainingConfig,
    data: TrainingData,
    resume: bool = False,
    watchers: Sequence[Callback] = (),
) -> BEVDepthModule:
    """Train on ``data`` with additional callbacks ``watchers``; see ``train``.

    Devices, output folder and initial weights are checked first, because reading the data can take
    minutes.

    Returns:
        The module; its weights are averaged if the run averages weights.
    """
    saving = ResumeCheckpoint(checkpoint_path(config), config.trainer.checkpoint_every_n_steps)
    stopping = StopOnInterrupt(saving)
    folder = Path(config.output)
    require_writable(folder)
    with locked(folder), stopping.handling_signals():
        checkpoint = last_checkpoint(config, resume)
        trainer = build_trainer(config, [*watchers, saving, stopping])
        module = _module(config)
        _open(data, trainer.world_size)
        try:
            if checkpoint is not None:
                _require_resumable(checkpoint, config, data, trainer.world_size)
            write_config(config)
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
        except OrderChangedError as error:  # raised in a process other than the first process
            raise InvalidRunError(str(error)) from error
        except OSError as error:
            if error.errno not in _NO_SPACE:
                raise
            raise OSError(
                f'{config.output}: {error.strerror}: make space there, then resume with '
                '--resume true'
            ) from error
    return module


@rank_zero_only
def _require_resumable(
    checkpoint: Path, config: TrainingConfig, data: TrainingData, processes: int
) -> None:
    """Check the checkpoint before the run writes any file."""
    try:
        require_resumable(checkpoint, plain(config), data.order(processes))
    except ValueError as error:
        raise InvalidRunError(str(error)) from error


def _module(config: TrainingConfig) -> BEVDepthModule:
    settings = config.model
    is_random = settings.init is None and settings.pretrained == 'none'
    if is_random and settings.freeze_stem and settings.objective == 'detection':
        raise InvalidRunError(
            'model.pretrained is none, so the first layers of the backbone start with random '
            'weights, and model.freeze_stem true would not train them: add '
            '--model.freeze_stem false'
        )
    description = plain(config) | {
        'source_revision': source_revision(),
        'class_names': list(config.model.network.class_names),
    }
    try:
        return BEVDepthModule(config.model, config.seed, description)
    except ValueError as error:
        raise InvalidRunError(str(error)) from error


def last_checkpoint(config: TrainingConfig, resume: bool) -> Path | None:
    """Return the checkpoint from which the run is resumed; None for a new run.

    Raises:
        FileExistsError: the folder contains a checkpoint, and ``resume`` is False.
    """
    path = checkpoint_path(config)
    if path.exists() and not resume:
        raise FileExistsError(
            f'{path} belongs to an earlier run: add --resume true to resume it, or choose '
            'another --output'
        )
    return path if path.exists() else None


def checkpoint_path(config: TrainingConfig) -> Path:
    """Return the path of the checkpoint from which the run can be resumed."""
    return Path(config.output) / 'last.ckpt'


def build_trainer(config: TrainingConfig, watchers: Sequence[Callback] = ()) -> Trainer:
    """Return the trainer with the callbacks and the loggers of the run, and with ``watchers``.

    Raises:
        InvalidRunError: the devices do not exist, or do not support the precision; or there are
            several machines, and neither torchrun nor SLURM has started this process.
    """
    settings = config.trainer
    try:
        trainer = Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.nodes,
            precision=settings.precision,
            max_epochs=settings.max_epochs,
            max_steps=settings.max_steps,
            gradient_clip_val=settings.gradient_clip_norm or None,
            accumulate_grad_batches=settings.accumulate_grad_batches,
            sync_batchnorm=settings.sync_batchnorm,
            log_every_n_steps=settings.log_every_n_steps,
            check_val_every_n_epoch=settings.validate_every_n_epochs,
            limit_val_batches=1.0 if config.data.val_split else 0,
            num_sanity_val_steps=0,
            callbacks=[*callbacks(config), *watchers],
            logger=loggers(config),
            plugins=AtomicCheckpointIO(),
            default_root_dir=config.output,
            benchmark=True,
            use_distributed_sampler=False,
        )
    except (MisconfigurationException, ValueError) as error:
        raise InvalidRunError(
            f'trainer: {error}; check --trainer.accelerator (auto, gpu or cpu) and '
            '--trainer.devices (a number, or auto)'
        ) from error
    if trainer.strategy.root_device.type == 'cpu' and settings.precision != '32-true':
        raise InvalidRunError(
            f'trainer.precision {settings.precision} needs a GPU: without a GPU, train with '
            '--trainer.precision 32-true'
        )
    _check_processes(trainer)
    return trainer


def _check_processes(trainer: Trainer) -> None:
    """Log a warning if several processes use the CPU.

    Raises:
        InvalidRunError: there are several machines, and neither torchrun nor SLURM has started
            this process. This process would wait forever for processes on other machines.
    """
    environment = getattr(trainer.strategy, 'cluster_environment', None)
    if (
        trainer.num_nodes > 1
        and isinstance(environment, LightningEnvironment)
        and 'MASTER_ADDR' not in os.environ
    ):
        raise InvalidRunError(
            f'trainer.nodes {trainer.num_nodes} needs torchrun or srun, which start this command '
            'on each machine: --help shows both commands; on a single machine, leave out '
            '--trainer.nodes'
        )
    if trainer.strategy.root_device.type == 'cpu' and trainer.num_devices > 1:
        rank_zero_only(_LOG.warning)(
            'trainer.devices %d without a GPU: %d training processes share the CPU of this '
            'machine; --trainer.devices 1 starts a single process',
            trainer.num_devices,
            trainer.num_devices,
        )


def callbacks(config: TrainingConfig) -> list[Callback]:
    """Return the callbacks of the run in order. The callback that averages the weights comes
    before the callbacks that write averaged weights to files.
    """
    average = [ExponentialAverage(config.trainer.averaging)] if config.trainer.averaging else []
    return [
        *average,
        LearningRateMonitor(logging_interval='step'),
        ProgressBar(),
        WeightsExport(Path(config.output) / 'weights'),
        *(_validation_callbacks(config) if config.data.val_split else ()),
    ]


def _validation_callbacks(config: TrainingConfig) -> list[Callback]:
    """Return the callbacks that compute the validation score and save the best checkpoint."""
    scored = config.model.objective == 'detection'
    best = ModelCheckpoint(
        dirpath=config.output,
        filename='best',
        monitor='val/NDS' if scored else 'val/loss/total',
        mode='max' if scored else 'min',
        enable_version_counter=False,
        save_on_train_epoch_end=False,
    )
    return [*([ValidationScore(config.model.network)] if scored else []), best]


def loggers(config: TrainingConfig) -> list[Logger]:
    """Return the loggers of a run: the selected logger, and the logger that writes ``csv/``.

    Raises:
        InvalidRunError: the package of the logger is not installed.
    """
    name, output = config.trainer.logger, config.output
    if name != 'tensorboard' and find_spec(name) is None:
        raise InvalidRunError(
            f'trainer.logger {name} needs the package {name}: pip install {name}, or train with '
            '--trainer.logger tensorboard'
        )
    run = Path(output).name
    files = CSVLogger(output, name='csv', flush_logs_every_n_steps=1)
    if name == 'wandb':
        return [files, WandbLogger(name=run, save_dir=output, project=EXPERIMENT)]
    if name == 'mlflow':
        return [files, MLFlowLogger(EXPERIMENT, run, save_dir=str(Path(output) / 'mlflow'))]
    return [TensorBoardLogger(output, name='tensorboard'), files]


@rank_zero_only
def write_config(config: TrainingConfig) -> None:
    """Write the complete configuration to ``config.yaml`` in the output folder."""
    path = Path(config.output) / 'config.yaml'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.safe_dump(plain(config), sort_keys=False, default_flow_style=None, width=120)
    )


if __name__ == '__main__':
    main()
