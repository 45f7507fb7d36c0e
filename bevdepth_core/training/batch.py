"""The batch that a training step takes: images, matrices and targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.preprocess import normalise
from bevdepth_core.training.targets import TaskTargets, center_targets, depth_targets, join
from bevdepth_core.types import ModelInputs

_MATRICES = ('key_ego_from_camera', 'intrinsics', 'image_aug', 'bev_aug')


@dataclass(frozen=True)
class Batch:
    """B samples with their targets, made on the loader's side; images stay uint8 until they are on
    the device.

    Attributes:
        names: B sample tokens.
        images: (B, S, N, H, W, 3) uint8, RGB.
        key_ego_from_camera: (B, S, N, 4, 4) float32.
        intrinsics: (B, S, N, 4, 4) float32.
        image_aug: (B, S, N, 4, 4) float32.
        bev_aug: (B, 4, 4) float32.
        tasks: targets of each head task.
        depth_bins: (B, N, h, w) int64, one per feature pixel.
    """

    names: tuple[str, ...]
    images: Tensor
    key_ego_from_camera: Tensor
    intrinsics: Tensor
    image_aug: Tensor
    bev_aug: Tensor
    tasks: tuple[TaskTargets, ...]
    depth_bins: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, spec: ImageSpec) -> ModelInputs:
        """Return what the network reads, images normalised."""
        return ModelInputs(
            normalise(self.images, spec), *(getattr(self, name) for name in _MATRICES)
        )

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``; Lightning calls this."""
        return self._mapped(
            lambda tensor: tensor.to(device, non_blocking=True),
            [task.to(device) for task in self.tasks],
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; torch's loader calls this."""
        return self._mapped(Tensor.pin_memory, [task.pin_memory() for task in self.tasks])

    def _mapped(self, change: Callable[[Tensor], Tensor], tasks: list[TaskTargets]) -> Batch:
        tensors = {
            name: change(getattr(self, name)) for name in ('images', *_MATRICES, 'depth_bins')
        }
        return Batch(names=self.names, tasks=tuple(tasks), **tensors)


def collate(samples: Sequence[Sample], config: ModelConfig) -> Batch:
    """Return samples of one size as a batch."""
    stacked = {
        name: torch.stack([getattr(sample, name) for sample in samples])
        for name in ('images', *_MATRICES)
    }
    return Batch(
        names=tuple(sample.name for sample in samples),
        tasks=join([center_targets(sample.boxes, sample.labels, config) for sample in samples]),
        depth_bins=torch.stack(
            [
                depth_targets(sample.depth, config.depth_bins, config.image_encoder.stride)
                for sample in samples
            ]
        ),
        **stacked,
    )
