"""Head maps to scored boxes.

Source: the official CenterPoint decoder with circle suppression; there is no peak finding before
    it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bevdepth_core.config import BEVGrid, DecodeConfig, HeadTask, ModelConfig
from bevdepth_core.types import Boxes3D, TaskMaps


@dataclass(frozen=True)
class ScoredBoxes:
    """Boxes of one sample, best score first.

    Attributes:
        boxes: n boxes in the ego frame.
        scores: (n,) float32.
        labels: (n,) int64, index into the model's class names.
    """

    boxes: Boxes3D
    scores: np.ndarray
    labels: np.ndarray

    def __getitem__(self, index) -> ScoredBoxes:
        return ScoredBoxes(self.boxes[index], self.scores[index], self.labels[index])


def decode(tasks: Sequence[TaskMaps], config: ModelConfig) -> list[ScoredBoxes]:
    """Return the boxes of each sample of the batch.

    Args:
        tasks: head output, maps (B, channels, ny, nx).
        config: the model's config.
    """
    samples: list[list[ScoredBoxes]] = [[] for _ in range(len(tasks[0].heatmap))]
    first_label = 0
    for task, maps in zip(config.head.tasks, tasks, strict=True):
        for sample, candidates in zip(
            samples, _candidates(maps, config.grid, config.decode), strict=True
        ):
            candidates = candidates[
                suppress_circles(candidates, task, config.decode.boxes_per_task)
            ]
            sample.append(
                ScoredBoxes(candidates.boxes, candidates.scores, candidates.labels + first_label)
            )
        first_label += len(task.classes)
    return [_concatenate(sample) for sample in samples]


def suppress_circles(candidates: ScoredBoxes, task: HeadTask, most: int) -> np.ndarray:
    """Return the indices of boxes, best first, that are not within the task's distance of a better
    kept one.

    Args:
        candidates: boxes of one task, best score first.
        task: its suppression distance.
        most: most boxes to keep.
    """
    centers = candidates.boxes.center[:, :2]
    alive = np.ones(len(centers), bool)
    kept: list[int] = []
    while len(kept) < most and alive.any():
        best = int(alive.argmax())
        kept.append(best)
        alive &= ((centers - centers[best]) ** 2).sum(axis=1) > task.nms_distance_squared
        alive[best] = False
    return np.array(kept, np.int64)


def _candidates(maps: TaskMaps, grid: BEVGrid, config: DecodeConfig) -> list[ScoredBoxes]:
    """Return the best cells of one task as boxes, before suppression, per sample."""
    scores, classes, cells = _best_cells(maps.heatmap.float().sigmoid(), config.candidates)
    values = (
        torch.cat((maps.reg, maps.height, maps.dim, maps.rot, maps.vel), dim=1).float().flatten(2)
    )  # (B, 10, ny * nx)
    values = values.gather(2, cells[:, None].expand(-1, values.shape[1], -1))
    boxes = boxes_from_values(values, cells, grid)
    columns = (boxes.transpose(1, 2), scores, classes)
    return [
        _filtered(*(column.cpu().numpy() for column in sample), config)
        for sample in zip(*columns, strict=True)
    ]


def _best_cells(
    heatmap: torch.Tensor, most: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return score, class and flat cell, each (B, k): the best of the task among the best of each
    class.
    """
    class_count = heatmap.shape[1]
    most = min(most, heatmap[0, 0].numel())
    scores, cells = heatmap.flatten(2).topk(most)  # (B, classes, most)
    scores, order = scores.flatten(1).topk(min(most, class_count * most))
    return scores, order // most, cells.flatten(1).gather(1, order)


def boxes_from_values(values: torch.Tensor, cells: torch.Tensor, grid: BEVGrid) -> torch.Tensor:
    """Return (B, 9, k) x y z length width height yaw vx vy from head values (B, 10, k) at flat
    cells (B, k).
    """
    columns = grid.shape[0]
    x = (cells % columns + values[:, 0]) * grid.cell[0] + grid.lower[0]
    y = (cells // columns + values[:, 1]) * grid.cell[1] + grid.lower[1]
    yaw = torch.atan2(values[:, 6], values[:, 7])
    return torch.cat(
        (
            torch.stack((x, y), dim=1),
            values[:, 2:3],
            values[:, 3:6].exp(),
            yaw[:, None],
            values[:, 8:10],
        ),
        dim=1,
    )


def _filtered(
    values: np.ndarray, scores: np.ndarray, labels: np.ndarray, config: DecodeConfig
) -> ScoredBoxes:
    """Keep candidates that score enough, lie in range and are finite."""
    lower, upper = np.split(np.array(config.center_range, np.float32), 2)
    center, size = values[:, :3], values[:, 3:6]
    keep = (
        (scores > config.score_threshold)
        & np.isfinite(values).all(axis=1)
        & (size > 0).all(axis=1)
    )
    keep &= ((center >= lower) & (center <= upper)).all(axis=1)
    boxes = Boxes3D(center[keep], size[keep], values[keep, 6], values[keep, 7:])
    return ScoredBoxes(boxes, scores[keep], labels[keep])


def _concatenate(parts: Sequence[ScoredBoxes]) -> ScoredBoxes:
    names = ('center', 'size', 'yaw', 'velocity')
    boxes = Boxes3D(
        *(np.concatenate([getattr(part.boxes, name) for part in parts]) for name in names)
    )
    joined = ScoredBoxes(
        boxes,
        np.concatenate([part.scores for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    return joined[np.argsort(-joined.scores, kind='stable')]
