"""Samples a feature map of one frame at the positions to which the pixels of another frame
project.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MAP_STRIDE = 4
"""Stride that the official code assumes for every map. The depth logits of the single frame, from
which stereo matching computes its mask, have stride 16. A pixel therefore reads these logits at
four times the correct column and row, and pixels beyond the first quarter of the columns or rows
read zeros. The official weights were trained with this error."""
NEAREST_DEPTH_M = 1e-3
"""Points with a smaller depth in the source camera, in meters, or behind this camera are not
projected. They read the lower right corner of the map."""


def source_from_reference(reference: Tensor, source: Tensor) -> Tensor:
    """Return the (B, N, 3, 4) float64 matrix that converts (u d, v d, d, 1) of a pixel of the
    reference frame to (u d, v d, d) in the source frame.

    Args:
        reference: (B, N, 3, 4) float64 ``ego_from_frustum`` of the reference frame.
        source: ``ego_from_frustum`` of the source frame, for the same ego frame.
    """
    return torch.linalg.solve(_square(source), _square(reference))[..., :3, :]


def _square(matrix: Tensor) -> Tensor:
    last_row = matrix.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*matrix.shape[:-2], 1, 4)
    return torch.cat((matrix, last_row), dim=-2)


def warp(maps: Tensor, depth: Tensor, matrix: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return (n, C, h, w): the map of the source frame, sampled at the positions to which the
    pixels of the reference frame project.

    Args:
        maps: (n, C, H, W) maps of the source frame; samples outside of the maps are zero.
        depth: (n, h, w) depth of the pixels of the reference frame, in meters; all values are
            allowed.
        matrix: (n, 3, 4) float64, see ``source_from_reference``.
        image_size: height and width of the network's input.
    """
    with torch.autocast(maps.device.type, enabled=False):
        column, row = _source_pixels(depth.float(), matrix, image_size, maps.shape[-2:])
        height, width = (MAP_STRIDE * size for size in maps.shape[-2:])
        # reference_pixels places the outermost pixels on the border of the image. With
        # align_corners=False, the border is half a cell outside of the outermost cell centers. The
        # official code mixes both conventions, too.
        grid = torch.stack((2 * column / (width - 1) - 1, 2 * row / (height - 1) - 1), dim=-1)
        return F.grid_sample(maps.float(), grid, 'bilinear', 'zeros', align_corners=False)


def _source_pixels(
    depth: Tensor, matrix: Tensor, image_size: tuple[int, int], map_size: torch.Size
) -> tuple[Tensor, Tensor]:
    """Return columns and rows (n, h, w) in network-input pixels of the source frame."""
    rays = _reference_rays(depth, matrix, image_size)
    offset = matrix[:, :, 3].float()[..., None, None]
    u, v, z = (rays * depth[:, None] + offset).unbind(1)
    too_near = z < NEAREST_DEPTH_M
    height, width = map_size
    # This position is so close to the lower right corner that bilinear sampling reads about 1/16
    # of the last pixel, as in the official code.
    return (
        torch.where(too_near, MAP_STRIDE * width, u / z),
        torch.where(too_near, MAP_STRIDE * height, v / z),
    )


def reference_pixels(depth: Tensor, image_size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the (w,) columns and (h,) rows of the pixels of ``depth`` (..., h, w) in the
    network's input, float32. The outermost pixels lie on the border of the image.
    """
    rows, columns = depth.shape[-2:]
    height, width = image_size
    u = torch.linspace(0, width - 1, columns, device=depth.device)
    return u, torch.linspace(0, height - 1, rows, device=depth.device)


def _reference_rays(depth: Tensor, matrix: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Return (n, 3, h, w) float32: the reference pixels at depth 1, rotated by ``matrix`` without
    its translation.
    """
    u, v = (axis.to(matrix.dtype) for axis in reference_pixels(depth, image_size))
    first, second, third, _ = matrix[..., None, None].unbind(2)  # (n, 3, 1, 1) each
    return (first * u + second * v[:, None] + third).float()
