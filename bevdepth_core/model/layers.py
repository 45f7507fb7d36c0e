"""Small building blocks shared by the networks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bevdepth_core.model.torchvision_parts import BasicBlock, Bottleneck, conv1x1

NECK_NORM_EPS, NECK_NORM_MOMENTUM = 1e-3, 0.01
"""Batch-norm settings of both necks in the official code; every other batch norm has PyTorch's
defaults."""


def conv_norm_relu(
    in_channels: int, out_channels: int, kernel: int, *, dilation: int = 1, bias: bool = False
) -> nn.Sequential:
    """Return a convolution, a batch norm and a ReLU. The convolution keeps height and width."""
    padding = dilation * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, padding=padding, dilation=dilation, bias=bias
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def residual_stage(
    in_channels: int,
    out_channels: int,
    blocks: int,
    stride: int,
    block: type[BasicBlock | Bottleneck] = BasicBlock,
) -> nn.Sequential:
    """Return residual blocks. The first block changes number of channels and resolution."""
    width = out_channels // block.expansion
    downsample = None
    if stride != 1 or in_channels != out_channels:
        downsample = nn.Sequential(
            conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels)
        )
    return nn.Sequential(
        block(in_channels, width, stride, downsample),
        *(block(out_channels, width) for _ in range(blocks - 1)),
    )


class MultiScaleNeck(nn.Module):
    """Resamples feature maps of several scales to one resolution and concatenates them.

    Args:
        in_channels: number of channels of each input map.
        branch_channels: number of output channels of each branch.
        scales: scale of each branch. 2 upsamples the input by 2, and 0.25 downsamples the input by
            4. A scale of 1 is a transposed 1x1 convolution.

    Source: the feature pyramid of SECOND as the official code configures it.
    """

    def __init__(
        self, in_channels: Sequence[int], branch_channels: int, scales: Sequence[float]
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                self._resample(channels, branch_channels, scale),
                nn.BatchNorm2d(branch_channels, NECK_NORM_EPS, NECK_NORM_MOMENTUM),
                nn.ReLU(inplace=True),
            )
            for channels, scale in zip(in_channels, scales, strict=True)
        )

    @staticmethod
    def _resample(in_channels: int, out_channels: int, scale: float) -> nn.Module:
        if scale < 1:
            factor = round(1 / scale)
            return nn.Conv2d(in_channels, out_channels, factor, stride=factor, bias=False)
        factor = round(scale)
        layer = nn.ConvTranspose2d(in_channels, out_channels, factor, stride=factor, bias=False)
        nn.init.kaiming_normal_(layer.weight, mode='fan_out', nonlinearity='relu')
        return layer

    def forward(self, maps: Sequence[torch.Tensor]) -> torch.Tensor:
        return torch.cat(
            [branch(features) for branch, features in zip(self.branches, maps, strict=True)], dim=1
        )
