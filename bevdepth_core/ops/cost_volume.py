"""Compares the features of two frames at several depths per pixel.

The torch reference specifies the numbers and runs on the CPU. On CUDA, the compiled kernel runs.
It does not store the warped features, which would take 832 MB per refinement step in float32 for
six cameras at 256x704. The op has no gradient. As in the official code, neither the features of
the two frames nor the depths get a gradient from the comparison.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bevdepth_core.ops.backend import kernels_in_use
from bevdepth_core.ops.compiled import kernels, launch
from bevdepth_core.ops.registration import register_op
from bevdepth_core.ops.warping import MAP_STRIDE, NEAREST_DEPTH_M, reference_pixels, warp


def cost_volume(
    reference: Tensor,
    source: Tensor,
    depths: Tensor,
    matrix: Tensor,
    image_size: tuple[int, int],
    groups: int,
) -> Tensor:
    """Return the cost volume (n, groups, K, h, w): the mean product of the features of both
    frames in each group of channels.

    Args:
        reference: (n, C, h, w) features of the reference frame, float16, bfloat16 or float32. The
            kernel copies them if they are not channels_last.
        source: (n, C, h, w) features of the source frame, in the data type of ``reference``.
        depths: (n, K, h, w) float32 depths at which the features are compared, in meters; all
            values are allowed.
        matrix: (n, 3, 4) float64, see ``warping.source_from_reference``; one matrix per image.
        image_size: height and width of the network's input.
        groups: number of groups of neighboring channels.

    Returns:
        The cost volume in the data type of ``reference``. Geometry and sums are float32.

    Raises:
        ValueError: a shape is wrong; the message names the argument.
        TypeError: a type is wrong; the message names the argument.
    """
    _check(reference, source, depths, matrix, groups)
    return torch.ops.bevdepth.cost_volume(
        reference, source, depths, matrix, list(image_size), groups
    )


@register_op('cost_volume')
def _cost_volume(
    reference: Tensor,
    source: Tensor,
    depths: Tensor,
    matrix: Tensor,
    image_size: list[int],
    groups: int,
) -> Tensor:
    height, width = image_size
    if _runs_kernel(reference):
        return _launch(reference, source, depths, matrix, (height, width), groups)
    costs = []
    for depth in depths.unbind(1):  # one by one, because all warped maps together are large
        warped = warp(source, depth, matrix, (height, width))
        costs.append((reference * warped).unflatten(1, (groups, -1)).mean(dim=2))
    return torch.stack(costs, dim=2).to(reference.dtype)


@torch.library.register_fake('bevdepth::cost_volume')
def _(
    reference: Tensor,
    source: Tensor,
    depths: Tensor,
    matrix: Tensor,
    image_size: list[int],
    groups: int,
) -> Tensor:
    images, count, height, width = depths.shape
    if _runs_kernel(reference):
        return _empty_costs(reference, count, groups).permute(0, 4, 1, 2, 3)
    return reference.new_empty(images, groups, count, height, width)


def _runs_kernel(features: Tensor) -> bool:
    return features.is_cuda and kernels_in_use()


def _empty_costs(reference: Tensor, count: int, groups: int) -> Tensor:
    images, _, height, width = reference.shape
    return reference.new_empty(images, count, height, width, groups)


def _launch(
    reference: Tensor,
    source: Tensor,
    depths: Tensor,
    matrix: Tensor,
    image_size: tuple[int, int],
    groups: int,
) -> Tensor:
    images, channels, height, width = reference.shape
    own, other = (maps.permute(0, 2, 3, 1).contiguous() for maps in (reference, source))
    depths, matrix = depths.contiguous(), matrix.contiguous()
    u, v = reference_pixels(depths, image_size)
    costs = _empty_costs(reference, depths.shape[1], groups)
    projection = kernels.StereoProjection(
        matrix.data_ptr(),
        u.data_ptr(),
        v.data_ptr(),
        MAP_STRIDE,
        NEAREST_DEPTH_M,
    )
    kernels.cost_volume(
        launch(own),
        kernels.StereoMaps(images, height, width, channels, groups, depths.shape[1]),
        projection,
        own.data_ptr(),
        other.data_ptr(),
        depths.data_ptr(),
        costs.data_ptr(),
    )
    return costs.permute(0, 4, 1, 2, 3)


def _check(
    reference: Tensor,
    source: Tensor,
    depths: Tensor,
    matrix: Tensor,
    groups: int,
) -> None:
    if reference.dim() != 4 or source.shape != reference.shape:
        raise ValueError(
            'reference and source must be maps (n, C, h, w) of the same size, got '
            f'{tuple(reference.shape)} and {tuple(source.shape)}'
        )
    images, channels, height, width = reference.shape
    if depths.dim() != 4 or (depths.shape[0], *depths.shape[2:]) != (images, height, width):
        raise ValueError(
            f'depths must have the shape ({images}, K, {height}, {width}) to fit the maps in '
            f'reference, got {tuple(depths.shape)}'
        )
    if tuple(matrix.shape) != (images, 3, 4):
        raise ValueError(f'matrix must have the shape ({images}, 3, 4), got {tuple(matrix.shape)}')
    if groups < 1 or channels % groups:
        raise ValueError(f'groups must divide the {channels} channels of the maps, got {groups}')
    _check_types(reference, source, depths, matrix)


def _check_types(reference: Tensor, source: Tensor, depths: Tensor, matrix: Tensor) -> None:
    if reference.dtype not in (torch.float16, torch.bfloat16, torch.float32):
        raise TypeError(f'reference must be float16, bfloat16 or float32, got {reference.dtype}')
    for name, tensor, dtype in (
        ('source', source, reference.dtype),
        ('depths', depths, torch.float32),
        ('matrix', matrix, torch.float64),
    ):
        if tensor.dtype != dtype:
            raise TypeError(f'{name} must be {dtype}, got {tensor.dtype}')
