"""Voxel pooling by the cumsum trick. The benchmark compares the cumsum trick with the kernels by
time and by rounding errors.

Points are sorted by cell. One cumulative sum runs over all points. The sum of a cell is the
difference between the cumulative sums at its last point and at the last point of the previous
cell.

Source: Lift, Splat, Shoot (Philion and Fidler 2020), section 4.2. Only the benchmark uses this
module.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bevdepth_core.ops.voxel_pooling_reference import accumulator


def pool_by_cumsum(
    depth: Tensor, context: Tensor, voxel_index: Tensor, shape: tuple[int, int, int]
) -> Tensor:
    """Return the map of the reference ``voxel_pooling``, with larger rounding errors.

    The errors are larger because a cumulative sum runs over all points: the larger the sum, the
    larger its rounding error.

    As in the publication, the product of depth and context is stored for every point, as ``C``
    numbers in the data type of ``context``. This function cannot be captured in a CUDA
    graph, because the host must wait for the number of points inside the grid.
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
