"""Voxel pooling as ``torch.library`` custom ops: the reference on the CPU, the compiled kernels on CUDA.

``voxel_pooling_reference`` specifies the numbers. Sizes: B samples, N cameras, D depth bins, C channels, H x W feature map,
nx x ny cells. One semantics serves training and inference; gradients flow to depth, context and volume.

Which implementation runs is decided here alone and logged once per device type. Environment variable
``BEVDEPTH_VOXEL_POOLING=reference`` or ``force_reference()`` demand the reference.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from bevdepth_core.ops import voxel_pooling_reference as reference

try:
    from bevdepth_core.ops import _voxel_pooling as kernels
except ImportError as error:
    kernels = None
    why_no_kernels = str(error)

logger = logging.getLogger(__name__)


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
        ego_from_frustum: (B, N, 3, 4) float32, takes (u d, v d, d, 1) to metres in the ego frame.
        frustum_u: (W,) float32, pixel column of each feature column.
        frustum_v: (H,) float32, pixel row of each feature row.
        frustum_d: (D,) float32, depth of each bin, metres.
        lower: low corner of the grid x, y, z, metres.
        cell: size of a cell along x, y, z, metres.

    Returns:
        (B, N, D, H, W, 3) int32, truncated towards zero; -1 where the coordinate is no int32, such as NaN.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a matrix or frustum axis that is not float32, named.
    """
    _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    return torch.ops.bevdepth.voxel_index(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)


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
    """Return the bird's-eye-view map: each cell sums depth * context of the frustum points in it.

    Args:
        depth: (B, N, D, H, W) probability of each depth bin; float16, bfloat16, float32 or float64.
        context: (B, N, C, H, W) features of each pixel, the type of ``depth``.
        ego_from_frustum: as for ``voxel_index``, and so the next five.
        frustum_u: (W,) float32.
        frustum_v: (H,) float32.
        frustum_d: (D,) float32.
        lower: x, y, z, metres.
        cell: x, y, z, metres.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), the type of ``context``; sums are taken in at least float32.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a type that does not fit, named.
    """
    _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    _check_features(depth, context)
    _check_shape(shape)
    batch, cameras = ego_from_frustum.shape[:2]
    expected = (batch, cameras, frustum_d.shape[0], frustum_v.shape[0], frustum_u.shape[0])
    _require_shape('depth', depth, expected, 'of ego_from_frustum (B, N), frustum_d, frustum_v and frustum_u')
    _require_device('depth', depth, 'ego_from_frustum', ego_from_frustum)
    return torch.ops.bevdepth.voxel_pooling(
        depth, context, ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell, shape
    )


def voxel_pooling_indexed(depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return what ``voxel_pooling`` does, for given indices.

    Args:
        depth: (B, N, D, H, W).
        context: (B, N, C, H, W), the type of ``depth``.
        voxel_index: (B, N, D, H, W, 3) int32 in the order x, y, z; points outside the grid are dropped.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), the type of ``context``.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a type that does not fit, named.
    """
    _check_features(depth, context)
    _check_shape(shape)
    _check_index(voxel_index, 'depth', depth, tuple(depth.shape))
    return torch.ops.bevdepth.voxel_pooling_indexed(depth, context, voxel_index, shape)


def voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the bird's-eye-view map of points that carry their own features, as depth refinement makes them.

    Args:
        volume: (B, N, C, D, H, W) features of each point; float16, bfloat16, float32 or float64.
        voxel_index: (B, N, D, H, W, 3) int32 in the order x, y, z; points outside the grid are dropped.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), the type of ``volume``.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a type that does not fit, named.
    """
    _require_float('volume', volume)
    _check_shape(shape)
    if volume.dim() != 6:
        raise ValueError(f'volume must have the shape (B, N, C, D, H, W), got {tuple(volume.shape)}')
    batch, cameras, _, bins, height, width = volume.shape
    _check_index(voxel_index, 'volume', volume, (batch, cameras, bins, height, width))
    return torch.ops.bevdepth.voxel_pooling_volume(volume, voxel_index, shape)


