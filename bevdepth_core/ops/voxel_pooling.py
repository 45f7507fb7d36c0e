"""Voxel pooling as ``torch.library`` custom ops: the reference on the CPU, the compiled kernels on
CUDA.

``voxel_pooling_reference`` specifies the numbers. Sizes: B samples, N cameras, D depth bins, C
channels, H x W feature map, nx x ny cells. One semantics serves training and inference; gradients
flow to depth, context and volume.

Which implementation runs is decided here alone and logged once. The environment variable
``BEVDEPTH_VOXEL_POOLING=reference`` or ``force_reference()`` demand the reference.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from bevdepth_core.ops import voxel_pooling_reference as reference
from bevdepth_core.ops.compiled import kernels, launch, why_missing

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
        (B, N, D, H, W, 3) int32, truncated towards zero; -1 where the coordinate is no int32, such
        as NaN.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a matrix or frustum axis that is not float32, named.
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
    """Return the bird's-eye-view map: each cell sums depth * context of the frustum points in it.

    Args:
        depth: (B, N, D, H, W) probability of each depth bin; float16, bfloat16, float32 or
            float64.
        context: (B, N, C, H, W) features of each pixel, the type of ``depth``.
        ego_from_frustum: as for ``voxel_index``, and so the next five.
        frustum_u: (W,) float32.
        frustum_v: (H,) float32.
        frustum_d: (D,) float32.
        lower: x, y, z, metres.
        cell: x, y, z, metres.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), channels_last, the type of ``context``; sums are taken in at least float32.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a type that does not fit, named.
    """
    _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    _check_features(depth, context)
    _check_shape(shape)
    batch, cameras = ego_from_frustum.shape[:2]
    expected = (batch, cameras, frustum_d.shape[0], frustum_v.shape[0], frustum_u.shape[0])
    _require_shape(
        'depth', depth, expected, 'of ego_from_frustum (B, N), frustum_d, frustum_v and frustum_u'
    )
    _require_device('depth', depth, 'ego_from_frustum', ego_from_frustum)
    return torch.ops.bevdepth.voxel_pooling(
        depth, context, ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell, shape
    )


def voxel_pooling_indexed(
    depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return what ``voxel_pooling`` does, for given indices.

    Args:
        depth: (B, N, D, H, W).
        context: (B, N, C, H, W), the type of ``depth``.
        voxel_index: (B, N, D, H, W, 3) int32 in the order x, y, z; points outside the grid are
            dropped.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), channels_last, the type of ``context``.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a type that does not fit, named.
    """
    _check_features(depth, context)
    _check_shape(shape)
    _check_index(voxel_index, 'depth', depth, tuple(depth.shape))
    return torch.ops.bevdepth.voxel_pooling_indexed(depth, context, voxel_index, shape)


def voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the bird's-eye-view map of points that carry their own features, as depth refinement
    makes them.

    Args:
        volume: (B, N, C, D, H, W) features of each point; float16, bfloat16, float32 or float64.
        voxel_index: (B, N, D, H, W, 3) int32 in the order x, y, z; points outside the grid are
            dropped.
        shape: number of cells (nx, ny, 1).

    Returns:
        (B, C, ny, nx), channels_last, the type of ``volume``.

    Raises:
        ValueError: a shape or device that does not fit, named.
        TypeError: a type that does not fit, named.
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


@contextlib.contextmanager
def force_reference() -> Iterator[None]:
    """Run the torch reference on every device within this context."""
    global _reference_forced
    before, _reference_forced = _reference_forced, True
    try:
        yield
    finally:
        _reference_forced = before


def kernels_in_use() -> bool:
    """Return whether the compiled kernels run on CUDA: they are there and nobody demands the
    reference.
    """
    return kernels is not None and not _reference_forced


def _reference_demanded() -> bool:
    """Return what the environment says."""
    wish = os.environ.get('BEVDEPTH_VOXEL_POOLING', '')
    if wish not in ('', 'reference'):
        raise ValueError(f"BEVDEPTH_VOXEL_POOLING must be 'reference' or not set, got {wish!r}")
    return wish == 'reference'


_reference_forced = _reference_demanded()


def _kernels_run(features: Tensor) -> bool:
    """Return whether ``features`` are pooled by the compiled kernels rather than by the
    reference.
    """
    if _reference_forced:
        _log_once(logging.INFO, features.device.type, 'torch reference, as demanded')
    elif not features.is_cuda:
        _log_once(logging.INFO, features.device.type, 'torch reference')
    elif kernels is None:
        _log_once(
            logging.WARNING,
            'cuda',
            f'slow torch reference, since the kernels are not built: {why_missing}',
        )
    else:
        _log_once(logging.INFO, 'cuda', 'compiled kernels')
        return True
    return False


