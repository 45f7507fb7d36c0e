"""Depth net and depth refinement in evaluation mode; they are made of parts whose convolutions are
fused already.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bevdepth_core.model.depth_net import (
    AtrousPyramid,
    DeformableConv,
    DepthNet,
    in_network_pixels,
)
from bevdepth_core.model.view_transform import DepthRefinement
from bevdepth_core.ops.deformable import deformable_conv


class FusedDeformableConv(nn.Module):
    """Deformable convolution whose sampling points are float32: half precision would misplace them
    by a hundredth of the map.
    """

    def __init__(self, conv: DeformableConv) -> None:
        super().__init__()
        self.offset, self.weight = conv.offset, conv.weight

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return deformable_conv(features, self.offset(features), self.weight)


class FusedPyramid(nn.Module):
    """Atrous pyramid that adds what the global mean contributes to the projection instead of
    spreading it over the map first.
    """

    def __init__(self, pyramid: AtrousPyramid) -> None:
        super().__init__()
        self.branches, self.pool, self.project = pyramid.branches, pyramid.pool, pyramid.project[0]
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


class FusedDepthNet(nn.Module):
    """Depth net whose gates can be computed before the image features are there, and whose softmax
    runs along memory.
    """

    def __init__(self, net: DepthNet) -> None:
        super().__init__()
        self.net = net

    def gates(self, cameras: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors (n, C, 1, 1) of context and depth features from (n, 27) camera
        vectors.
        """
        net = self.net
        cameras = net.camera_norm(
            in_network_pixels(cameras) if net.told_network_pixels else cameras
        )
        return net.context_gate.factors(cameras), net.depth_gate.factors(cameras)

    def forward(
        self, features: torch.Tensor, cameras: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``DepthNet``."""
        return self.gated(features, self.gates(cameras))

    def gated(
        self, features: torch.Tensor, gates: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return depth (n, D, h, w) float32 and context (n, C, h, w) from image features and the
        gates.
        """
        net = self.net
        context_gate, depth_gate = gates
        features = net.reduce(features)
        context = net.context_head(features * context_gate)
        logits = net.depth_head(net.deform(net.pyramid(net.depth_blocks(features * depth_gate))))
        return F.softmax(logits.permute(0, 2, 3, 1), dim=-1, dtype=torch.float32).permute(
            0, 3, 1, 2
        ), context


class FusedRefinement(nn.Module):
    """Depth refinement whose planes are made channels_last at once, and whose result is copied and
    given its bias in one.
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
        planes = F.conv2d(planes + self.residual(planes), self.out.weight, padding=1)
        refined = planes.unflatten(0, (batch, cameras, height)).permute(0, 1, 3, 5, 2, 4)
        return torch.add(
            refined, self.out.bias[:, None, None, None], out=refined.new_empty(refined.shape)
        )
