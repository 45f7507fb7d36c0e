"""Training runs that take about a second, with a tiny network and with noise as samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.training.averaging import AveragingSettings
from bevdepth_core.training.config import TrainerSettings, TrainingConfig
from bevdepth_core.training.data import DataSettings, TrainingData
from bevdepth_core.training.module import BEVDepthModule, ModelSettings
from bevdepth_core.training.seeded_sampler import SampleSource
from bevdepth_core.training.train import fit
from tests.networks import TINY
from tests.training.samples import noise_sample


class InterruptedRunError(Exception):
    """Raised to interrupt a run at a chosen sample."""


class Noise:
    """Samples that contain noise: boxes and depth depend on the index of the sample, and images on
    the random generator.

    Args:
        count: number of samples.
        interrupt_after: number of samples after which loading fails.
    """

    def __init__(self, count: int = 10, interrupt_after: int | None = None) -> None:
        self._count, self._interrupt_after = count, interrupt_after
        self.seen: list[str] = []

    def __len__(self) -> int:
        return self._count

    def sample(self, place: int, rng: np.random.Generator) -> Sample:
        if self._interrupt_after is not None and self._interrupt_after <= len(self.seen):
            raise InterruptedRunError
        self.seen.append(f'sample {place}')
        return noise_sample(place, rng)


def tiny_config(output: Path, **trainer) -> TrainingConfig:
    """Return the configuration of a run on the CPU: two epochs of five batches of two samples.

    ``trainer`` contains trainer settings that replace the settings below.
    """
    settings = TrainerSettings(
        accelerator='cpu',
        devices=1,
        precision='32-true',
        max_epochs=2,
        log_every_n_steps=1,
        checkpoint_every_n_steps=3,
        averaging=AveragingSettings(decay=0.9),
    )
    model = ModelSettings(
        network=TINY, pretrained='none', freeze_stem=False, learning_rate=0.05, milestones=(1,)
    )
    return TrainingConfig(
        model,
        DataSettings(batch_size=2, workers=0),
        replace(settings, **trainer),
        seed=3,
        output=str(output),
    )


def run(
    config: TrainingConfig,
    source: SampleSource | None = None,
    resume: bool = False,
    watchers: Sequence = (),
) -> BEVDepthModule:
    """Train on the samples of ``source`` instead of nuScenes, and return the trained module."""
    source = Noise() if source is None else source
    data = TrainingData(
        lambda: source,
        config.model.network,
        config.data.batch_size,
        config.data.workers,
        config.seed,
    )
    return fit(config, data, resume, watchers)
