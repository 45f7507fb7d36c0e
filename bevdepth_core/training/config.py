"""Defines all settings of a training run; ``config/training`` contains one YAML file per
preset.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any, Literal

from jsonargparse import ArgumentParser, Namespace

from bevdepth_core.checkpoint import CheckpointError, load_checkpoint
from bevdepth_core.config import model_config_to_dict
from bevdepth_core.training.averaging import AveragingSettings
from bevdepth_core.training.command_line import (
    InvalidRunError,
    instantiate,
    manual_parser,
    option_keys,
    parse,
    require_at_least,
)
from bevdepth_core.training.data import DataSettings
from bevdepth_core.training.module import ModelSettings


@dataclass(frozen=True)
class TrainerSettings:
    """Duration, devices and precision of the training.

    Attributes:
        accelerator: ``auto``, ``gpu`` or ``cpu``.
        devices: number of GPUs (on a CPU: of processes) per machine; ``auto``: all GPUs.
        nodes: number of machines.
        precision: precision of the image branch; geometry, BEV head and losses always use 32 bits.
        max_epochs: number of epochs to train.
        max_steps: largest number of optimizer steps to train; -1 for no limit.
        gradient_clip_norm: gradients of a larger norm are scaled to this norm; 0: never.
        accumulate_grad_batches: number of batches per optimizer step.
        sync_batchnorm: batch norms use the samples of all GPUs.
        averaging: settings of the exponential moving average of the weights. If they are given,
            the averaged weights are exported; null: no average.
        log_every_n_steps: steps between two points of a curve.
        checkpoint_every_n_steps: steps between two checkpoints to resume from.
        validate_every_n_epochs: epochs between two validations; used only with ``data.val_split``.
        logger: additional logger, ``tensorboard``, ``wandb`` or ``mlflow``. The curves are always
            written to ``csv/``, too.
    """

    accelerator: Literal['auto', 'gpu', 'cpu'] = 'auto'
    devices: int | Literal['auto'] = 'auto'
    nodes: int = 1
    precision: Literal['16-mixed', 'bf16-mixed', '32-true'] = '16-mixed'
    max_epochs: int = 24
    max_steps: int = -1
    gradient_clip_norm: float = 5.0
    accumulate_grad_batches: int = 1
    sync_batchnorm: bool = False
    averaging: AveragingSettings | None = None
    log_every_n_steps: int = 50
    checkpoint_every_n_steps: int = 500
    validate_every_n_epochs: int = 1
    logger: Literal['tensorboard', 'wandb', 'mlflow'] = 'tensorboard'

    def __post_init__(self) -> None:
        names = (
            'devices', 'nodes', 'max_epochs', 'accumulate_grad_batches', 'log_every_n_steps',
            'checkpoint_every_n_steps', 'validate_every_n_epochs',
        )  # fmt: skip
        require_at_least('trainer', self, gradient_clip_norm=0, **dict.fromkeys(names, 1))
        if self.max_steps != -1:
            require_at_least('trainer', self, max_steps=1)


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        model: the network and its optimization.
        data: training and validation data.
        trainer: duration, devices and precision.
        seed: seed of initial weights, sample order, augmentation and dropout.
        output: folder for checkpoints, weights and curves.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    seed: int = 0
    output: str = 'out/training/run'


def build_parser(manual: str = '') -> ArgumentParser:
    """Return the parser for ``read_arguments``; it accepts presets and single values."""
    parser = manual_parser('training/train.py', manual)
    parser.add_argument(
        '--config',
        action='config',
        help='a preset of config/training, or the config.yaml of an earlier run',
    )
    parser.add_class_arguments(TrainingConfig)
    tasks = plain(TrainingConfig())['model']['network']['head']['tasks']
    parser.set_defaults({'model.network.head.tasks': tasks})
    return parser


def read_arguments(
    parser: ArgumentParser, arguments: list[str] | None
) -> tuple[TrainingConfig, Namespace]:
    """Return the configuration of a command line, and all parsed values.

    If ``model.init`` names a checkpoint, the default values of ``model.network`` are the values in
    this checkpoint.

    Raises:
        InvalidRunError: an unknown key, an invalid value or an unreadable checkpoint.
    """
    original_defaults = parser.get_defaults()
    values = parse(parser, arguments)
    try:
        if values.model.init is not None:
            network = model_config_to_dict(load_checkpoint(values.model.init).config)
            parser.set_defaults(_flat('model.network', network, option_keys(parser)))
            # A section whose default is not null must not be set to null. With the checkpoint of a
            # stereo network, the default of the section stereo is not null. A preset may set this
            # section to null nevertheless, so the original defaults decide which sections may be
            # null.
            values = parse(parser, arguments, original_defaults)
    except CheckpointError as error:
        raise InvalidRunError(str(error)) from error
    typed = instantiate(parser, values)
    names = [item.name for item in dataclasses.fields(TrainingConfig)]
    return TrainingConfig(**{name: typed[name] for name in names}), values


def _flat(prefix: str, values: dict, keys: list[str]) -> dict:
    """Return nested values as one dictionary with dotted keys.

    ``keys`` are the dotted keys of all options. A section that is itself an option, such as the
    optional section stereo, stays a dictionary.
    """
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f'{prefix}.{name}'
        is_group = isinstance(value, dict) and key not in keys
        flat |= _flat(key, value, keys) if is_group else {key: value}
    return flat


def plain(config: TrainingConfig) -> dict:
    """Return all values of ``config`` as plain lists, dicts, strings and numbers."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
