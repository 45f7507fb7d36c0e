"""Voxel pooling by sorted intervals, to compare its time with the time of the kernels.

In a list of points that is sorted by cell, the points of a cell form an interval. One block of
threads processes the interval of a cell: it reads the points, sums them in float32 and writes the
cell once, without atomic additions. Five int32 arrays describe the list: the place of each point
in the depth and in the context, and the cell, start and length of each interval. If cameras move
relative to the vehicle, these arrays have to be computed again.

Source: NVIDIA's description of BEVPoolV3 (June 2026). NVIDIA has not published code for it, so
this code was written from the description. The code differs from the description in one point:
empty cells have an interval of length 0, whose block writes zeros. The map is therefore not
cleared before the sum, and all arrays have fixed sizes, so that CUDA graphs can contain the
computation of the arrays. Only the benchmark uses this module.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton  # type: ignore[import-untyped]
from torch import Tensor
from triton import language as tl  # type: ignore[import-untyped]

POINTS, WARPS = 32, 1
"""Number of points that a block reads at a time, and number of warps of a block. Among 2 to 32
points and 1 to 4 warps, these numbers were the fastest on an H200 for one sample. For eight
samples in float32, 4 points were a fifth faster.
"""


class Intervals(NamedTuple):
    """The sorted points of a batch, as five int32 arrays."""

    depth_places: Tensor
    """(P,) place of each point in the flat depth."""
    context_places: Tensor
    """(P,) row of each point in the context, whose channels are last."""
    cells: Tensor
    """(B ny nx,) place in the map that each interval writes."""
    starts: Tensor
    """(B ny nx,) first point of each interval."""
    lengths: Tensor
    """(B ny nx,) number of points of each interval."""


def sorted_intervals(voxel_index: Tensor, shape: tuple[int, int, int]) -> Intervals:
    """Sort the frustum points by cell.

    Args:
        voxel_index: (B, N, D, H, W, 3) int32, x, y, z.
        shape: number of cells (nx, ny, 1).
    """
    nx, ny, _ = shape
    batch, _, bins, height, width, _ = voxel_index.shape
    x, y, z = voxel_index.unbind(-1)  # (B, N, D, H, W)
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z == 0)
    sample = torch.arange(batch, dtype=torch.int32, device=x.device).view(-1, 1, 1, 1, 1)
    count = batch * ny * nx
    cell_of_point = torch.where(inside, (sample * ny + y) * nx + x, count).flatten()
    sorted_cells, order = cell_of_point.sort(stable=True)
    cells = torch.arange(count, dtype=torch.int32, device=x.device)
    starts = torch.searchsorted(sorted_cells, cells, out_int32=True)
    ends = torch.searchsorted(sorted_cells, cells, right=True, out_int32=True)
    pixels = height * width
    context_places = order // (bins * pixels) * pixels + order % pixels
    return Intervals(order.int(), context_places.int(), cells, starts, ends - starts)


def pool_intervals(
    depth: Tensor, context_rows: Tensor, intervals: Intervals, shape: tuple[int, int, int]
) -> Tensor:
    """Return the map of ``voxel_pooling``: (B, C, ny, nx), channels_last.

    Args:
        depth: (B, N, D, H, W).
        context_rows: (B, N, H, W, C), contiguous.
        intervals: result of ``sorted_intervals``.
        shape: number of cells (nx, ny, 1).
    """
    nx, ny, _ = shape
    batch, channels = depth.shape[0], context_rows.shape[-1]
    bev = torch.empty(batch, ny, nx, channels, dtype=context_rows.dtype, device=depth.device)
    _sum_interval[(len(intervals.cells),)](
        depth,
        context_rows,
        *intervals,
        bev,
        channels,
        triton.next_power_of_2(channels),
        POINTS,
        num_warps=WARPS,
    )
    return bev.permute(0, 3, 1, 2)


@triton.jit  # type: ignore[untyped-decorator]
def _sum_interval(
    depth: tl.tensor,
    context: tl.tensor,
    depth_places: tl.tensor,
    context_places: tl.tensor,
    cells: tl.tensor,
    starts: tl.tensor,
    lengths: tl.tensor,
    bev: tl.tensor,
    channels: tl.constexpr,
    lanes: tl.constexpr,
    points: tl.constexpr,
) -> None:
    interval = tl.program_id(0)
    start, length = tl.load(starts + interval), tl.load(lengths + interval)
    lane, point = tl.arange(0, lanes), tl.arange(0, points)
    sums = tl.zeros((lanes,), tl.float32)
    for begin in range(0, length, points):
        is_point = begin + point < length
        place = start + begin + point
        weight = tl.load(depth + tl.load(depth_places + place, is_point, 0), is_point, 0.0).to(
            tl.float32
        )
        row = tl.load(context_places + place, is_point, 0)
        values = tl.load(
            context + row[:, None] * channels + lane[None, :],
            is_point[:, None] & (lane[None, :] < channels),
            0.0,
        ).to(tl.float32)
        sums += tl.sum(weight[:, None] * values, 0)
    target = bev + tl.load(cells + interval) * channels + lane
    tl.store(target, sums.to(bev.dtype.element_ty), lane < channels)
