"""Convolutions for inference that include batch norm, the residual connection and ReLU."""

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
"""A fused kernel is used if its time is less than this factor multiplied by the time of separate
kernels. The factor is above 1, because the measurement is noisy."""


ModuleType = TypeVar('ModuleType', bound=nn.Module)


def require_type(module: object, kind: type[ModuleType]) -> ModuleType:
    """Return ``module`` after a check of its type, because PyTorch's containers return untyped
    modules.
    """
    if not isinstance(module, kind):
        raise TypeError(f'expected {kind.__name__}, got {type(module).__name__}')
    return module


def fold_batch_norm(
    conv: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d, norm: nn.BatchNorm2d | nn.BatchNorm3d
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight and bias of a convolution that includes the batch norm.

    Raises:
        ValueError: a transposed convolution has groups.
    """
    is_transposed = isinstance(conv, nn.ConvTranspose2d)
    if is_transposed and conv.groups > 1:  # fuse_conv_bn_weights would mix channels of groups
        raise ValueError(f'groups of a transposed convolution are not supported: {conv}')
    assert norm.running_mean is not None and norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        conv.weight,
        conv.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=is_transposed,
    )
    return weight.detach(), bias.detach()


class FusedConv(nn.Module):
    """Convolution, optional residual and ReLU. With float16 or bfloat16 on CUDA, one fused kernel
    computes them, unless it takes ``MAX_SLOWDOWN`` times as long as separate kernels, or longer.

    Args:
        conv: convolution; its stride, padding, dilation and groups are used.
        weight: (out, in / groups, kh, kw), with the batch norm folded in.
        bias: (out,), with the batch norm folded in.
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
    def from_conv_norm(cls, conv: object, norm: object) -> FusedConv:
        """Return the convolution ``conv`` with the batch norm ``norm`` folded in."""
        conv = require_type(conv, nn.Conv2d)
        return cls(conv, *fold_batch_norm(conv, require_type(norm, nn.BatchNorm2d)))

    def forward(
        self, features: torch.Tensor, residual: torch.Tensor | None = None
    ) -> torch.Tensor:
        if not features.is_cuda or features.dtype not in (torch.float16, torch.bfloat16):
            return self._separate_kernels(features, residual)
        if self._use_fused_kernel is None:
            self._use_fused_kernel = self._measure_fused_kernel(features, residual)
        return (
            self._fused_kernel(features, residual)
            if self._use_fused_kernel
            else self._separate_kernels(features, residual)
        )

    def _fused_kernel(self, features: torch.Tensor, residual: torch.Tensor | None) -> torch.Tensor:
        args = (self._stride, self._padding, self._dilation, self._groups)
        if residual is None:
            return torch.cudnn_convolution_relu(features, self.weight, self.bias, *args)
        return torch.cudnn_convolution_add_relu(
            features, self.weight, residual, 1.0, self.bias, *args
        )

    def _separate_kernels(
        self, features: torch.Tensor, residual: torch.Tensor | None
    ) -> torch.Tensor:
        args = (self._stride, self._padding, self._dilation, self._groups)
        result = F.conv2d(features, self.weight, self.bias, *args)
        return (result if residual is None else result.add_(residual)).relu_()

    def _measure_fused_kernel(self, features: torch.Tensor, residual: torch.Tensor | None) -> bool:
        """Return True if the fused kernel is fast enough. cuDNN selects its algorithm with
        heuristics, and for some sizes the fused kernel takes ten times as long as separate
        kernels.
        """
        fused = device_seconds(partial(self._fused_kernel, features, residual))
        separate = device_seconds(partial(self._separate_kernels, features, residual))
        return fused < MAX_SLOWDOWN * separate


class FusedBlock(nn.Module):
    """A residual block of torchvision whose last convolution also adds the residual."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        count = 3 if isinstance(block, Bottleneck) else 2
        *first, last = (
            FusedConv.from_conv_norm(getattr(block, f'conv{n}'), getattr(block, f'bn{n}'))
            for n in range(1, count + 1)
        )
        self.first, self.last = nn.Sequential(*first), last
        self.shortcut: nn.Module = nn.Identity()
        if block.downsample is not None:
            conv, norm = block.downsample
            weight, bias = fold_batch_norm(conv, norm)
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
            self.last.bias.data += bias  # the bias of the shortcut, added before ReLU

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(features), self.shortcut(features))


class FusedNeck(nn.Module):
    """The neck with one convolution per branch.

    A transposed convolution whose stride ``up`` equals its kernel size becomes a 1x1 convolution,
    which computes up * up output pixels for each input pixel, and a depth-to-space rearrangement
    of these pixels.
    """

    def __init__(self, neck: MultiScaleNeck) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self._upsampling: list[int] = []
        for branch in neck.branches:
            resample, norm, _ = require_type(branch, nn.Sequential)
            if isinstance(resample, nn.ConvTranspose2d):
                self.branches.append(
                    _pointwise_upsampling(resample, require_type(norm, nn.BatchNorm2d))
                )
                self._upsampling.append(resample.stride[0])
            else:
                self.branches.append(FusedConv.from_conv_norm(resample, norm))
                self._upsampling.append(1)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        branches = zip(self.branches, maps, self._upsampling, strict=True)
        return torch.cat(
            [_depth_to_space(branch(features), up) for branch, features, up in branches], dim=1
        )


def _depth_to_space(blocks: torch.Tensor, up: int) -> torch.Tensor:
    """Return (n, C, up * h, up * w), channels_last, from (n, up * up * C, h, w)."""
    if up == 1:
        return blocks
    pixels = blocks.permute(0, 2, 3, 1).unflatten(3, (up, up, -1))  # (n, h, w, row, column, C)
    rows = pixels.transpose(2, 3)  # (n, h, row, w, column, C)
    return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _pointwise_upsampling(conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> FusedConv:
    """Return a 1x1 convolution that computes, for each input pixel, the block of output pixels of
    ``conv`` and ``norm``. The output channels are the values of the block in the order row,
    column, channel.
    """
    assert conv.stride == conv.kernel_size and conv.padding == (0, 0)
    weight, bias = fold_batch_norm(conv, norm)
    pixels = weight.shape[2] * weight.shape[3]
    weight = weight.permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
    return FusedConv(nn.Conv2d(weight.shape[1], weight.shape[0], 1), weight, bias.repeat(pixels))


class StemMaxPool(nn.Module):
    """The pooling of the stem as one kernel: windows of 3x3, stride 2, padding 1."""

    def __init__(self, pooling: nn.MaxPool2d) -> None:
        super().__init__()
        if (pooling.kernel_size, pooling.stride, pooling.padding) != (3, 2, 1):
            raise ValueError(
                f'StemMaxPool supports only 3x3 windows, stride 2 and padding 1, got {pooling}'
            )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return max_pool(features)
