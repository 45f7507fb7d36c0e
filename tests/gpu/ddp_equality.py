"""Compares the loss of each training step on one GPU with the loss on two GPUs. Both runs use the
same global batches.

Dropout and TF32 are disabled.

    python -m tests.gpu.ddp_equality DATA OUT.json --devices 1      # writes OUT.json
    python -m tests.gpu.ddp_equality DATA OUT.json --devices 2      # compares with OUT.json
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from lightning.pytorch import Callback
from torch import nn

from bevdepth_core.training.config import TrainingConfig, build_parser, read_arguments
from bevdepth_core.training.train import train
from tests.reference import ROOT

TOLERANCE = 1e-3


class GlobalLosses(Callback):
    """Records the mean loss of all processes after each step; disables dropout, whose random
    numbers differ between processes.
    """

    def __init__(self) -> None:
        self.values: list[float] = []

    def on_train_start(self, trainer, pl_module) -> None:
        for module in pl_module.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0

    def on_train_batch_end(self, trainer, pl_module, outputs, *_) -> None:
        self.values.append(
            float(trainer.strategy.reduce(outputs['loss'].detach().clone(), reduce_op='mean'))
        )


def configure(options: argparse.Namespace, output: str) -> TrainingConfig:
    preset = str(ROOT / 'config/training/small.yaml')
    config, _ = read_arguments(build_parser(), ['--config', preset])
    trainer = replace(
        config.trainer,
        accelerator=options.accelerator,
        devices=options.devices,
        max_steps=options.steps,
        sync_batchnorm=True,
        averaging=None,
    )
    data = replace(
        config.data,
        root=str(options.data),
        batch_size=options.global_batch // options.devices,
        workers=options.workers,
    )
    return replace(config, data=data, trainer=trainer, output=output)


def main() -> None:
    """Train a few steps. With one device, write the losses to OUT.json; with more devices, compare
    the losses with this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('data', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--devices', type=int, default=1)
    parser.add_argument('--accelerator', default='gpu')
    parser.add_argument('--workers', type=int, default=6)
    parser.add_argument('--global-batch', type=int, default=16)
    parser.add_argument('--steps', type=int, default=12)
    options = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False
    losses = GlobalLosses()
    with tempfile.TemporaryDirectory() as output:
        train(configure(options, output), watchers=[losses])
    if int(os.environ.get('LOCAL_RANK', 0)):
        return
    if options.devices == 1:
        options.out.write_text(json.dumps(losses.values))
        return
    single_losses = json.loads(options.out.read_text())
    differences = [
        abs(several - single) / single
        for several, single in zip(losses.values, single_losses, strict=True)
    ]
    for single, several, difference in zip(single_losses, losses.values, differences, strict=True):
        print(
            f'one GPU {single:12.5f}   {options.devices} GPUs {several:12.5f}   '
            f'relative difference {difference:.1e}'
        )
    print(
        f'largest relative difference {max(differences):.1e}: '
        f'{"within" if max(differences) <= TOLERANCE else "ABOVE"} the tolerance of {TOLERANCE:g}'
    )


if __name__ == '__main__':
    main()
