"""NMS for all tasks in one call. Circle NMS compares the distances of centers, and size-aware NMS
compares scaled rectangles.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bevdepth_core.ops.compiled import kernels, launch


def circle_nms(
    centers: Tensor, valid: Tensor, max_squared_distances: Tensor, max_boxes: int
) -> Tensor:
    """Return the boxes whose distance from every kept box with a better score exceeds the limit of
    their task. The compiled kernel accepts up to K = 5,461 boxes per task.

    Args:
        centers: (T, K, 2) float32 x and y of the boxes of T tasks, best score first.
        valid: (T, K) bool; invalid boxes are not kept and suppress no other box.
        max_squared_distances: (T,) float32 squared distance up to which a box is suppressed.
        max_boxes: largest number of boxes to keep per task.

    Returns:
        (T, max_boxes) int32 indices of the kept boxes, best score first; unused places are -1.
    """
    if kernels is None or not centers.is_cuda:
        return _circle_nms_reference(centers, valid, max_squared_distances, max_boxes)
    centers, valid, max_squared_distances = (
        centers.contiguous(),
        valid.contiguous(),
        max_squared_distances.contiguous(),
    )
    tasks, boxes = valid.shape
    kept = torch.empty(tasks, max_boxes, dtype=torch.int32, device=centers.device)
    addresses = (tensor.data_ptr() for tensor in (centers, valid, max_squared_distances, kept))
    kernels.circle_nms(launch(centers), tasks, boxes, max_boxes, *addresses)
    return kept


def size_aware_nms(
    centers: Tensor, half_extents: Tensor, valid: Tensor, factors: Tensor, max_boxes: int
) -> Tensor:
    """Return the boxes whose scaled rectangle does not touch the scaled rectangle of a kept box
    with a better score. The rectangles are parallel to x and y. The compiled kernel accepts up to
    K = 2,891 boxes per task.

    Args:
        centers: see ``circle_nms``.
        half_extents: (T, K, 2) half of the extent of each box along x and y, meters.
        valid: see ``circle_nms``.
        factors: (T,) scale of the extents.
        max_boxes: largest number of boxes to keep per task.

    Returns:
        See ``circle_nms``.
    """
    extents = factors[:, None, None] * half_extents
    if kernels is not None and centers.is_cuda:
        rectangles = torch.cat((centers, extents), dim=2).contiguous()
        return _launch_size_aware_nms(rectangles, valid.contiguous(), max_boxes)

    def near(best: Tensor) -> Tensor:
        offset = centers - centers.take_along_dim(best[..., None], dim=1)
        reach = extents + extents.take_along_dim(best[..., None], dim=1)
        return (offset.abs() <= reach).all(dim=-1)

    return _greedy(valid, max_boxes, near)


def _launch_size_aware_nms(rectangles: Tensor, valid: Tensor, max_boxes: int) -> Tensor:
    tasks, boxes = valid.shape
    kept = torch.empty(tasks, max_boxes, dtype=torch.int32, device=valid.device)
    addresses = (tensor.data_ptr() for tensor in (rectangles, valid, kept))
    kernels.size_aware_nms(launch(rectangles), tasks, boxes, max_boxes, *addresses)
    return kept


def _circle_nms_reference(
    centers: Tensor, valid: Tensor, max_squared_distances: Tensor, max_boxes: int
) -> Tensor:
    def near(best: Tensor) -> Tensor:
        offset = centers - centers.take_along_dim(best[..., None], dim=1)
        return (offset**2).sum(dim=-1) <= max_squared_distances[:, None]

    return _greedy(valid, max_boxes, near)


def _greedy(valid: Tensor, max_boxes: int, near: Callable[[Tensor], Tensor]) -> Tensor:
    """Keep the best remaining box of each task, drop the boxes near this box, and repeat.

    Args:
        valid: (T, K) bool.
        max_boxes: largest number of boxes to keep per task.
        near: receives the (T, 1) index of one box per task and returns a (T, K) mask of the boxes
            that this box suppresses.
    """
    tasks, boxes = valid.shape
    alive = valid.clone()
    kept = torch.full((tasks, max_boxes), -1, dtype=torch.int32, device=valid.device)
    for place in range(min(max_boxes, boxes)):
        # argmax returns the first remaining box, and 0 if no box is left.
        best = alive.int().argmax(dim=1, keepdim=True)
        left = alive.gather(1, best)
        if not left.any():
            break
        kept[:, place] = torch.where(left, best, -1)[:, 0]
        alive &= ~near(best)
        # With a negative limit, the mask of near() does not contain the kept box itself.
        alive.scatter_(1, best, False)
    return kept
