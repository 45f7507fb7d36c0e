"""The batch that a training step takes: images, matrices and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.preprocess import normalize
from bevdepth_core.training.targets import TaskTargets, center_targets, depth_targets, join
from bevdepth_core.types import CameraMatrices, ModelInputs


@dataclass(frozen=True)
class Batch:
    """B samples with their targets, made by the loader; images stay uint8 until they are on the
    device.

    Attributes:
        names: B sample tokens.
        images: (B, S, N, H, W, 3) uint8, RGB.
        matrices: of the B samples, S frames and N cameras.
        tasks: targets of each head task.
        depth_bins: (B, N, h, w) int64, one per feature pixel.
    """

    names: tuple[str, ...]
    images: Tensor
    matrices: CameraMatrices
    tasks: tuple[TaskTargets, ...]
    depth_bins: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, spec: ImageSpec) -> ModelInputs:
        """Return the input of the network, images normalized."""
        return ModelInputs(normalize(self.images, spec), self.matrices)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``; Lightning calls this."""
        return Batch(
            self.names,
            self.images.to(device, non_blocking=True),
            self.matrices.to(device),
            tuple(task.to(device) for task in self.tasks),
            self.depth_bins.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; torch's loader calls this."""
        return Batch(
            self.names,
            self.images.pin_memory(),
            self.matrices.pin_memory(),
            tuple(task.pin_memory() for task in self.tasks),
            self.depth_bins.pin_memory(),
        )


def collate(samples: Sequence[Sample], config: ModelConfig) -> Batch:
    """Return samples of one size as a batch."""
    return Batch(
        names=tuple(sample.name for sample in samples),
        images=torch.stack([sample.images for sample in samples]),
        matrices=CameraMatrices.stack([sample.matrices for sample in samples]),
        tasks=join([center_targets(sample.boxes, sample.labels, config) for sample in samples]),
        depth_bins=torch.stack(
            [
                depth_targets(sample.depth, config.depth_bins, config.image_encoder.stride)
                for sample in samples
            ]
        ),
    )