@contextlib.contextmanager
def force_reference() -> Iterator[None]:
    """Run the torch reference on every device within this context."""
    global _reference_forced
    before, _reference_forced = _reference_forced, True
    try:
        yield
    finally:
        _reference_forced = before


_reference_forced = os.environ.get('BEVDEPTH_VOXEL_POOLING') == 'reference'


def _kernels_run(features: Tensor) -> bool:
    """Return whether ``features`` are pooled by the compiled kernels rather than by the reference."""
    if _reference_forced:
        _log_once(features.device.type, 'torch reference, as demanded')
    elif not features.is_cuda:
        _log_once(features.device.type, 'torch reference')
    elif kernels is None:
        _log_once('cuda', f'torch reference, slow, since the kernels are missing: {why_no_kernels}')
    else:
        _log_once('cuda', 'compiled kernels')
        return True
    return False


def _forward_kernels_run(features: Tensor) -> bool:
    """As ``_kernels_run``, but the forward kernels add atomically, so PyTorch's deterministic mode excludes them."""
    return not (features.is_cuda and torch.are_deterministic_algorithms_enabled()) and _kernels_run(features)


@functools.cache
def _log_once(device_type: str, choice: str) -> None:
    logger.info('voxel pooling on %s: %s', device_type, choice)


# The ops as torch sees them; the functions above have checked the arguments.


@torch.library.custom_op('bevdepth::voxel_index', mutates_args=())
def _voxel_index(
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
) -> Tensor:
    return reference.voxel_index(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)


@_voxel_index.register_fake
def _(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell):
    batch, cameras = ego_from_frustum.shape[:2]
    size = (batch, cameras, frustum_d.shape[0], frustum_v.shape[0], frustum_u.shape[0], 3)
    return ego_from_frustum.new_empty(size, dtype=torch.int32)


