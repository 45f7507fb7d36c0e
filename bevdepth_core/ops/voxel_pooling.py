"""Voxel pooling: functions that check their arguments and call the ops of
``voxel_pooling_library``.

``voxel_pooling_reference`` defines the results of the ops, and ``backend`` selects the reference
or the compiled kernels. Training and inference use the same functions. Depth, context and volume
get gradients.

Sizes: B samples, N cameras, D depth bins, C channels, H x W feature map, nx x ny cells.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

import bevdepth_core.ops.voxel_pooling_library  # noqa: F401 (registers torch.ops.bevdepth)


def voxel_index(
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
) -> Tensor:
    """Return the cell index (x, y, z) of every frustum point, not limited to the grid.

    Args:
        ego_from_frustum: (B, N, 3, 4) float32, converts (u d, v d, d, 1) to meters in the ego
            frame.
        frustum_u: (W,) float32, pixel column of each feature column.
        frustum_v: (H,) float32, pixel row of each feature row.
        frustum_d: (D,) float32, depth of each bin, meters.
        lower: lower bounds of the grid along x, y, z, meters.
        cell: size of a cell along x, y, z, meters.

    Returns:
        (B, N, D, H, W, 3) int32, truncated towards zero; -1 where the coordinate does not fit into
        int32, such as NaN.

    Raises:
        ValueError: a shape or device is wrong, or a size of ``cell`` is not positive; the message
            names the argument.
        TypeError: a matrix or frustum axis is not float32; the message names the argument.
    """
    _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    return torch.ops.bevdepth.voxel_index(
        ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell
    )


def voxel_pooling(
    depth: Tensor,
    context: Tensor,
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
    shape: Sequence[int],
) -> Tensor:
    """Return the bird's-eye-view map: each cell is the sum of depth * context over the
    frustum points in the cell.

    Args:
        depth: (B, N, D, H, W) probability of each depth bin; float16, bfloat16, float32 or
            float64.
        context: (B, N, C, H, W) features of each pixel, in the data type of ``depth``.
        ego_from_frustum: see ``voxel_index``.
        frustum_u: see ``voxel_index``.
        frustum_v: see ``voxel_index``.
        frustum_d: see ``voxel_index``.
        lower: see ``voxel_index``.
        cell: see ``voxel_index``.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), channels_last, in the data type of ``context``. Sums are computed at least
        in float32.

    Raises:
        ValueError: a shape, size or device is wrong; the message names the argument.
        TypeError: a type is wrong; the message names the argument.
    """
    _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    _check_features(depth, context)
    _check_shape(shape)
    batch, cameras = ego_from_frustum.shape[:2]
    expected = (batch, cameras, frustum_d.shape[0], frustum_v.shape[0], frustum_u.shape[0])
    _require_shape(
        'depth',
        depth,
        expected,
        'to fit ego_from_frustum (B, N), frustum_d, frustum_v and frustum_u',
    )
    _require_device('depth', depth, 'ego_from_frustum', ego_from_frustum)
    return torch.ops.bevdepth.voxel_pooling(
        depth, context, ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell, shape
    )


def voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the bird's-eye-view map: each cell is the sum of the features of the points in
    the cell. Unlike in ``voxel_pooling``, the features are given for every point, as depth
    refinement returns them.

    Args:
        volume: (B, N, C, D, H, W) features of each point; float16, bfloat16, float32 or float64.
        voxel_index: (B, N, D, H, W, 3) int32 in the order x, y, z; points outside the grid are
            dropped.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), channels_last, in the data type of ``volume``.

    Raises:
        ValueError: a shape or device is wrong; the message names the argument.
        TypeError: a type is wrong; the message names the argument.
    """
    _require_float('volume', volume)
    _check_shape(shape)
    if volume.dim() != 6:
        raise ValueError(
            f'volume must have the shape (B, N, C, D, H, W), got {tuple(volume.shape)}'
        )
    batch, cameras, _, bins, height, width = volume.shape
    _check_index(voxel_index, 'volume', volume, (batch, cameras, bins, height, width))
    return torch.ops.bevdepth.voxel_pooling_volume(volume, voxel_index, shape)


def _check_geometry(
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
) -> None:
    if ego_from_frustum.dim() != 4 or tuple(ego_from_frustum.shape[2:]) != (3, 4):
        raise ValueError(
            'ego_from_frustum must have the shape (B, N, 3, 4), got '
            f'{tuple(ego_from_frustum.shape)}'
        )
    axes = {'frustum_u': frustum_u, 'frustum_v': frustum_v, 'frustum_d': frustum_d}
    for name, tensor in {'ego_from_frustum': ego_from_frustum, **axes}.items():
        if tensor.dtype != torch.float32:
            raise TypeError(
                f'{name} must be float32, whatever the type of the features is; got {tensor.dtype}'
            )
        _require_device(name, tensor, 'ego_from_frustum', ego_from_frustum)
    for name, tensor in axes.items():
        if tensor.dim() != 1:
            raise ValueError(
                f'{name} must have one dimension, got the shape {tuple(tensor.shape)}'
            )
    if len(lower) != 3 or len(cell) != 3 or not min(cell) > 0:
        raise ValueError(
            'lower and cell must each have three numbers (x, y, z), and the numbers in cell must '
            f'be positive; got lower {tuple(lower)}, cell {tuple(cell)}'
        )


def _check_features(depth: Tensor, context: Tensor) -> None:
    _require_float('context', context)
    if depth.dtype != context.dtype:
        raise TypeError(
            f'depth and context must have the same type, got {depth.dtype} and {context.dtype}'
        )
    if depth.dim() != 5:
        raise ValueError(f'depth must have the shape (B, N, D, H, W), got {tuple(depth.shape)}')
    batch, cameras, _, height, width = depth.shape
    channels: int | str = context.shape[2] if context.dim() == 5 else 'C'
    _require_shape('context', context, (batch, cameras, channels, height, width), 'to fit depth')
    _require_device('context', context, 'depth', depth)


def _check_index(
    voxel_index: Tensor, name: str, features: Tensor, points: tuple[int, ...]
) -> None:
    if voxel_index.dtype != torch.int32:
        raise TypeError(f'voxel_index must be int32, got {voxel_index.dtype}')
    _require_shape('voxel_index', voxel_index, (*points, 3), f'to fit {name}')
    _require_device('voxel_index', voxel_index, name, features)


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or min(shape) < 1 or shape[2] != 1:
        raise ValueError(f'shape must be (nx, ny, 1) with positive nx and ny, got {tuple(shape)}')


def _require_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(
            f'{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}'
        )


def _require_shape(
    name: str, tensor: Tensor, expected: tuple[int | str, ...], reason: str
) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f'{name} must have the shape {expected} {reason}, got {tuple(tensor.shape)}'
        )


def _require_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(
            f'{name} must be on the device of {other_name}, {other.device}, got {tensor.device}'
        )
