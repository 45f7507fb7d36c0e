"""Everything that decides a training run, typed; one flat, complete YAML per preset in
``config/training``.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from dataclasses import dataclass, field
from typing import Literal

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from bevdepth_core.training.averaging import AveragingSettings
from bevdepth_core.training.data import DataSettings
from bevdepth_core.training.module import ModelSettings


@dataclass(frozen=True)
class TrainerSettings:
    """How long, where and how precisely to train.

    Attributes:
        accelerator: ``auto``, ``gpu`` or ``cpu``.
        devices: GPUs (or processes) per machine, or ``auto`` for all.
        nodes: machines.
        precision: of the image branch; geometry, BEV head and losses are 32 bits always.
        max_epochs: epochs to train.
        max_steps: optimizer steps to train at most; -1 for no limit.
        gradient_clip_norm: longer gradients are shortened to this norm; 0 leaves them.
        accumulate_grad_batches: batches per optimizer step.
        sync_batchnorm: batch norms use the samples of all GPUs.
        averaging: keep an exponential moving average of the weights, which is then what is
            exported; null for none.
        log_every_n_steps: steps between two points of a curve.
        checkpoint_every_n_steps: steps between two checkpoints to resume from.
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


@dataclass(frozen=True)
class TrainingConfig:
    """A training run.

    Attributes:
        model: the network and how it learns.
        data: what it learns from.
        trainer: how long, where and how precisely.
        seed: of first weights, order, augmentation and dropout.
        output: folder for checkpoints, weights and curves.
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    data: DataSettings = field(default_factory=DataSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    seed: int = 0
    output: str = 'out/training/run'


class ManualHelp(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Help that keeps the line breaks of the manual."""


def build_parser(description: str = '') -> ArgumentParser:
    """Return a parser of presets and of single values; ``read_config`` turns its result into a
    config.
    """
    parser = ArgumentParser(
        prog='training/train.py', description=description, formatter_class=ManualHelp
    )
    parser.add_argument(
        '--config',
        action='config',
        help='a preset of config/training, or the config.yaml of an earlier run',
    )
    parser.add_class_arguments(TrainingConfig)
    parser.set_defaults(
        {'model.network.head.tasks': plain(TrainingConfig())['model']['network']['head']['tasks']}
    )
    return parser


def read_config(parser: ArgumentParser, values) -> TrainingConfig:
    """Return the config in the result of ``build_parser``'s parser."""
    typed = parser.instantiate(values)
    return TrainingConfig(
        **{field.name: typed[field.name] for field in dataclasses.fields(TrainingConfig)}
    )


def plain(config: TrainingConfig) -> dict:
    """Return ``config`` as plain lists, dicts, strings and numbers, complete."""
    return json.loads(json.dumps(dataclasses.asdict(config)))
