"""Training runs that take a second: a tiny network, and samples made of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.training.averaging import AveragingSettings
from bevdepth_core.training.config import TrainerSettings, TrainingConfig
from bevdepth_core.training.data import DataSettings, TrainingData
from bevdepth_core.training.module import BEVDepthModule, ModelSettings
from bevdepth_core.training.seeded_sampler import SampleSource
from bevdepth_core.training.train import fit
from bevdepth_core.types import CameraMatrices
from tests.networks import TINY

CAMERAS = 2


class InterruptedRunError(Exception):
    """Raised to interrupt a run at a chosen sample."""


class Noise:
    """Samples of noise: boxes and depth depend on the position, images on the random generator.

    Args:
        count: number of samples.
        interrupt_after: samples after which loading fails.
    """

    def __init__(self, count: int = 10, interrupt_after: int | None = None) -> None:
        self._count, self._left = count, interrupt_after
        self.seen: list[str] = []

    def __len__(self) -> int:
        return self._count

    def sample(self, place: int, rng: np.random.Generator) -> Sample:
        if self._left is not None and self._left <= len(self.seen):
            raise InterruptedRunError
        self.seen.append(f'sample {place}')
        return noise_sample(place, rng)


def noise_sample(
    place: int, rng: np.random.Generator, network: ModelConfig = TINY, cameras: int = CAMERAS
) -> Sample:
    """Return a sample for ``network``: boxes and depth follow from ``place``, images and their
    matrix from ``rng``."""
    fixed = np.random.default_rng(place)
    frames, (height, width), reach = (
        network.key_frames,
        (network.image.height, network.image.width),
        network.grid.x[1],
    )
    intrinsics = np.array(
        [
            (0.6 * width, 0, width / 2, 0),
            (0, 0.6 * width, height / 2, 0),
            (0, 0, 1, 0),
            (0, 0, 0, 1),
        ]
    )
    center, size = (
        fixed.uniform(-reach, reach, (6, 3)) * (1, 1, 0.1),
        fixed.uniform(0.5, 5, (6, 3)),
    )
    depth = np.where(
        fixed.random((cameras, height, width)) < 0.02,
        fixed.uniform(1, 20, (cameras, height, width)),
        0,
    )
    image_aug = np.eye(4) + rng.uniform(-0.05, 0.05) * np.diag([1, 1, 0, 0])
    return Sample(
        name=f'sample {place}',
        images=torch.from_numpy(
            rng.integers(0, 256, (frames, cameras, height, width, 3), np.uint8)
        ),
        matrices=CameraMatrices(
            _repeated(_ring(cameras), frames, cameras),
            _repeated(intrinsics, frames, cameras),
            _repeated(image_aug, frames, cameras),
            torch.eye(4),
        ),
        boxes=torch.from_numpy(
            np.column_stack([center, size, fixed.normal(size=(6, 3))]).astype(np.float32)
        ),
        labels=torch.from_numpy(fixed.integers(0, 10, 6)),
        depth=torch.from_numpy(depth.astype(np.float32)),
    )


def _ring(cameras: int) -> np.ndarray:
    """Return (cameras, 4, 4) poses at the ego origin, 1.5 m high, that look all around."""
    forward = np.array([(0, 0, 1, 0), (-1, 0, 0, 0), (0, -1, 0, 1.5), (0, 0, 0, 1)])
    turns = np.stack([np.eye(4)] * cameras)
    angles = 2 * np.pi * np.arange(cameras) / cameras
    turns[:, 0, 0], turns[:, 0, 1], turns[:, 1, 0], turns[:, 1, 1] = (
        np.cos(angles),
        -np.sin(angles),
        np.sin(angles),
        np.cos(angles),
    )
    return turns @ forward


def _repeated(matrix: np.ndarray, frames: int, cameras: int) -> torch.Tensor:
    return torch.from_numpy(matrix.astype(np.float32)).expand(frames, cameras, 4, 4)


def tiny_config(output: Path, **trainer) -> TrainingConfig:
    """Return a run of two epochs with five batches of two samples each on the CPU; ``trainer``
    changes its settings."""
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
    """Train on ``source`` as ``train`` does on nuScenes."""
    source = Noise() if source is None else source
    data = TrainingData(
        lambda: source,
        config.model.network,
        config.data.batch_size,
        config.data.workers,
        config.seed,
    )
    return fit(config, data, resume, watchers)
