"""Inputs of the cost volume, for the CPU and the GPU tests."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

IMAGE_SIZE = (36, 72)
"""Default height and width of the network input in ``CostCase.random``, pixels."""


@dataclass
class CostCase:
    reference: Tensor
    source: Tensor
    depths: Tensor
    matrix: Tensor
    image_size: tuple[int, int]
    groups: int

    @classmethod
    def random(
        cls,
        images: int = 2,
        channels: int = 16,
        height: int = 9,
        width: int = 18,
        depths: int = 3,
        groups: int = 4,
        image_size: tuple[int, int] = IMAGE_SIZE,
    ) -> CostCase:
        """Return a case with random features and camera motions. In every third row of the maps,
        the first candidate depth is negative.
        """
        generator = torch.Generator().manual_seed(0)
        maps = torch.randn(2, images, channels, height, width, generator=generator)
        values = 2 + 20 * torch.rand(images, depths, height, width, generator=generator)
        values[:, 0, ::3] *= -1
        shift = torch.rand(images, 3, generator=generator).double() - 0.5
        matrix = torch.eye(4).double()[:3].repeat(images, 1, 1)
        matrix[:, :2, 2] += 8 * shift[:, :2]
        matrix[:, 0, 1] += 0.1 * shift[:, 2]
        matrix[:, :, 3] = shift * torch.tensor([image_size[1], image_size[0], 1.0])
        return cls(*maps, values, matrix, image_size, groups)

    @property
    def arguments(self) -> tuple:
        """Arguments of ``cost_volume``."""
        geometry = self.depths, self.matrix, self.image_size
        return self.reference, self.source, *geometry, self.groups

    def to(self, device: str, dtype: torch.dtype) -> CostCase:
        """Return a copy on ``device`` with features of type ``dtype`` in channels_last layout."""
        reference, source = (
            maps.to(device, dtype).contiguous(memory_format=torch.channels_last)
            for maps in (self.reference, self.source)
        )
        depths, matrix = self.depths.to(device), self.matrix.to(device)
        return CostCase(reference, source, depths, matrix, self.image_size, self.groups)
