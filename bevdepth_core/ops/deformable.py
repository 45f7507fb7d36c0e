"""Deformable 3x3 convolution for inference: bilinear sampling, then one matrix product per group.

torchvision's kernel is not used. It always runs on the default stream, and a CUDA graph can
therefore not capture it. Under autocast, it computes in float32. It also takes twice as
long as this implementation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from bevdepth_core.ops.compiled import kernels, launch

TAPS = 9


def deformable_conv(features: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Return the 3x3 convolution that reads each neighbor at a position moved by an offset.

    The three arguments have the same floating type. Positions are computed in float32 for every
    type.

    Args:
        features: (N, C, H, W).
        offsets: (N, 18, H, W), y and x offset of each of the nine neighbors, pixels. Features
            outside of the map are zero.
        weight: (O, C / groups, 3, 3).

    Returns:
        (N, O, H, W), channels_last.

    Source: torchvision.ops.deform_conv2d with padding 1 and one offset group.
    """
    images, channels, height, width = features.shape
    out_channels, group_channels = weight.shape[:2]
    groups = channels // group_channels
    columns = deformable_columns(features, offsets, groups)
    # filters: (groups, 9 C / groups, O / groups)
    filters = weight.view(groups, -1, group_channels, TAPS).permute(0, 3, 2, 1).flatten(1, 2)
    result = columns.new_empty(columns.shape[1], groups, out_channels // groups)
    torch.bmm(columns, filters, out=result.transpose(0, 1))
    return result.view(images, height, width, out_channels).permute(0, 3, 1, 2)


def deformable_columns(features: Tensor, offsets: Tensor, groups: int) -> Tensor:
    """Return (groups, N * H * W, 9 * C / groups): the sampled features of the nine neighbors of
    each pixel.

    Args:
        features: see ``deformable_conv``.
        offsets: see ``deformable_conv``.
        groups: number of groups of the convolution.
    """
    nhwc, offsets = (
        features.permute(0, 2, 3, 1).contiguous(),
        offsets.permute(0, 2, 3, 1).contiguous(),
    )
    if kernels is None or not features.is_cuda:
        return _reference(nhwc, offsets, groups)
    images, height, width, channels = nhwc.shape
    columns = nhwc.new_empty(groups, images * height * width, TAPS * channels // groups)
    kernels.deformable_columns(
        launch(nhwc),
        kernels.Map(*nhwc.shape),
        groups,
        nhwc.data_ptr(),
        offsets.data_ptr(),
        columns.data_ptr(),
    )
    return columns


def _reference(nhwc: Tensor, offsets: Tensor, groups: int) -> Tensor:
    images, height, width, channels = nhwc.shape
    dy, dx = offsets.float().unflatten(3, (TAPS, 2)).unbind(-1)
    tap = torch.arange(TAPS, device=nhwc.device)
    v = dy + (tap // 3 - 1) + torch.arange(height, device=nhwc.device)[:, None, None]
    u = dx + (tap % 3 - 1) + torch.arange(width, device=nhwc.device)[:, None]
    # In grid_sample, -1 is the center of the first pixel, and 1 is the center of the last pixel.
    grid = torch.stack(
        (2 * u / max(width - 1, 1) - 1, 2 * v / max(height - 1, 1) - 1), dim=-1
    ).flatten(2, 3)
    read = F.grid_sample(
        nhwc.permute(0, 3, 1, 2).float(), grid, padding_mode='zeros', align_corners=True
    )
    read = read.view(images, groups, channels // groups, height, width, TAPS).permute(
        1, 0, 3, 4, 5, 2
    )
    return read.reshape(groups, images * height * width, -1).to(nhwc.dtype)
