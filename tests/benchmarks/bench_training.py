"""Measures training steps: step time, samples per second, peak memory and loss.

    python -m tests.benchmarks.bench_training [--preset NAME] [--precision P] [--batch-size N]
        [--steps N] [--devices N] [--root DATA]

Without --root, all samples are the same sample in memory, and reading takes no time. With --root,
the samples are read from a synthetic dataset.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from lightning.pytorch import Callback

from bevdepth_core.config import ModelConfig
from bevdepth_core.model import BEVDepth
from bevdepth_core.nuscenes.augment import Augmentation
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.training.config import TrainingConfig, build_parser, read_arguments
from bevdepth_core.training.data import open_nuscenes
from tests.reference import ROOT
from tests.training.runs import run
from tests.training.samples import noise_sample

WARM_UP = 5
"""Number of first steps that are excluded from the median, because kernels are selected and memory
is allocated in these steps."""


class SameSample:
    """A dataset that returns the same sample for every index.

    Args:
        network: configuration of the network for which the sample is created.
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
    """Records end time and loss of each step without waiting for the GPU."""

    def __init__(self) -> None:
        self._ends: list[torch.cuda.Event | float] = []
        self._losses: list[torch.Tensor] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, *_) -> None:
        self._losses.append(outputs['loss'].detach())
        self._ends.append(_moment(trainer.strategy.root_device.type == 'cuda'))

    @property
    def losses(self) -> list[float]:
        return [loss.item() for loss in self._losses]

    def median(self) -> float:
        """Return the median time of a step, seconds."""
        ends = self._ends[WARM_UP - 1 :]
        if isinstance(ends[0], float):
            return statistics.median(np.diff(ends))
        torch.cuda.synchronize()
        return statistics.median(
            1e-3 * before.elapsed_time(after) for before, after in pairwise(ends)
        )


def _moment(gpu: bool) -> torch.cuda.Event | float:
    if not gpu:
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def main() -> None:
    """Print what was measured."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--preset', default='r50_256x704_2key' if gpu else 'small')
    parser.add_argument('--precision', default='bf16-mixed' if gpu else '32-true')
    parser.add_argument('--batch-size', type=int, default=8 if gpu else 1)
    parser.add_argument('--steps', type=int, default=50 if gpu else 8)
    parser.add_argument('--devices', type=int, default=1)
    parser.add_argument('--workers', type=int, default=4, help='loader processes per device')
    parser.add_argument('--root', help='dataset that bevdepth_core.synthetic wrote')
    parser.add_argument(
        '--source-width', type=int, default=1600, help='width of the images in --root, pixels'
    )
    options = parser.parse_args()
    clock = Clock()
    with tempfile.TemporaryDirectory() as output:
        config = configure(options, output)
        count = options.steps * options.batch_size * options.devices
        source = (
            open_nuscenes(config.data, config.model.network)
            if options.root
            else SameSample(config.model.network, count)
        )
        run(config, source, watchers=[clock])
    samples = options.batch_size * options.devices
    peak = (
        torch.cuda.max_memory_allocated()
        if gpu
        else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    print(
        f'{options.preset}, {options.precision}, {samples} samples a step, median of '
        f'{options.steps - WARM_UP} steps'
    )
    print(f'step          {1e3 * clock.median():8.1f} ms')
    print(f'samples       {samples / clock.median():8.1f} per second')
    print(f'peak memory   {peak / 2**30:8.2f} GiB')
    tenth = max(1, len(clock.losses) // 10)
    means = [
        statistics.mean(clock.losses[start : start + tenth])
        for start in range(0, tenth * (len(clock.losses) // tenth), tenth)
    ]
    print(f'loss          {" ".join(f"{mean:.2f}" for mean in means)}   means of {tenth} steps')


def configure(options: argparse.Namespace, output: str) -> TrainingConfig:
    """Return the config of the preset, with few steps and with random initial weights."""
    preset = str(ROOT / f'config/training/{options.preset}.yaml')
    config, _ = read_arguments(build_parser(), ['--config', preset])
    trainer = replace(
        config.trainer,
        precision=options.precision,
        devices=options.devices,
        max_epochs=1000,
        max_steps=options.steps,
    )
    data = replace(config.data, batch_size=options.batch_size, workers=options.workers)
    if options.root:
        data = replace(data, root=options.root, version='v1.0-synthetic', split='synthetic_train')
        data = replace(data, augmentation=_for_width(data.augmentation, options))
    model = config.model
    if model.pretrained != 'none':
        # The weights are random, but they are read from a file, because the preset freezes the
        # stem. A run with ``pretrained: none`` must not freeze the stem.
        weights = Path(output) / 'random.pth'
        torch.save(BEVDepth(model.network).image_encoder.backbone.state_dict(), weights)
        model = replace(model, pretrained=str(weights))
    return replace(
        config,
        model=model,
        data=data,
        trainer=trainer,
        output=output,
    )


def _for_width(augmentation: Augmentation, options: argparse.Namespace) -> Augmentation:
    """Return the augmentation of the preset for the images in --root. The scale range of an R50
    preset is for images with a width of 1600 pixels; it is converted to --source-width."""
    if not options.preset.startswith('r50'):
        return augmentation
    scale = tuple(1600 / options.source_width * factor for factor in augmentation.image.scale)
    return replace(augmentation, image=replace(augmentation.image, scale=scale))


if __name__ == '__main__':
    main()