def _forward_kernels_run(features: Tensor) -> bool:
    """As ``_kernels_run``, but PyTorch's deterministic mode excludes float64: its kernel's atomic
    sums vary in order.
    """
    if not _kernels_run(features):
        return False
    if features.dtype == torch.float64 and torch.are_deterministic_algorithms_enabled():
        _log_once(
            logging.INFO,
            'cuda',
            'torch reference forward in float64, since deterministic algorithms are demanded',
        )
        return False
    return True


@functools.cache
def _log_once(level: int, device_type: str, choice: str) -> None:
    logger.log(level, 'voxel pooling on %s: %s', device_type, choice)


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
    if _kernels_run(ego_from_frustum):
        return _launch_voxel_index(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
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
    geometry = (ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    if _forward_kernels_run(context):
        return _launch_forward(depth, context, _Geometry(*geometry), shape)
    return reference.voxel_pooling(depth, context, reference.voxel_index(*geometry), shape)


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
    geometry = (ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    if _kernels_run(context):
        return _launch_backward(grad_bev, depth, context, _Geometry(*geometry), shape)
    return reference.voxel_pooling_backward(
        grad_bev, depth, context, reference.voxel_index(*geometry), shape
    )


@torch.library.custom_op('bevdepth::voxel_pooling_indexed', mutates_args=())
def _voxel_pooling_indexed(
    depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> Tensor:
    if _forward_kernels_run(context):
        return _launch_forward(depth, context, voxel_index, shape)
    return reference.voxel_pooling(depth, context, voxel_index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_indexed_backward', mutates_args=())
def _voxel_pooling_indexed_backward(
    grad_bev: Tensor, depth: Tensor, context: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    if _kernels_run(context):
        return _launch_backward(grad_bev, depth, context, voxel_index, shape)
    return reference.voxel_pooling_backward(grad_bev, depth, context, voxel_index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_volume', mutates_args=())
def _voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    if _forward_kernels_run(volume):
        return _launch_volume(volume, voxel_index, shape)
    return reference.voxel_pooling_volume(volume, voxel_index, shape)


@torch.library.custom_op('bevdepth::voxel_pooling_volume_backward', mutates_args=())
def _voxel_pooling_volume_backward(
    grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> Tensor:
    if _kernels_run(grad_bev):
        return _launch_volume_backward(grad_bev, voxel_index, shape)
    return reference.voxel_pooling_volume_backward(grad_bev, voxel_index, shape)


@_voxel_pooling.register_fake
def _(depth, context, *geometry_and_shape):
    return _empty_bev(context, geometry_and_shape[-1])


@_voxel_pooling_indexed.register_fake
def _(depth, context, voxel_index, shape):
    return _empty_bev(context, shape)


@_voxel_pooling_volume.register_fake
def _(volume, voxel_index, shape):
    return _empty_bev(volume, shape)


@_voxel_pooling_backward.register_fake
def _(grad_bev, depth, context, *geometry_and_shape):
    return _empty_gradients(depth, context)


@_voxel_pooling_indexed_backward.register_fake
def _(grad_bev, depth, context, voxel_index, shape):
    return _empty_gradients(depth, context)


@_voxel_pooling_volume_backward.register_fake
def _(grad_bev, voxel_index, shape):
    return _empty_volume(grad_bev, voxel_index)


def _empty_bev(features: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an uninitialised map, channels_last."""
    nx, ny, _ = shape
    return features.new_empty(features.shape[0], ny, nx, features.shape[2]).movedim(-1, 1)


def _empty_gradients(depth: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Return uninitialised gradients, that of the context with channels last."""
    batch, cameras, channels, height, width = context.shape
    return depth.new_empty(depth.shape), context.new_empty(
        batch, cameras, height, width, channels
    ).movedim(-1, 2)


def _empty_volume(grad_bev: Tensor, voxel_index: Tensor) -> Tensor:
    batch, cameras, bins, height, width, _ = voxel_index.shape
    return grad_bev.new_empty(batch, cameras, grad_bev.shape[1], bins, height, width)


def _remember_main(ctx, inputs, output) -> None:
    (
        depth,
        context,
        ego_from_frustum,
        frustum_u,
        frustum_v,
        frustum_d,
        ctx.lower,
        ctx.cell,
        ctx.shape,
    ) = inputs
    ctx.save_for_backward(depth, context, ego_from_frustum, frustum_u, frustum_v, frustum_d)


def _differentiate_main(ctx, grad_bev):
    gradients = torch.ops.bevdepth.voxel_pooling_backward(
        grad_bev, *ctx.saved_tensors, ctx.lower, ctx.cell, ctx.shape
    )
    return *gradients, *[None] * 7


def _remember_indexed(ctx, inputs, output) -> None:
    *tensors, ctx.shape = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_indexed(ctx, grad_bev):
    gradients = torch.ops.bevdepth.voxel_pooling_indexed_backward(
        grad_bev, *ctx.saved_tensors, ctx.shape
    )
    return *gradients, None, None


def _remember_volume(ctx, inputs, output) -> None:
    _, voxel_index, ctx.shape = inputs
    ctx.save_for_backward(voxel_index)


def _differentiate_volume(ctx, grad_bev):
    return (
        torch.ops.bevdepth.voxel_pooling_volume_backward(grad_bev, *ctx.saved_tensors, ctx.shape),
        None,
        None,
    )


_voxel_pooling.register_autograd(_differentiate_main, setup_context=_remember_main)
_voxel_pooling_indexed.register_autograd(_differentiate_indexed, setup_context=_remember_indexed)
_voxel_pooling_volume.register_autograd(_differentiate_volume, setup_context=_remember_volume)


class _Geometry(NamedTuple):
    """Where frustum points lie: the arguments of ``voxel_index``."""

    ego_from_frustum: Tensor
    frustum_u: Tensor
    frustum_v: Tensor
    frustum_d: Tensor
    lower: Sequence[float]
    cell: Sequence[float]

    def contiguous(self) -> '_Geometry':
        return _Geometry(*(tensor.contiguous() for tensor in self[:4]), self.lower, self.cell)

    def kernel_argument(self):
        return kernels.Geometry(*(tensor.data_ptr() for tensor in self[:4]), self.lower, self.cell)


# How the kernels of csrc/voxel_pooling.h are launched. Outputs and workspaces are allocated here;
# nothing waits.


def _launch_voxel_index(*geometry) -> Tensor:
    geometry = _Geometry(*geometry).contiguous()
    batch, cameras = geometry.ego_from_frustum.shape[:2]
    points = (
        batch,
        cameras,
        geometry.frustum_d.shape[0],
        geometry.frustum_v.shape[0],
        geometry.frustum_u.shape[0],
    )
    index = geometry.ego_from_frustum.new_empty(*points, 3, dtype=torch.int32)
    sizes = _sizes(points, 1, (1, 1, 1))
    kernels.voxel_index(
        launch(geometry.ego_from_frustum), sizes, geometry.kernel_argument(), index.data_ptr()
    )
    return index


def _launch_forward(
    depth: Tensor, context: Tensor, points: Tensor | _Geometry, shape: Sequence[int]
) -> Tensor:
    exact = torch.are_deterministic_algorithms_enabled()
    depth, points = depth.contiguous() if exact else _with_even_views(depth), points.contiguous()
    planes, rows = _context_arrays(context, kernels.wants_rows(launch(context), exact))
    bev = _empty_bev(context, shape)
    sums, bounds = _sum_workspaces(bev, exact)
    kernels.voxel_pooling(
        launch(context),
        _sizes(depth.shape, context.shape[2], shape),
        _point_argument(points),
        _depth_argument(depth),
        kernels.Context(_address(planes), _address(rows)),
        kernels.Sums(exact, _address(sums), _address(bounds)),
        bev.data_ptr(),
    )
    return bev


def _launch_backward(
    grad_bev: Tensor,
    depth: Tensor,
    context: Tensor,
    points: Tensor | _Geometry,
    shape: Sequence[int],
) -> tuple[Tensor, Tensor]:
    grad_map, depth, points = _as_rows(grad_bev, 1), _with_even_views(depth), points.contiguous()
    planes, rows = _context_arrays(context, wants_rows=True)
    grad_depth, grad_context = _empty_gradients(depth, context)
    kernels.voxel_pooling_backward(
        launch(context),
        _sizes(depth.shape, context.shape[2], shape),
        _point_argument(points),
        _depth_argument(depth),
        kernels.Context(_address(planes), _address(rows)),
        grad_map.data_ptr(),
        grad_depth.data_ptr(),
        grad_context.data_ptr(),
    )
    return grad_depth, grad_context


def _launch_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    exact = torch.are_deterministic_algorithms_enabled()
    volume, voxel_index = volume.contiguous(), voxel_index.contiguous()
    bev = _empty_bev(volume, shape)
    sums, bounds = _sum_workspaces(bev, exact)
    kernels.voxel_pooling_volume(
        launch(volume),
        _sizes(voxel_index.shape[:5], volume.shape[2], shape),
        voxel_index.data_ptr(),
        volume.data_ptr(),
        kernels.Sums(exact, _address(sums), _address(bounds)),
        bev.data_ptr(),
    )
    return bev


def _launch_volume_backward(grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    grad_map, voxel_index = _as_rows(grad_bev, 1), voxel_index.contiguous()
    grad_volume = _empty_volume(grad_bev, voxel_index)
    sizes = _sizes(voxel_index.shape[:5], grad_bev.shape[1], shape)
    kernels.voxel_pooling_volume_backward(
        launch(grad_bev),
        sizes,
        voxel_index.data_ptr(),
        grad_map.data_ptr(),
        grad_volume.data_ptr(),
    )
    return grad_volume


def _sizes(points: Sequence[int], channels: int, shape: Sequence[int]):
    batch, cameras, bins, height, width = points
    nx, ny, _ = shape
    return kernels.Sizes(batch, cameras, bins, channels, height, width, nx, ny)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _point_argument(points: Tensor | _Geometry):
    return kernels.Points(
        points.kernel_argument() if isinstance(points, _Geometry) else points.data_ptr()
    )


def _depth_argument(depth: Tensor):
    return kernels.Depth(depth.data_ptr(), *depth.stride()[1:])


def _with_even_views(depth: Tensor) -> Tensor:
    """Return ``depth`` with all cameras of all samples the same stride apart; any other strides
    are left as they are.
    """
    return depth if depth.stride(0) == depth.shape[1] * depth.stride(1) else depth.contiguous()


def _as_rows(tensor: Tensor, channel: int) -> Tensor:
    """Return the contiguous tensor whose last dimension is the dimension ``channel``: no copy of
    what is channels_last.
    """
    return tensor.movedim(channel, -1).contiguous()


def _context_arrays(context: Tensor, wants_rows: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return the context as planes, unless it lies in rows already, and its rows or the workspace
    for those that are wanted.
    """
    rows = context.movedim(2, -1)
    if rows.is_contiguous():
        return None, rows
    return context.contiguous(), context.new_empty(rows.shape) if wants_rows else None


def _sum_workspaces(bev: Tensor, exact: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return where cells are summed, (B, ny, nx, C), unless in the map itself, and the bounds that
    exact sums need.
    """
    dtype = torch.float64 if exact else reference.accumulator(bev.dtype)
    if dtype == bev.dtype:
        return None, None
    sums = torch.empty_like(bev.movedim(1, -1), dtype=dtype)
    return sums, bev.new_empty(
        len(bev), 2, kernels.SUM_BOUNDS, dtype=torch.int32
    ) if exact else None


def _check_geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell) -> None:
    if ego_from_frustum.dim() != 4 or tuple(ego_from_frustum.shape[2:]) != (3, 4):
        raise ValueError(
            'ego_from_frustum must have the shape (B, N, 3, 4), got '
            f'{tuple(ego_from_frustum.shape)}'
        )
    axes = {'frustum_u': frustum_u, 'frustum_v': frustum_v, 'frustum_d': frustum_d}
    for name, tensor in {'ego_from_frustum': ego_from_frustum, **axes}.items():
        if tensor.dtype != torch.float32:
            raise TypeError(
                f'{name} must be float32 whatever the type of the features, got {tensor.dtype}'
            )
        _require_device(name, tensor, 'ego_from_frustum', ego_from_frustum)
    for name, tensor in axes.items():
        if tensor.dim() != 1:
            raise ValueError(
                f'{name} must have one dimension, got the shape {tuple(tensor.shape)}'
            )
    if len(lower) != 3 or len(cell) != 3 or not min(cell) > 0:
        raise ValueError(
            f'lower and cell must be three numbers x, y, z, and cell positive, got {tuple(lower)} '
            f'and {tuple(cell)}'
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
    channels = context.shape[2] if context.dim() == 5 else 'C'
    _require_shape('context', context, (batch, cameras, channels, height, width), 'of depth')
    _require_device('context', context, 'depth', depth)


def _check_index(
    voxel_index: Tensor, name: str, features: Tensor, points: tuple[int, ...]
) -> None:
    if voxel_index.dtype != torch.int32:
        raise TypeError(f'voxel_index must be int32, got {voxel_index.dtype}')
    _require_shape('voxel_index', voxel_index, (*points, 3), f'of {name}')
    _require_device('voxel_index', voxel_index, name, features)


def _check_shape(shape: Sequence[int]) -> None:
    if len(shape) != 3 or min(shape) < 1 or shape[2] != 1:
        raise ValueError(f'shape must be (nx, ny, 1) with positive nx and ny, got {tuple(shape)}')


def _require_float(name: str, tensor: Tensor) -> None:
    if tensor.dtype not in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        raise TypeError(
            f'{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}'
        )


def _require_shape(name: str, tensor: Tensor, expected: tuple, origin: str) -> None:
    if tuple(tensor.shape) != expected:
        raise ValueError(
            f'{name} must have the shape {expected} {origin}, got {tuple(tensor.shape)}'
        )


def _require_device(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    if tensor.device != other.device:
        raise ValueError(
            f'{name} must be on the device of {other_name}, {other.device}, got {tensor.device}'
        )
