"""Convolutions for inference that include batch norm, sum and ReLU."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bevdepth_core.engine.timing import device_seconds
from bevdepth_core.model.layers import MultiScaleNeck
from bevdepth_core.model.torchvision_parts import BasicBlock, Bottleneck
from bevdepth_core.ops.max_pool import max_pool

MAX_SLOWDOWN = 1.1
"""The fused kernel is used if it takes less than this many times the time of separate kernels; the
margin covers the noise of the measurement."""


PartType = TypeVar('PartType', bound=nn.Module)


def part(module: object, kind: type[PartType]) -> PartType:
    """Return ``module`` after a check of its type, because PyTorch's containers return untyped
    modules.
    """
    if not isinstance(module, kind):
        raise TypeError(f'expected {kind.__name__}, got {type(module).__name__}')
    return module


def folded(
    conv: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d, norm: nn.BatchNorm2d | nn.BatchNorm3d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a convolution that includes the batch norm."""
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=isinstance(conv, nn.ConvTranspose2d),
    )
    return weight.detach(), bias.detach()


class FusedConv(nn.Module):
    """Convolution, optional sum and ReLU. In half precision on CUDA they are one kernel, unless
    separate kernels are faster.

    Args:
        conv: for stride, padding and dilation.
        weight: folded, (out, in / groups, kh, kw).
        bias: folded, (out,).
    """

    def __init__(self, conv: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        assert not isinstance(conv.padding, str)
        self._stride, self._padding = conv.stride, conv.padding
        self._dilation, self._groups = conv.dilation, conv.groups
        self._use_fused_kernel: bool | None = None

    @classmethod
    def folded(cls, conv: object, norm: object) -> FusedConv:
        """Return the convolution ``conv`` with the batch norm ``norm`` folded in."""
        conv = part(conv, nn.Conv2d)
        return cls(conv, *folded(conv, part(norm, nn.BatchNorm2d)))

    def forward(self, features: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        if not features.is_cuda or features.dtype not in (torch.float16, torch.bfloat16):
            return self._separate_kernels(features, summand)
        if self._use_fused_kernel is None:
            self._use_fused_kernel = self._measure_fused_kernel(features, summand)
        return (
            self._fused_kernel(features, summand)
            if self._use_fused_kernel
            else self._separate_kernels(features, summand)
        )

    def _fused_kernel(self, features: torch.Tensor, summand: torch.Tensor | None) -> torch.Tensor:
        args = (self._stride, self._padding, self._dilation, self._groups)
        if summand is None:
            return torch.cudnn_convolution_relu(features, self.weight, self.bias, *args)
        return torch.cudnn_convolution_add_relu(
            features, self.weight, summand, 1.0, self.bias, *args
        )

    def _separate_kernels(
        self, features: torch.Tensor, summand: torch.Tensor | None
    ) -> torch.Tensor:
        args = (self._stride, self._padding, self._dilation, self._groups)
        result = F.conv2d(features, self.weight, self.bias, *args)
        return (result if summand is None else result.add_(summand)).relu_()

    def _measure_fused_kernel(self, features: torch.Tensor, summand: torch.Tensor | None) -> bool:
        """Return True if the fused kernel is fast enough. cuDNN selects its algorithm without
        measuring, and for some sizes it takes ten times as long as separate kernels.
        """
        fused = device_seconds(partial(self._fused_kernel, features, summand))
        separate = device_seconds(partial(self._separate_kernels, features, summand))
        return fused < MAX_SLOWDOWN * separate


class FusedBlock(nn.Module):
    """A residual block of torchvision whose last convolution also computes the sum."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        count = 3 if isinstance(block, Bottleneck) else 2
        parts = [
            (getattr(block, f'conv{n}'), getattr(block, f'bn{n}')) for n in range(1, count + 1)
        ]
        self.first = nn.Sequential(*(FusedConv.folded(*part) for part in parts[:-1]))
        self.last = FusedConv.folded(*parts[-1])
        self.shortcut: nn.Module = nn.Identity()
        if block.downsample is not None:
            conv, norm = block.downsample
            weight, bias = folded(conv, norm)
            shortcut = nn.Conv2d(
                conv.in_channels,
                conv.out_channels,
                conv.kernel_size,
                conv.stride,
                conv.padding,
                bias=False,
            )
            shortcut.weight = nn.Parameter(weight, requires_grad=False)
            self.shortcut = shortcut
            self.last.bias.data += bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(features), self.shortcut(features))


class FusedNeck(nn.Module):
    """The neck with one convolution per branch.

    A transposed convolution whose stride equals its kernel size is a 1x1 convolution that computes
    all pixels of each square.
    """

    def __init__(self, neck: MultiScaleNeck) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self._upsampling: list[int] = []
        for branch in neck.branches:
            resample, norm, _ = part(branch, nn.Sequential)
            if isinstance(resample, nn.ConvTranspose2d):
                self.branches.append(_squares(resample, part(norm, nn.BatchNorm2d)))
                self._upsampling.append(resample.stride[0])
            else:
                self.branches.append(FusedConv.folded(resample, norm))
                self._upsampling.append(1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        parts = [branch(features) for branch, features in zip(self.branches, maps, strict=True)]
        return torch.cat(
            [_spread(part, up) for part, up in zip(parts, self._upsampling, strict=True)], dim=1
        )


def _spread(squares: torch.Tensor, up: int) -> torch.Tensor:
    """Return (n, C, up * h, up * w), channels_last, from (n, up * up * C, h, w)."""
    if up == 1:
        return squares
    pixels = squares.permute(0, 2, 3, 1).unflatten(3, (up, up, -1))  # (n, h, w, row, column, C)
    rows = pixels.transpose(2, 3)  # (n, h, row, w, column, C)
    return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _squares(conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> FusedConv:
    """Return a 1x1 convolution whose channels are (row in the square, column in the square,
    channel).
    """
    weight, bias = folded(conv, norm)
    pixels = weight.shape[2] * weight.shape[3]
    weight = weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
    return FusedConv(nn.Conv2d(weight.shape[1], weight.shape[0], 1), weight, bias.repeat(pixels))


class FusedMaxPool(nn.Module):
    """The stem's pooling: windows of 3x3, stride 2."""

    def __init__(self, pooling: nn.MaxPool2d) -> None:
        super().__init__()
        if (pooling.kernel_size, pooling.stride, pooling.padding) != (3, 2, 1):
            raise ValueError(
                f'FusedMaxPool supports only 3x3 windows with stride 2, got {pooling}'
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return max_pool(features)
