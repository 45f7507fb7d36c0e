"""Suppression of boxes by the distance of their centres, for all tasks at once and without a host:
greedy, best first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bevdepth_core.ops.compiled import kernels, launch


def suppress_circles(centers: Tensor, valid: Tensor, limits: Tensor, most: int) -> Tensor:
    """Return which boxes are not within their task's distance of a better kept one.

    Args:
        centers: (T, K, 2) float32 x and y of the boxes of T tasks, best score first.
        valid: (T, K) bool; other boxes are neither kept nor suppress.
        limits: (T,) float32 squared distance up to which a box is suppressed.
        most: most boxes to keep of a task.

    Returns:
        (T, most) int32 indices of the kept boxes, best first, then -1.
    """
    if kernels is None or not centers.is_cuda:
        return _reference(centers, valid, limits, most)
    centers, valid = centers.contiguous(), valid.contiguous()
    tasks, boxes = valid.shape
    kept = torch.empty(tasks, most, dtype=torch.int32, device=centers.device)
    addresses = (tensor.data_ptr() for tensor in (centers, valid, limits, kept))
    kernels.suppress_circles(launch(centers), tasks, boxes, most, *addresses)
    return kept


def _reference(centers: Tensor, valid: Tensor, limits: Tensor, most: int) -> Tensor:
    tasks, boxes = valid.shape
    alive = valid.clone()
    for best in range(boxes - 1):
        near = ((centers[:, best + 1 :] - centers[:, best, None]) ** 2).sum(dim=-1) <= limits[
            :, None
        ]
        alive[:, best + 1 :] &= ~(near & alive[:, best, None])
    place = alive.cumsum(dim=1) - 1
    kept = torch.full((tasks, boxes + most), -1, dtype=torch.int32, device=centers.device)
    # Dropped boxes are written behind the last place, where nobody looks.
    place = torch.where(alive & (place < most), place, boxes + most - 1)
    index = torch.arange(boxes, dtype=torch.int32, device=centers.device).expand(tasks, boxes)
    return kept.scatter(1, place, index)[:, :most] if boxes else kept[:, :most]
