r"""Train BEVDepth.

Run from the repository root after `. env.sh`:

    python training/train.py --config config/training/r50_256x704_2key.yaml --data.root
    data/nuscenes

Every value of the preset can be set on the command line: `--data.batch_size 4 --trainer.max_epochs
12 --model.pretrained none`. `--help` lists them. The result lies in `output`
(out/training/<preset> in the presets):

    config.yaml                   the whole configuration of the run; a preset itself
    last.ckpt                     all that a run needs to go on, written every
    trainer.checkpoint_every_n_steps weights/epoch_001.safetensors weights for the detector after
    each epoch, averaged where trainer.averaging is set tensorboard/, csv/            curves, a
    version per start: `tensorboard --logdir out/training`, or csv/version_0/metrics.csv

Go on after an interruption, also in the middle of an epoch: the same command and `--resume true`.
It starts anew where there is no last.ckpt yet, so a job scheduler may use it from the first start
on.

Several GPUs of one machine are used without being asked; `--trainer.devices 2` takes two. The
learning rate follows the number of samples per step. Several machines, 8 GPUs each, on every one
of them:

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 \
        training/train.py --config PRESET --trainer.nodes 2

or with SLURM: `srun --nodes 2 --ntasks-per-node 8 --gpus-per-node 8 python training/train.py
    --config PRESET --trainer.nodes 2`.

Without a GPU: `--trainer.precision 32-true`. Without network: `--model.pretrained FILE`
    (torchvision's ResNet-50) or `none`.
A loss that is not finite ends the run and names the samples. `training/export_weights.py` takes
weights out of a last.ckpt.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from bevdepth_core.nuscenes.completeness import DatasetIncompleteError
from bevdepth_core.training.averaging import ExponentialAverage
from bevdepth_core.training.checkpoints import ResumeCheckpoint, WeightsExport, source_revision
from bevdepth_core.training.config import TrainingConfig, build_parser, plain, read_config
from bevdepth_core.training.data import TrainingData, open_nuscenes
from bevdepth_core.training.module import BEVDepthModule, NonFiniteLossError

BAR_STEPS = 10
"""Steps between two looks at the loss for the progress bar, each of which waits for the GPU."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    parser = build_parser(__doc__)
    parser.add_argument(
        '--resume',
        type=bool,
        default=False,
        help='go on from last.ckpt in output, if there is one',
    )
    values = parser.parse_args(arguments)
    config = read_config(parser, values)
    try:
        train(config, values.resume)
    except (NonFiniteLossError, ConnectionError, DatasetIncompleteError, FileExistsError) as error:
        sys.exit(str(error))


def train(config: TrainingConfig, resume: bool = False, watchers: Sequence[Callback] = ()) -> None:
    """Train on a nuScenes-format dataset.

    Args:
        config: the run.
        resume: go on from ``last.ckpt`` in the output folder, if there is one.
        watchers: more callbacks.

    Raises:
        FileExistsError: the output folder holds another run and ``resume`` is not set.
        NonFiniteLossError: the loss became NaN or infinite.
    """
    open_source = partial(open_nuscenes, config.data, config.model.network)
    data = TrainingData(
        open_source, config.model.network, config.data.batch_size, config.data.workers, config.seed
    )
    fit(config, data, resume, watchers)


def fit(
    config: TrainingConfig,
    data: TrainingData,
    resume: bool = False,
    watchers: Sequence[Callback] = (),
) -> BEVDepthModule:
    """Train on ``data`` while ``watchers`` look on; see ``train``. Returns the module, averaged
    where the run averages.
    """
    checkpoint = last_checkpoint(config, resume)
    trainer = build_trainer(config, watchers)
    if trainer.strategy.root_device.type == 'cpu' and config.trainer.precision != '32-true':
        raise ValueError(
            f'trainer.precision {config.trainer.precision} needs a GPU: without one train with '
            '--trainer.precision 32-true'
        )
    description = plain(config) | {
        'source_revision': source_revision(),
        'class_names': list(config.model.network.class_names),
    }
    module = BEVDepthModule(config.model, config.seed, description)
    write_config(config)
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module


def last_checkpoint(config: TrainingConfig, resume: bool) -> Path | None:
    """Return the checkpoint to go on from, None for a fresh start; raises FileExistsError where
    that would overwrite one.
    """
    path = checkpoint_path(config)
    if path.exists() and not resume:
        raise FileExistsError(
            f'{path} belongs to an earlier run: add --resume true to go on with it, or choose '
            'another --output'
        )
    return path if path.exists() else None


def checkpoint_path(config: TrainingConfig) -> Path:
    """Return where the run keeps what it needs to go on."""
    return Path(config.output) / 'last.ckpt'


def build_trainer(config: TrainingConfig, watchers: Sequence[Callback] = ()) -> Trainer:
    """Return the trainer with callbacks, ``watchers`` behind the run's own, and loggers."""
    settings = config.trainer
    return Trainer(
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
        callbacks=[*callbacks(config), *watchers],
        logger=[
            TensorBoardLogger(config.output, name='tensorboard'),
            CSVLogger(config.output, name='csv', flush_logs_every_n_steps=1),
        ],
        default_root_dir=config.output,
        benchmark=True,
        use_distributed_sampler=False,
    )


def callbacks(config: TrainingConfig) -> list[Callback]:
    """Return what watches the run, in the order of its turns: the average comes before the files
    that hold it.
    """
    average = [ExponentialAverage(config.trainer.averaging)] if config.trainer.averaging else []
    return [
        *average,
        LearningRateMonitor(logging_interval='step'),
        TQDMProgressBar(refresh_rate=BAR_STEPS),
        WeightsExport(Path(config.output) / 'weights'),
        ResumeCheckpoint(checkpoint_path(config), config.trainer.checkpoint_every_n_steps),
    ]


@rank_zero_only
def write_config(config: TrainingConfig) -> None:
    """Write the whole configuration beside the results."""
    path = Path(config.output) / 'config.yaml'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        yaml.safe_dump(plain(config), sort_keys=False, default_flow_style=None, width=120)
    )


if __name__ == '__main__':
    main()
