"""Inference versions of modules of the depth network and of the depth refinement. They are created
from modules whose convolutions are already fused.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bevdepth_core.engine.convolutions import FusedConv, require_type
from bevdepth_core.model.depth_net import AtrousPyramid, DeformableConv, DepthSoftmax
from bevdepth_core.model.view_transform import DepthRefinement
from bevdepth_core.ops.deformable import deformable_conv


class FusedDeformableConv(nn.Module):
    """Deformable convolution whose sampling points are float32. In bfloat16, rounding would move a
    point by up to 0.4 % of the map's size.
    """

    def __init__(self, conv: DeformableConv) -> None:
        super().__init__()
        self.offset, self.weight = conv.offset, conv.weight

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return deformable_conv(features, self.offset(features), self.weight)


class FusedPyramid(nn.Module):
    """Atrous pyramid that projects the global mean before the mean is expanded to the size of the
    map.

    The projection is linear, so it equals the sum of two convolutions. One convolution projects
    the four branches, and the other projects the mean, which is a single pixel.
    """

    def __init__(self, pyramid: AtrousPyramid) -> None:
        super().__init__()
        self.branches, self.pool = pyramid.branches, pyramid.pool
        self.project = require_type(pyramid.project[0], FusedConv)
        mean_channels = self.project.weight.shape[1] // (len(self.branches) + 1)
        weight, mean_weight = self.project.weight.split(
            (len(self.branches) * mean_channels, mean_channels), dim=1
        )
        self.project.weight = nn.Parameter(weight.contiguous(), requires_grad=False)
        self.project_mean = nn.Parameter(mean_weight.contiguous(), requires_grad=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        branches = torch.cat([branch(features) for branch in self.branches], dim=1)
        mean = F.conv2d(self.pool(features), self.project_mean)
        mean = mean.expand(-1, -1, *features.shape[2:]).contiguous(
            memory_format=torch.channels_last
        )
        return self.project(branches, mean)


class ChannelsLastSoftmax(nn.Module):
    """``DepthSoftmax`` for channels_last logits, whose depth bins are contiguous in memory."""

    def __init__(self, _: DepthSoftmax) -> None:
        super().__init__()

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        pixels = logits.permute(0, 2, 3, 1)
        return F.softmax(pixels, dim=-1, dtype=torch.float32).permute(0, 3, 1, 2)


class FusedRefinement(nn.Module):
    """Depth refinement that creates its planes in channels_last layout, and adds the bias of the
    last convolution while it copies the result.
    """

    def __init__(self, refinement: DepthRefinement) -> None:
        super().__init__()
        self.reduce, self.residual, self.out = (
            refinement.reduce,
            refinement.residual,
            refinement.out,
        )

    def forward(self, depth: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return the refined volume (B, N, C, D, h, w) of depth (B, N, D, h, w) and context (B, N,
        C, h, w).
        """
        batch, cameras, bins, height, width = depth.shape
        volume = context.new_empty(batch, cameras, height, width, bins, context.shape[2])
        torch.mul(
            depth.permute(0, 1, 3, 4, 2)[..., None],
            context.permute(0, 1, 3, 4, 2)[..., None, :],
            out=volume,
        )
        planes = volume.flatten(0, 2).permute(0, 3, 1, 2)  # one (w, D) plane per feature-map row
        planes = self.reduce(planes)
        assert self.out.bias is not None
        planes = F.conv2d(planes + self.residual(planes), self.out.weight, padding=1)
        refined = planes.unflatten(0, (batch, cameras, height)).permute(0, 1, 3, 5, 2, 4)
        return torch.add(
            refined, self.out.bias[:, None, None, None], out=refined.new_empty(refined.shape)
        )
