"""The ``torch.library`` ops of voxel pooling, with their gradients.

The ops do not check their arguments. The functions of ``voxel_pooling`` check them and call the
ops.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bevdepth_core.ops import voxel_pooling_reference as reference
from bevdepth_core.ops.backend import use_forward_kernels, use_kernels
from bevdepth_core.ops.registration import register_op
from bevdepth_core.ops.voxel_pooling_kernels import (
    Geometry,
    empty_bev,
    empty_gradients,
    empty_volume,
    launch_backward,
    launch_forward,
    launch_volume,
    launch_volume_backward,
    launch_voxel_index,
)


def _save_pooling(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.lower, ctx.cell, ctx.shape = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_pooling(ctx: Any, grad_bev: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.bevdepth.voxel_pooling_backward(
        grad_bev, *ctx.saved_tensors, ctx.lower, ctx.cell, ctx.shape
    )
    return *gradients, *[None] * 7


def _save_volume(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, voxel_index, ctx.shape = inputs
    ctx.save_for_backward(voxel_index)


def _differentiate_volume(ctx: Any, grad_bev: Tensor) -> tuple[Tensor | None, ...]:
    (voxel_index,) = ctx.saved_tensors
    gradient = torch.ops.bevdepth.voxel_pooling_volume_backward(grad_bev, voxel_index, ctx.shape)
    return gradient, None, None


@register_op('voxel_index')
def _voxel_index(
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
) -> Tensor:
    geometry = Geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    if use_kernels(ego_from_frustum):
        return launch_voxel_index(geometry)
    return reference.voxel_index(*geometry)


@torch.library.register_fake('bevdepth::voxel_index')
def _(
    ego_from_frustum: Tensor,
    frustum_u: Tensor,
    frustum_v: Tensor,
    frustum_d: Tensor,
    lower: Sequence[float],
    cell: Sequence[float],
) -> Tensor:
    batch, cameras = ego_from_frustum.shape[:2]
    size = (batch, cameras, frustum_d.shape[0], frustum_v.shape[0], frustum_u.shape[0], 3)
    return ego_from_frustum.new_empty(size, dtype=torch.int32)


@register_op('voxel_pooling', _differentiate_pooling, _save_pooling)
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
    geometry = Geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    if use_forward_kernels(context):
        return launch_forward(depth, context, geometry, shape)
    return reference.voxel_pooling(depth, context, reference.voxel_index(*geometry), shape)


@register_op('voxel_pooling_backward')
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
    geometry = Geometry(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell)
    if use_kernels(context):
        return launch_backward(grad_bev, depth, context, geometry, shape)
    return reference.voxel_pooling_backward(
        grad_bev, depth, context, reference.voxel_index(*geometry), shape
    )


@register_op('voxel_pooling_volume', _differentiate_volume, _save_volume)
def _voxel_pooling_volume(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    if use_forward_kernels(volume):
        return launch_volume(volume, voxel_index, shape)
    return reference.voxel_pooling_volume(volume, voxel_index, shape)


@register_op('voxel_pooling_volume_backward')
def _voxel_pooling_volume_backward(
    grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]
) -> Tensor:
    if use_kernels(grad_bev):
        return launch_volume_backward(grad_bev, voxel_index, shape)
    return reference.voxel_pooling_volume_backward(grad_bev, voxel_index, shape)


@torch.library.register_fake('bevdepth::voxel_pooling')
def _(depth: Tensor, context: Tensor, *geometry_and_shape: Any) -> Tensor:
    return empty_bev(context, geometry_and_shape[-1])


@torch.library.register_fake('bevdepth::voxel_pooling_volume')
def _(volume: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    return empty_bev(volume, shape)


@torch.library.register_fake('bevdepth::voxel_pooling_backward')
def _(
    grad_bev: Tensor, depth: Tensor, context: Tensor, *geometry_and_shape: Any
) -> tuple[Tensor, Tensor]:
    return empty_gradients(depth, context)


@torch.library.register_fake('bevdepth::voxel_pooling_volume_backward')
def _(grad_bev: Tensor, voxel_index: Tensor, shape: Sequence[int]) -> Tensor:
    return empty_volume(grad_bev, voxel_index)