@torch.library.custom_op('bevdepth::voxel_pooling', mutates_args=())
def _voxel_pooling(
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
    index = reference.voxel_index(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    return reference.voxel_pooling(depth, context, index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_backward', mutates_args=())
def _voxel_pooling_backward(
    grad_bev: Tensor,
    depth: Tensor,
    context: Tensor,
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
    shape: Sequence[int],
) -> tuple[Tensor, Tensor]:
    index = reference.voxel_index(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    return reference.voxel_pooling_backward(grad_bev, depth, context, index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_indexed', mutates_args=())
def _voxel_pooling_indexed(depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    return reference.voxel_pooling(depth, context, voxel_index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_indexed_backward', mutates_args=())
def _voxel_pooling_indexed_backward(
    grad_bev: Tensor, depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    return reference.voxel_pooling_backward(grad_bev, depth, context, voxel_index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_volume', mutates_args=())
def _voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    return reference.voxel_pooling_volume(volume, voxel_index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_volume_backward', mutates_args=())
def _voxel_pooling_volume_backward(grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    return reference.voxel_pooling_volume_backward(grad_bev, voxel_index, shape)


@_voxel_pooling.register_fake
def _(depth, context, *geometry_and_shape):
    return _fake_bev(context, geometry_and_shape[-1])


@_voxel_pooling_indexed.register_fake
def _(depth, context, voxel_index, shape):
    return _fake_bev(context, shape)


@_voxel_pooling_volume.register_fake
def _(volume, voxel_index, shape):
    return _fake_bev(volume, shape)


@_voxel_pooling_backward.register_fake
def _(grad_bev, depth, context, *geometry_and_shape):
    return depth.new_empty(depth.shape), context.new_empty(context.shape)


@_voxel_pooling_indexed_backward.register_fake
def _(grad_bev, depth, context, voxel_index, shape):
    return depth.new_empty(depth.shape), context.new_empty(context.shape)


@_voxel_pooling_volume_backward.register_fake
def _(grad_bev, voxel_index, shape):
    batch, cameras, bins, height, width, _ = voxel_index.shape
    return grad_bev.new_empty(batch, cameras, grad_bev.shape[1], bins, height, width)


def _fake_bev(features: Tensor, shape: Sequence[int]) -> Tensor:
    nx, ny, _ = shape
    return features.new_empty(features.shape[0], features.shape[2], ny, nx)


def _remember_main(ctx, inputs, output) -> None:
    depth, context, ego_from_frustum, frustum_u, frustum_v, frustum_d, ctx.lower, ctx.cell, ctx.shape = inputs
    ctx.save_for_backward(depth, context, ego_from_frustum, frustum_u, frustum_v, frustum_d)


def _differentiate_main(ctx, grad_bev):
    gradients = torch.ops.bevdepth.voxel_pooling_backward(grad_bev, *ctx.saved_tensors, ctx.lower, ctx.cell, ctx.shape)
    return *gradients, *[None] * 7


def _remember_indexed(ctx, inputs, output) -> None:
    *tensors, ctx.shape = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_indexed(ctx, grad_bev):
    gradients = torch.ops.bevdepth.voxel_pooling_indexed_backward(grad_bev, *ctx.saved_tensors, ctx.shape)
    return *gradients, None, None


def _remember_volume(ctx, inputs, output) -> None:
    _, voxel_index, ctx.shape = inputs
    ctx.save_for_backward(voxel_index)


def _differentiate_volume(ctx, grad_bev):
    return torch.ops.bevdepth.voxel_pooling_volume_backward(grad_bev, *ctx.saved_tensors, ctx.shape), None, None


_voxel_pooling.register_autograd(_differentiate_main, setup_context=_remember_main)
_voxel_pooling_indexed.register_autograd(_differentiate_indexed, setup_context=_remember_indexed)
_voxel_pooling_volume.register_autograd(_differentiate_volume, setup_context=_remember_volume)


def _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell) -> None:
    if ego_from_frustum.dim() != 4 or tuple(ego_from_frustum.shape[2:]) != (3, 4):
        raise ValueError(f'ego_from_frustum must have the shape (B, N, 3, 4), got {tuple(ego_from_frustum.shape)}')
    axes = {'frustum_u': frustum_u, 'frustum_v': frustum_v, 'frustum_d': frustum_d}
    for name, tensor in {'ego_from_frustum': ego_from_frustum, **axes}.items():
        if tensor.dtype != torch.float32:
            raise TypeError(f'{name} must be float32 whatever the type of the features, got {tensor.dtype}')
        _require_device(name, tensor, 'ego_from_frustum', ego_from_frustum)
    for name, tensor in axes.items():
        if tensor.dim() != 1:
            raise ValueError(f'{name} must have one dimension, got the shape {tuple(tensor.shape)}')
    if len(lower) != 3 or len(cell) != 3 or not min(cell) > 0:
        raise ValueError(f'lower and cell must be three numbers x, y, z, and cell positive, got {tuple(lower)} and {tuple(cell)}')


def _check_features(depth: Tensor, context: Tensor) -> None:
    _require_float('context', context)
    if depth.dtype != context.dtype:
        raise TypeError(f'depth and context must have the same type, got {depth.dtype} and {context.dtype}')
    if depth.dim() != 5:
        raise ValueError(f'depth must have the shape (B, N, D, H, W), got {tuple(depth.shape)}')
    batch, cameras, _, height, width = depth.shape
    channels = context.shape[2] if context.dim() == 5 else 'C'
    _require_shape('context', context, (batch, cameras, channels, height, width), 'of depth')
    _require_device('context', context, 'depth', depth)


def _check_index(voxel_index: Tensor, name: str, features: Tensor, points: tuple[int, ...]) -> None:
    if voxel_index.dtype != torch.int32:
        raise TypeError(f'voxel_index must be int32, got {voxel_index.dtype}')
    _require_shape('voxel_index', voxel_index, (*points, 3), f'of {name}')
    _require_device('voxel_index', voxel_index, name, features)


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or min(shape) < 1 or shape[2] != 1:
        raise ValueError(f'shape must be (nx, ny, 1) with positive nx and ny, got {tuple(shape)}')


def _require_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(f'{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}')


def _require_shape(name: str, tensor: Tensor, expected: tuple, origin: str) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(f'{name} must have the shape {expected} {origin}, got {tuple(tensor.shape)}')


def _require_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(f'{name} must be on the device of {other_name}, {other.device}, got {tensor.device}')
