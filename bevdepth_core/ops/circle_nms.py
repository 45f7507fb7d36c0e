"""Circle NMS for all tasks at once: a box is suppressed by a better one whose center is near."""

from __future__ import annotations

import torch
from torch import Tensor

from bevdepth_core.ops.compiled import kernels, launch


def circle_nms(centers: Tensor, valid: Tensor, limits: Tensor, most: int) -> Tensor:
    """Return which boxes are further than their task's limit from every better box that is kept.

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
    centers, valid, limits = centers.contiguous(), valid.contiguous(), limits.contiguous()
    tasks, boxes = valid.shape
    kept = torch.empty(tasks, most, dtype=torch.int32, device=centers.device)
    addresses = (tensor.data_ptr() for tensor in (centers, valid, limits, kept))
    kernels.circle_nms(launch(centers), tasks, boxes, most, *addresses)
    return kept


def _reference(centers: Tensor, valid: Tensor, limits: Tensor, most: int) -> Tensor:
    """Keep the best box of each task that is left, drop those near it, and so on."""
    tasks, boxes = valid.shape
    alive = valid.clone()
    kept = torch.full((tasks, most), -1, dtype=torch.int32, device=centers.device)
    for place in range(min(most, boxes)):
        best = alive.int().argmax(dim=1, keepdim=True)  # the first one; 0 where none is left
        left = alive.gather(1, best)
        if not left.any():
            break
        kept[:, place] = torch.where(left, best, -1)[:, 0]
        offset = centers - centers.take_along_dim(best[..., None], dim=1)
        alive &= (offset**2).sum(dim=-1) > limits[:, None]
        alive.scatter_(1, best, False)  # also for a limit below 0
    return kept
