"""Voxel pooling by the cumsum trick: points sorted by cell, one running sum over all of them,
differences where the cell changes.

Source: Lift, Splat, Shoot (Philion and Fidler 2020), section 4.2. Here to be timed and compared
    with, nowhere else used.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bevdepth_core.ops.voxel_pooling_reference import accumulator


def pool_by_cumsum(
    depth: Tensor, context: Tensor, voxel_index: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """Return what the reference ``voxel_pooling`` does, but for its rounding: a running sum is as
    inexact as its largest values.

    As published, a point is a row of ``C`` numbers in the type of the features. How many points
    are inside is read back from the device, so that no CUDA graph holds this.
    """
    nx, ny, _ = shape
    batch, channels = depth.shape[0], context.shape[2]
    x, y, z = voxel_index.unbind(-1)  # (B, N, D, H, W)
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z == 0)
    sample = torch.arange(batch, device=depth.device).view(-1, 1, 1, 1, 1)
    cells, order = ((sample * ny + y) * nx + x)[inside].sort()
    lifted = depth[..., None] * context.movedim(2, -1)[:, :, None]  # (B, N, D, H, W, C)
    sums = lifted[inside][order].cumsum(0, dtype=accumulator(context.dtype))  # (P, C)
    cells, counts = cells.unique_consecutive(return_counts=True)
    ends = sums[counts.cumsum(0) - 1]
    bev = sums.new_zeros(batch * ny * nx, channels)
    bev[cells] = ends.diff(dim=0, prepend=ends.new_zeros(1, channels))
    return bev.to(context.dtype).view(batch, ny, nx, channels).permute(0, 3, 1, 2)
