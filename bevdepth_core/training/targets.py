"""Computes training targets: heatmaps, boxes and depth bins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bevdepth_core.config import BEVGrid, DepthBins, HeadTask, ModelConfig
from bevdepth_core.types import join_box_values

NO_DEPTH = -1
"""Depth bin of a feature pixel that has no lidar point, or whose nearest lidar point is outside of
all depth bins."""
MAX_BOXES_PER_TASK = 500
"""Largest number of boxes of one task in one sample. As in the official code, boxes beyond this
number are ignored."""

_GAUSSIAN_OVERLAP = 0.1
_MIN_RADIUS = 2


@dataclass(frozen=True)
class TaskTargets:
    """Targets of one head task for B samples. Together, the samples have P boxes of this task.

    Attributes:
        heatmap: (B, classes, ny, nx) float32 in [0, 1], 1 at the cell of each box center.
        sample: (P,) int64, index of the sample of each box.
        cell: (P, 2) int64, x and y index of the cell that contains the center of each box.
        box: (P, 10) float32: offset of the center from the cell's lower corner in cells (x, y), z
            in meters, logarithms of length, width and height in meters, sine and cosine of yaw,
            velocity x and y in m/s. This is the order of ``BOX_MAPS``.
        label: (P,) int64, class of each box within the task.
        score: (P,) float32 in (0, 1], weight of each box in the loss.
    """

    heatmap: Tensor
    sample: Tensor
    cell: Tensor
    box: Tensor
    label: Tensor
    score: Tensor

    def center_weights(self) -> Tensor:
        """Return the weight of each cell, with the shape of ``heatmap``: the highest score of
        the boxes whose center is in the cell, 0 for a cell without a box center.
        """
        _, classes, ny, nx = self.heatmap.shape
        place = ((self.sample * classes + self.label) * ny + self.cell[:, 1]) * nx
        flat = self.heatmap.new_zeros(self.heatmap.numel())
        flat.scatter_reduce_(0, place + self.cell[:, 0], self.score, 'amax')
        return flat.view_as(self.heatmap)

    def to(self, device: torch.device) -> TaskTargets:
        return TaskTargets(
            *(
                getattr(self, name).to(device, non_blocking=True)
                for name in self.__dataclass_fields__
            )
        )

    def pin_memory(self) -> TaskTargets:
        return TaskTargets(
            *(getattr(self, name).pin_memory() for name in self.__dataclass_fields__)
        )


def center_targets(
    boxes: Tensor, labels: Tensor, config: ModelConfig, scores: Tensor | None = None
) -> tuple[TaskTargets, ...]:
    """Return the targets of each head task for one sample (B = 1).

    Args:
        boxes: (n, 9) float32 in the augmented ego frame: center x, y, z, length, width, height in
            meters, yaw in radians, velocity x and y in m/s. Boxes centered outside the grid are
            excluded; a center less than one cell below the lower limit of the grid counts as
            inside.
        labels: (n,) int64, index into ``config.class_names``.
        config: grid and tasks.
        scores: (n,) float32, weight of each box in the loss; None: 1 for all boxes.

    Source: the targets of CenterPoint, with the settings of the official code.
    """
    scores = torch.ones(len(boxes)) if scores is None else scores
    targets, first_label = [], 0
    for task in config.head.tasks:
        # Only the first MAX_BOXES_PER_TASK boxes are used; the order is class by class.
        rows_by_class = [
            (labels == first_label + index).nonzero()[:, 0] for index in range(len(task.classes))
        ]
        chosen = torch.cat(rows_by_class)[:MAX_BOXES_PER_TASK]
        targets.append(
            _task_targets(
                boxes[chosen], labels[chosen] - first_label, scores[chosen], task, config.grid
            )
        )
        first_label += len(task.classes)
    return tuple(targets)


def _task_targets(
    boxes: Tensor, classes: Tensor, scores: Tensor, task: HeadTask, grid: BEVGrid
) -> TaskTargets:
    nx, ny, _ = grid.shape
    cell_size = torch.tensor(grid.cell[:2])
    position = (boxes[:, :2] - torch.tensor(grid.lower[:2])) / cell_size
    # As in the official code, truncation towards zero assigns centers up to one cell below the
    # grid to cell 0.
    cell = position.long()
    inside = ((cell >= 0) & (cell < torch.tensor((nx, ny)))).all(dim=1)
    boxes, position, cell = boxes[inside], position[inside], cell[inside]
    classes, scores = classes[inside], scores[inside]
    heatmap = torch.zeros(len(task.classes), ny, nx)
    peaks = _gaussian_peaks(cell, gaussian_radius(boxes[:, 3:5] / cell_size), nx, ny)
    for index, peak in zip(classes, peaks, strict=True):
        torch.maximum(heatmap[index], peak, out=heatmap[index])
    yaw = boxes[:, 6:7]
    box = join_box_values(
        {
            'reg': position - cell,
            'height': boxes[:, 2:3],
            'dim': boxes[:, 3:6].log(),
            'rot': torch.cat((yaw.sin(), yaw.cos()), dim=1),
            'vel': boxes[:, 7:],
        },
        dim=1,
    )
    sample = torch.zeros(len(box), dtype=torch.int64)
    return TaskTargets(heatmap[None], sample, cell, box, classes, scores)


def gaussian_radius(size: Tensor) -> Tensor:
    """Return (n,) int64, the radius of the heatmap peak of each box in cells, at least 2.

    Args:
        size: (n, 2) float32, length and width in cells.

    Source: the three cases of CornerNet. As in MMDetection3D, the solutions of the quadratic
        equations are divided by 2 instead of 2a.
    """
    total, area, overlap = size.sum(dim=1), size.prod(dim=1), _GAUSSIAN_OVERLAP
    cases = (
        (1, total, area * (1 - overlap) / (1 + overlap)),
        (4, 2 * total, (1 - overlap) * area),
        (4 * overlap, -2 * overlap * total, (overlap - 1) * area),
    )
    solutions = [(b + (b**2 - 4 * a * c).sqrt()) / 2 for a, b, c in cases]
    return torch.stack(solutions).amin(dim=0).long().clamp(min=_MIN_RADIUS)


def _gaussian_peaks(cell: Tensor, radius: Tensor, nx: int, ny: int) -> Tensor:
    """Return (n, ny, nx): for each cell, a Gaussian of height 1 around this cell. The values are 0
    where the distance from the cell in x or y is larger than the radius.
    """
    across, along = (_profile(cell[:, axis], radius, count) for axis, count in ((0, nx), (1, ny)))
    return along[:, :, None] * across[:, None, :]


def _profile(center: Tensor, radius: Tensor, count: int) -> Tensor:
    distance = torch.arange(count) - center[:, None]
    sigma = (2 * radius[:, None] + 1) / 6
    return torch.exp(-(distance**2) / (2 * sigma**2)) * (distance.abs() <= radius[:, None])


def depth_targets(depth: Tensor, bins: DepthBins, stride: int = 16) -> Tensor:
    """Return the depth bin of each feature pixel, (..., h, w) int64, or ``NO_DEPTH``.

    Args:
        depth: (..., H, W) float32, depth in meters of pixels with a lidar point, 0 for all other
            pixels.
        bins: depth bins; depths below ``start``, and from ``start + count * step`` on, have no
            bin.
        stride: width and height of a feature pixel, in pixels of ``depth``. The depth of a
            feature pixel is the depth of the nearest lidar point in it.
    """
    # (..., h, stride, w, stride)
    blocks = depth.unflatten(-1, (-1, stride)).unflatten(-3, (-1, stride))
    nearest = torch.where(blocks > 0, blocks, torch.inf).amin(dim=(-3, -1))
    index = (nearest - bins.start) / bins.step
    return torch.where((index >= 0) & (index < bins.count), index, NO_DEPTH).long()


def join(samples: list[tuple[TaskTargets, ...]]) -> tuple[TaskTargets, ...]:
    """Return the targets of several samples (each with B = 1) as one batch."""
    return tuple(_join_task(task) for task in zip(*samples, strict=True))


def _join_task(task: tuple[TaskTargets, ...]) -> TaskTargets:
    return TaskTargets(
        torch.cat([targets.heatmap for targets in task]),
        torch.cat([targets.sample + index for index, targets in enumerate(task)]),
        torch.cat([targets.cell for targets in task]),
        torch.cat([targets.box for targets in task]),
        torch.cat([targets.label for targets in task]),
        torch.cat([targets.score for targets in task]),
    )
