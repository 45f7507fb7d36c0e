"""Voxel pooling in plain torch: the specification of the op, its CPU implementation, and the
reference that every kernel is compared with.

Every frustum point is a pixel of the feature map at one depth bin. The feature of a point is the
context vector of the pixel times the probability of the depth bin ("lift"). Each cell of the
bird's-eye-view grid is the sum of the features of the points in this cell ("splat").

Sizes: B samples, N cameras, D depth bins, C channels, H x W feature map, nx x ny cells. The
cameras of a sample together have P = N * H * W pixels.

The sums process one depth bin of one sample at a time. Therefore only N * H * W * C numbers of the
lifted volume are stored at a time, instead of all B * N * D * H * W * C numbers. Every sum has a
fixed order, so the result is bitwise the same for every number of threads, and a sample has the
same result in every batch.
"""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

OUTSIDE = -1
"""Index of a coordinate that does not fit into int32, such as NaN. Like every negative index, it
lies outside of the grid."""


def voxel_index(
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
) -> Tensor:
    """Return the cell index (x, y, z) of every frustum point.

    All arithmetic is float32. Each operation is rounded separately (no fused multiply-add), in
    this order, so that a kernel can compute the same indices: ``u * d`` and ``v * d``, then
    ``point = ((m0 * ud + m1 * vd) + m2 * d) + m3``, then ``(point - lower) / cell``. Here m0 to m3
    are the row of ``ego_from_frustum`` for x, y or z.

    The index is truncated towards zero. A point up to one cell below the lower bound therefore
    falls into cell 0. The official code does the same, and the official weights were trained with
    this rule.

    Args:
        ego_from_frustum: (B, N, 3, 4) float32, converts (u d, v d, d, 1) to meters in the ego
            frame.
        frustum_u: (W,) float32, pixel column of each feature column.
        frustum_v: (H,) float32, pixel row of each feature row.
        frustum_d: (D,) float32, depth of each bin, meters.
        lower: lower bounds of the grid along x, y, z, meters.
        cell: size of a cell along x, y, z, meters.

    Returns:
        (B, N, D, H, W, 3) int32, not limited to the grid; ``OUTSIDE`` where the coordinate does
        not fit into int32.
    """
    d = frustum_d[:, None, None]
    ud = frustum_u * d  # (D, 1, W)
    vd = frustum_v[:, None] * d  # (D, H, 1)
    axes = []
    for axis in range(3):
        row = ego_from_frustum[:, :, axis, :, None, None, None]
        m0, m1, m2, m3 = row.unbind(2)  # each (B, N, 1, 1, 1)
        point = ((m0 * ud + m1 * vd) + m2 * d) + m3  # (B, N, D, H, W)
        # The bounds and sizes are 0-dim tensors on the device. If the divisor is a Python number,
        # torch multiplies by its reciprocal instead, which gives a different rounding.
        quotient = (point - point.new_full((), lower[axis])) / point.new_full((), cell[axis])
        axes.append(torch.where(quotient.abs() < 2.0**31, quotient, OUTSIDE).to(torch.int32))
    return torch.stack(axes, dim=-1)


def voxel_pooling(
    depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return the bird's-eye-view map ``bev[b, c, y, x]``, the sum of ``depth * context`` over the
    points in each cell.

    Sums are computed in float32, or in float64 for float64 inputs. Only the final sum is rounded
    to the data type of ``context``.

    Args:
        depth: (B, N, D, H, W) weight of each point.
        context: (B, N, C, H, W) features of each pixel.
        voxel_index: (B, N, D, H, W, 3) int32 in the order x, y, z; points outside the grid are
            dropped.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), channels_last, in the data type of ``context``.
    """
    cells = _by_bin(_flat_cells(voxel_index, shape))  # (B, D, P), P = N * H * W pixels
    features = _by_pixel(context)  # (B, P, C)
    weights = _by_bin(depth).to(features.dtype)
    bev = _zero_cells(context, channels=context.shape[2], shape=shape)
    for sample, bin_ in _samples_and_bins(cells):
        lifted = weights[sample, bin_, :, None] * features[sample]  # (P, C)
        bev[sample].index_add_(0, cells[sample, bin_], lifted)
    return _map_from_cells(bev.to(context.dtype), shape)


def voxel_pooling_backward(
    grad_bev: Tensor, depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``depth`` and ``context``. ``grad_bev`` is the gradient
    (B, C, ny, nx) of the map, and ``voxel_pooling`` describes the other arguments.
    """
    cells = _by_bin(_flat_cells(voxel_index, shape))
    features = _by_pixel(context)
    weights = _by_bin(depth).to(features.dtype)
    grad_cells = _cells_from_map(grad_bev)
    grad_weights = torch.empty_like(weights)
    grad_features = torch.zeros_like(features)
    for sample, bin_ in _samples_and_bins(cells):
        grad_lifted = grad_cells[sample].index_select(0, cells[sample, bin_])  # (P, C)
        grad_weights[sample, bin_] = torch.linalg.vecdot(grad_lifted, features[sample])
        grad_features[sample].addcmul_(grad_lifted, weights[sample, bin_, :, None])
    cameras, _, height, width = context.shape[1:]
    grad_depth = grad_weights.unflatten(2, (cameras, height, width)).transpose(1, 2)
    grad_context = grad_features.to(context.dtype).unflatten(1, (cameras, height, width))
    grad_context = grad_context.movedim(-1, 2)  # the channels stay last in memory
    return grad_depth.to(depth.dtype).contiguous(), grad_context


def voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the bird's-eye-view map of a ``volume`` (B, N, C, D, H, W), which contains the
    features of each point. ``voxel_pooling`` describes the other arguments and the result.
    """
    cells = _by_bin(_flat_cells(voxel_index, shape))
    bev = _zero_cells(volume, channels=volume.shape[2], shape=shape)
    for sample, bin_ in _samples_and_bins(cells):
        lifted = volume[sample, :, :, bin_].movedim(1, -1).flatten(end_dim=2)  # (P, C)
        bev[sample].index_add_(0, cells[sample, bin_], lifted.to(bev.dtype))
    return _map_from_cells(bev.to(volume.dtype), shape)


def voxel_pooling_volume_backward(
    grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return the gradient (B, N, C, D, H, W) of the volume. The gradient of a point in the grid is
    the gradient of its cell; the gradient of all other points is zero.
    """
    cells = _flat_cells(voxel_index, shape)  # (B, N, D, H, W)
    # (B, C, ny * nx + 1); the last cell, for points outside, is zero
    grad_map = pad(grad_bev.flatten(2), (0, 1))
    batch, cameras, *point_shape = cells.shape
    grad_volume = grad_bev.new_empty(batch, cameras, grad_bev.shape[1], *point_shape)
    for sample, camera in itertools.product(range(batch), range(cameras)):
        grad_points = grad_map[sample].index_select(1, cells[sample, camera].flatten())
        grad_volume[sample, camera] = grad_points.unflatten(1, point_shape)
    return grad_volume


def _samples_and_bins(cells: Tensor) -> list[tuple[int, int]]:
    """Return all pairs of a sample and a depth bin of (B, D, P) cells."""
    return list(itertools.product(range(cells.shape[0]), range(cells.shape[1])))


def _flat_cells(voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the cell ``y * nx + x`` of each point, (B, N, D, H, W) int64. A point outside of the
    grid has the number ``ny * nx``, which follows the last cell.
    """
    nx, ny, nz = shape
    x, y, z = voxel_index.unbind(-1)
    inside = (x >= 0) & (x < nx) & (y >= 0) & (y < ny) & (z >= 0) & (z < nz)
    return torch.where(inside, y * nx + x, ny * nx).long()


def _by_bin(points: Tensor) -> Tensor:
    """Return (B, N, D, H, W) as (B, D, P), contiguous."""
    return points.transpose(1, 2).flatten(2).contiguous()


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the type in which values of ``dtype`` are summed."""
    return torch.promote_types(dtype, torch.float32)


def _by_pixel(context: Tensor) -> Tensor:
    """Return (B, N, C, H, W) as contiguous (B, P, C), at least in float32."""
    return context.movedim(2, -1).flatten(1, 3).to(accumulator(context.dtype)).contiguous()


def _zero_cells(features: Tensor, channels: int, shape: Sequence[int]) -> Tensor:
    """Return zeros (B, ny * nx + 1, C); the last row collects the points outside the grid and is
    dropped later.
    """
    nx, ny, _ = shape
    return features.new_zeros(
        features.shape[0], ny * nx + 1, channels, dtype=accumulator(features.dtype)
    )


def _map_from_cells(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the map (B, C, ny, nx), channels_last."""
    nx, ny, _ = shape
    return cells[:, :-1].contiguous().unflatten(1, (ny, nx)).movedim(-1, 1)


def _cells_from_map(grad_bev: Tensor) -> Tensor:
    """Return the gradients of the cells as rows (B, ny * nx + 1, C). The last row, for points
    outside of the grid, is zero.
    """
    rows = (
        grad_bev.flatten(2)
        .transpose(1, 2)
        .to(accumulator(grad_bev.dtype), memory_format=torch.contiguous_format)
    )
    return pad(rows, (0, 0, 0, 1))
