"""Launches the kernels of ``csrc/voxel_pooling``.

Outputs and workspaces are allocated here; no launch waits for the device.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bevdepth_core.ops.compiled import kernels, launch
from bevdepth_core.ops.voxel_pooling_reference import accumulator


class Geometry(NamedTuple):
    """The positions of frustum points: the arguments of ``voxel_index``."""

    ego_from_frustum: Tensor
    frustum_u: Tensor
    frustum_v: Tensor
    frustum_d: Tensor
    lower: Sequence[float]
    cell: Sequence[float]

    def contiguous(self) -> 'Geometry':
        return Geometry(
            self.ego_from_frustum.contiguous(),
            self.frustum_u.contiguous(),
            self.frustum_v.contiguous(),
            self.frustum_d.contiguous(),
            self.lower,
            self.cell,
        )

    def kernel_argument(self) -> Any:
        tensors = (self.ego_from_frustum, self.frustum_u, self.frustum_v, self.frustum_d)
        return kernels.Geometry(*(tensor.data_ptr() for tensor in tensors), self.lower, self.cell)


def launch_voxel_index(geometry: Geometry) -> Tensor:
    """Return the cell index of every frustum point."""
    geometry = geometry.contiguous()
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


def launch_forward(
    depth: Tensor, context: Tensor, geometry: Geometry, shape: Sequence[int]
) -> Tensor:
    """Return the BEV map of depth and context, see ``voxel_pooling.voxel_pooling``."""
    exact = torch.are_deterministic_algorithms_enabled()
    depth = depth.contiguous() if exact else _with_one_camera_stride(depth)
    geometry = geometry.contiguous()
    bev = empty_bev(context, shape)
    sums, bounds = _sum_workspaces(bev, exact)
    channels_first, channels_last = _context_arrays(
        context, kernels.wants_channels_last(launch(context), exact)
    )
    kernels.voxel_pooling(
        launch(context),
        _sizes(depth.shape, context.shape[2], shape),
        geometry.kernel_argument(),
        _strided(depth),
        kernels.Context(_address(channels_first), _address(channels_last)),
        kernels.Sums(exact, _address(sums), _address(bounds)),
        bev.data_ptr(),
    )
    return bev


def launch_backward(
    grad_bev: Tensor, depth: Tensor, context: Tensor, geometry: Geometry, shape: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Return the gradients of depth and context."""
    grad_map, depth = _channels_last(grad_bev), _with_one_camera_stride(depth)
    geometry = geometry.contiguous()
    channels_first, channels_last = _context_arrays(context, wants_channels_last=True)
    grad_depth, grad_context = empty_gradients(depth, context)
    kernels.voxel_pooling_backward(
        launch(context),
        _sizes(depth.shape, context.shape[2], shape),
        geometry.kernel_argument(),
        _strided(depth),
        kernels.Context(_address(channels_first), _address(channels_last)),
        grad_map.data_ptr(),
        grad_depth.data_ptr(),
        grad_context.data_ptr(),
    )
    return grad_depth, grad_context


def launch_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the BEV map of a volume, see ``voxel_pooling.voxel_pooling_volume``."""
    exact = torch.are_deterministic_algorithms_enabled()
    volume, voxel_index = volume.contiguous(), voxel_index.contiguous()
    bev = empty_bev(volume, shape)
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


def launch_volume_backward(grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the gradient of ``volume``."""
    grad_map, voxel_index = _channels_last(grad_bev), voxel_index.contiguous()
    grad_volume = empty_volume(grad_bev, voxel_index)
    kernels.voxel_pooling_volume_backward(
        launch(grad_bev),
        _sizes(voxel_index.shape[:5], grad_bev.shape[1], shape),
        voxel_index.data_ptr(),
        grad_map.data_ptr(),
        grad_volume.data_ptr(),
    )
    return grad_volume


def empty_bev(features: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an uninitialized BEV map, channels_last."""
    nx, ny, _ = shape
    return features.new_empty(features.shape[0], ny, nx, features.shape[2]).movedim(-1, 1)


def empty_gradients(depth: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
    """Return uninitialized gradients of depth and context. The channels of the gradient of context
    are last in memory.
    """
    batch, cameras, channels, height, width = context.shape
    grad_context = context.new_empty(batch, cameras, height, width, channels).movedim(-1, 2)
    return depth.new_empty(depth.shape), grad_context


def empty_volume(grad_bev: Tensor, voxel_index: Tensor) -> Tensor:
    """Return an uninitialized gradient of the volume."""
    batch, cameras, bins, height, width, _ = voxel_index.shape
    return grad_bev.new_empty(batch, cameras, grad_bev.shape[1], bins, height, width)


def _sizes(points: Sequence[int], channels: int, shape: Sequence[int]) -> Any:
    batch, cameras, bins, height, width = points
    nx, ny, _ = shape
    return kernels.Sizes(batch, cameras, bins, channels, height, width, nx, ny)


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def _strided(depth: Tensor) -> Any:
    return kernels.StridedArray(depth.data_ptr(), *depth.stride()[1:])


def _with_one_camera_stride(depth: Tensor) -> Tensor:
    """Return ``depth`` if one stride leads from each camera to the next, also from the last camera
    of a sample to the first camera of the next sample; otherwise return a contiguous copy.
    """
    return depth if depth.stride(0) == depth.shape[1] * depth.stride(1) else depth.contiguous()


def _channels_last(grad_bev: Tensor) -> Tensor:
    """Return ``grad_bev`` as contiguous (B, ny, nx, C); a channels_last tensor is not copied."""
    return grad_bev.movedim(1, -1).contiguous()


def _context_arrays(
    context: Tensor, wants_channels_last: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the context with channels first, and an array for the context with channels last.

    If the channels of ``context`` are last in memory, the first result is None, and the second
    result is the context. Otherwise the first result is the context. The second result is then a
    workspace to which the kernel copies the context, or None if the kernel reads channels first.
    """
    channels_last = context.movedim(2, -1)
    if channels_last.is_contiguous():
        return None, channels_last
    workspace = context.new_empty(channels_last.shape) if wants_channels_last else None
    return context.contiguous(), workspace


def _sum_workspaces(bev: Tensor, exact: bool) -> tuple[Tensor | None, Tensor | None]:
    """Return two workspaces.

    The first is (B, ny, nx, C) for the sums of cells; it is None if the sums are computed in the
    map itself. The second is for the bounds of exact sums; it is None for other sums.
    """
    dtype = torch.float64 if exact else accumulator(bev.dtype)
    if dtype == bev.dtype:
        return None, None
    sums = torch.empty_like(bev.movedim(1, -1), dtype=dtype)
    if not exact:
        return sums, None
    return sums, bev.new_empty(len(bev), 2, kernels.SUM_BOUNDS, dtype=torch.int32)
