"""Inputs of exported graphs."""

from __future__ import annotations

import torch

from bevdepth_core.model import BEVDepth


def splat_inputs(model: BEVDepth, cameras: int) -> tuple[torch.Tensor, ...]:
    """Return random depth and context, and matrices that place some points inside the grid and
    some outside.
    """
    view, config = model.view_transform, model.config
    size = (len(view.frustum_v), len(view.frustum_u))
    generator = torch.Generator().manual_seed(0)
    depth = torch.rand(cameras, config.depth_bins.count, *size, generator=generator)
    context = torch.randn(cameras, config.depth_net.context_channels, *size, generator=generator)
    matrices = torch.randn(cameras, 3, 4, generator=generator) * torch.tensor((0.01, 0.01, 1, 3))
    return depth, context, matrices
