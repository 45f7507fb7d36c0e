"""Steps of the real trainer on samples that cost nothing to load: step time, samples per second, peak memory.

python -m tests.benchmarks.bench_training [--preset NAME] [--precision P] [--batch-size N] [--steps N] [--devices N]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
from lightning.pytorch import Callback

from bevdepth_core.config import ModelConfig
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_training.config import TrainingConfig, build_parser, read_config
from tests.reference import ROOT
from tests.training.runs import noise_sample, run

WARM_UP = 5
"""Steps left out of the median: kernels are chosen and memory is taken in them."""


class SameSample:
    """A dataset whose samples are all the same one.

    Args:
        network: what the sample is for.
        count: length of the dataset.
    """

    def __init__(self, network: ModelConfig, count: int) -> None:
        self._sample = noise_sample(0, np.random.default_rng(0), network, cameras=6)
        self._count = count

    def __len__(self) -> int:
        return self._count

    def sample(self, place: int, rng: np.random.Generator) -> Sample:
        return self._sample


class Clock(Callback):
    """Notes when steps end and which losses they had."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_) -> None:
        self.losses.append(outputs['loss'].item())  # waits for the GPU
        self.ends.append(time.perf_counter())

    @property
    def median(self) -> float:
        return statistics.median(np.diff(self.ends[WARM_UP - 1 :]))


def main() -> None:
    """Print what was measured."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--preset', default='r50_256x704_2key' if gpu else 'small')
    parser.add_argument('--precision', default='bf16-mixed' if gpu else '32-true')
    parser.add_argument('--batch-size', type=int, default=8 if gpu else 1)
    parser.add_argument('--steps', type=int, default=50 if gpu else 8)
    parser.add_argument('--devices', type=int, default=1)
    options = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        config = configure(options, output)
        run(config, SameSample(config.model.network, options.steps * options.batch_size * options.devices), watchers=[clock])
    samples = options.batch_size * options.devices
    peak = torch.cuda.max_memory_allocated() if gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f'{options.preset}, {options.precision}, {samples} samples a step, median of {options.steps - WARM_UP} steps')
    print(f'step          {1e3 * clock.median:8.1f} ms')
    print(f'samples       {samples / clock.median:8.1f} per second')
    print(f'peak memory   {peak / 2**30:8.2f} GiB')
    print(f'loss          {clock.losses[0]:8.2f} -> {clock.losses[-1]:.2f}')


def configure(options: argparse.Namespace, output: str) -> TrainingConfig:
    """Return the preset, cut down to a few steps from random weights."""
    parser = build_parser()
    config = read_config(parser, parser.parse_args(['--config', str(ROOT / f'config/training/{options.preset}.yaml')]))
    trainer = replace(config.trainer, precision=options.precision, devices=options.devices, max_steps=options.steps)
    return replace(
        config,
        model=replace(config.model, pretrained='none'),
        data=replace(config.data, batch_size=options.batch_size),
        trainer=trainer,
        output=output,
    )


if __name__ == '__main__':
    main()
