"""Resizes, crops and normalizes images on the device. The resized pixels equal the pixels that
Pillow computes. ``bevdepth_core.preprocess`` lists all implementations of resizing.

Pillow's antialiased bicubic filter is separable and works in fixed point. Its weights are
multiples of 2^-22. The image is resized horizontally, rounded to uint8, and then resized
vertically. This module does the same in integers. ``ResizePlan`` contains the weights for one size
of source images. The torch reference below specifies the result, and the compiled kernel computes
the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bevdepth_core.ops.compiled import kernels, launch

WEIGHT_BITS = 22
"""Fixed-point bits of a weight: 32 bits, minus 8 for the pixel and 2 for sums above 1."""
_CUBIC = -0.5
"""Parameter of the bicubic filter, as in Pillow."""
_SUPPORT = 2.0
"""Distance from its center beyond which the bicubic filter is 0, before the filter is widened."""


@dataclass(frozen=True)
class ResizePlan:
    """Filter weights that resize a source image of one size to network input.

    Attributes:
        columns: (width, 1 + taps) int32, one row per output column. A row contains the index of
            the first source column, and then the weights, times 2^22, of this column and of the
            following source columns. If an output column lies outside of the source, all weights
            are 0, and the column is black.
        rows: (height, 1 + taps) int32, one row per output row, in the same format.
        first_row: first source row that ``rows`` needs.
        row_count: number of source rows that ``rows`` needs.
    """

    columns: Tensor
    rows: Tensor
    first_row: int
    row_count: int

    @classmethod
    def make(
        cls,
        source: tuple[int, int],
        resized: tuple[int, int],
        crop: tuple[int, int, int, int],
        device: torch.device,
    ) -> ResizePlan:
        """Return the plan that resizes and then crops.

        Args:
            source: width and height of the source image.
            resized: width and height after resizing.
            crop: left, top, width and height of the crop in the resized image. The crop may
                extend beyond this image.
            device: device of ``columns`` and ``rows``.
        """
        left, top, width, height = crop
        columns = _filter_table(source[0], resized[0], left, width)
        rows = _filter_table(source[1], resized[1], top, height)
        used = rows[(rows[:, 1:] != 0).any(axis=1)]
        if not len(used):
            used = rows[:1]
        first = int(used[:, 0].min())
        last = min(int(used[:, 0].max()) + rows.shape[1] - 1, source[1])
        return cls(
            torch.from_numpy(columns).to(device),
            torch.from_numpy(rows).to(device),
            first,
            last - first,
        )


def _filter_table(source: int, resized: int, first: int, count: int) -> np.ndarray:
    """Return the weights of ``count`` output pixels along one axis, in the format of
    ``ResizePlan.columns``. The first of these pixels has the index ``first``.
    """
    step = source / resized  # source pixels per output pixel
    widening = max(step, 1.0)  # a filter is widened if the image becomes smaller (antialiasing)
    reach = _SUPPORT * widening  # half of the width of the filter, in source pixels
    taps = int(np.ceil(reach)) * 2 + 1
    table = np.zeros((count, 1 + taps), np.int32)
    # inside: indices of the output pixels that lie in the resized image. center: position of each
    # of these pixels in the source image. low, size: first index and number of the source pixels
    # from which the output pixel is computed.
    inside = np.arange(max(first, 0), min(first + count, resized))
    center = (inside + 0.5) * step
    low = np.maximum((center - reach + 0.5).astype(np.int64), 0)
    size = np.minimum((center + reach + 0.5).astype(np.int64), source) - low
    weights = np.zeros((len(inside), taps))
    total = np.zeros(len(inside))
    for tap in range(taps):  # in this order, because the order of a sum changes its last bits
        weights[:, tap] = np.where(
            tap < size, _bicubic((tap + low - center + 0.5) * (1.0 / widening)), 0
        )
        total += weights[:, tap]
    weights /= total[:, None]
    scaled = weights * (1 << WEIGHT_BITS)
    table[inside - first, 0] = low
    table[inside - first, 1:] = np.trunc(scaled + np.where(weights < 0, -0.5, 0.5))
    return table


def _bicubic(x: np.ndarray) -> np.ndarray:
    """Return the value of the bicubic filter at the distances ``x`` from its center."""
    x = np.abs(x)
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _CUBIC
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resize_images(
    images: Sequence[Tensor],
    plans: Sequence[ResizePlan],
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> None:
    """Write resized and normalized images to ``out``; the CPU does not wait for the device.

    Args:
        images: N tensors (H_i, W_i, 3) uint8 RGB on the device of ``out``, any strides.
        plans: the resize plan of each image.
        mean: 3 numbers that are subtracted from the output channels B G R.
        std: 3 numbers by which the differences are divided.
        out: (N, channels, height, width) channels_last; float16, bfloat16 or float32. The fourth
            and all following channels are set to 0.
    """
    if kernels is not None and out.is_cuda:
        _launch(images, plans, mean, std, out)
        return
    channels = torch.tensor([mean, std], device=out.device)[:, :, None, None]
    out[:, 3:] = 0
    for image, plan, target in zip(images, plans, out, strict=True):
        pixels = resize_reference(image, plan).permute(2, 0, 1).flip(0)
        target[:3] = (pixels.float() - channels[0]) / channels[1]


def resize_reference(image: Tensor, plan: ResizePlan) -> Tensor:
    """Return the (height, width, 3) uint8 crop of an (H, W, 3) uint8 image."""
    rows = image[plan.first_row : plan.first_row + plan.row_count]
    narrow = _filtered(rows.transpose(0, 1), plan.columns, 0).transpose(0, 1)
    return _filtered(narrow, plan.rows, plan.first_row)


def _filtered(pixels: Tensor, table: Tensor, offset: int) -> Tensor:
    """Return weighted sums along the first dimension, rounded to uint8. ``offset`` is the source
    index of the first row of ``pixels``; the indices in ``table`` are source indices.
    """
    total = torch.full(
        (len(table), *pixels.shape[1:]),
        1 << (WEIGHT_BITS - 1),
        dtype=torch.int32,
        device=pixels.device,
    )
    for tap in range(table.shape[1] - 1):
        index = (table[:, 0] + (tap - offset)).clamp(0, len(pixels) - 1)
        total += pixels[index].int() * table[:, 1 + tap, None, None]
    return (total >> WEIGHT_BITS).clamp(0, 255).to(torch.uint8)


def _launch(
    images: Sequence[Tensor],
    plans: Sequence[ResizePlan],
    mean: Sequence[float],
    std: Sequence[float],
    out: Tensor,
) -> None:
    count, channels, height, width = out.shape
    sources = [
        kernels.Source(
            image.data_ptr(),
            image.stride(),
            (plan.first_row, plan.row_count),
            kernels.Filter(plan.columns.data_ptr(), plan.columns.shape[1] - 1),
            kernels.Filter(plan.rows.data_ptr(), plan.rows.shape[1] - 1),
        )
        for image, plan in zip(images, plans, strict=True)
    ]
    max_rows = max(max((plan.row_count for plan in plans), default=1), 1)
    workspace = torch.empty(count * max_rows * width, dtype=torch.int32, device=out.device)
    inputs = kernels.Inputs(out.data_ptr(), (height, width, channels), tuple(mean), tuple(std))
    kernels.resize_images(launch(out), sources, workspace.data_ptr(), inputs)
