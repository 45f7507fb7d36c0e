"""Decodes scored boxes from head maps.

The algorithm is the decoder of CenterPoint as the official code uses it: with circle NMS, or with
size-aware NMS in official stereo models. The decoder does not search for local maxima of the
heatmap, so every cell may become a box.

The terms of this module, in the order in which they are built on each other:

* Task: a group of classes with its own head maps. For each cell of the grid, the maps contain the
  values of one box, and one logit per class of the task (the heatmap).
* Candidate: a cell and a class that have one of the K highest logits of a task, with the box of
  this cell.
* Usable candidate: a candidate with a real class and valid box values: finite, with positive size,
  and with the center in the range of the model config.
* Suppression (NMS): in the order of descending scores, a usable candidate is kept, unless it is
  too near to a kept candidate of the same task.
* Table: the kept candidates as rows of 11 numbers. The size of the table is fixed, so it also has
  rows without a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bevdepth_core.config import BEVGrid, ModelConfig
from bevdepth_core.ops.circle_nms import circle_nms, size_aware_nms
from bevdepth_core.scale_nms import scale_nms
from bevdepth_core.types import BOX_VALUES, Boxes3D, TaskMaps, split_box_values

NO_CLASS = -65504.0
"""Logit of a class that a task does not have. It is the lowest float16, far below any real logit.
"""
NO_BOX = -1.0
"""Score of a table row that contains no box."""
_SCORE, _LABEL = 9, 10


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

    def __getitem__(self, index: slice | np.ndarray) -> ScoredBoxes:
        return ScoredBoxes(self.boxes[index], self.scores[index], self.labels[index])


def decode(tasks: Sequence[TaskMaps], config: ModelConfig) -> list[ScoredBoxes]:
    """Return, for each sample of the batch, the boxes whose scores exceed the threshold.

    Args:
        tasks: head maps of each task, each map (B, channels, ny, nx).
        config: config of the model; ``decode.score_threshold`` is the threshold.
    """
    decoder = BoxDecoder(config).to(tasks[0].heatmap.device)
    tables = decoder(stack_maps(tasks)).cpu().numpy()
    return [decoder.boxes(table, config.decode.score_threshold) for table in tables]


def stack_maps(tasks: Sequence[TaskMaps]) -> Tensor:
    """Stack the head maps of T tasks to (B, T, BOX_VALUES + classes, ny, nx) for
    ``BoxDecoder``; ``classes`` is the largest number of classes of a task.
    """
    classes = max(maps.heatmap.shape[1] for maps in tasks)
    heatmaps = [
        pad(maps.heatmap, (0, 0, 0, 0, 0, classes - maps.heatmap.shape[1]), value=NO_CLASS)
        for maps in tasks
    ]
    values = torch.stack([maps.box_values() for maps in tasks], dim=1)
    return torch.cat((values, torch.stack(heatmaps, dim=1)), dim=2)


class BoxDecoder(nn.Module):
    """Converts head maps to a table of boxes on any device. The size of the table does not depend
    on the number of boxes, because a CUDA graph requires a fixed size.

    The score threshold is applied after NMS. Applying it before NMS would give the same boxes,
    because NMS begins with the best score: a box below the threshold never suppresses a box above
    the threshold.
    """

    _lower: Tensor
    _upper: Tensor
    _limits: Tensor
    _factors: Tensor | None
    _first_labels: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        tasks = config.head.tasks
        self._grid, self._decode = config.grid, config.decode
        class_counts = [len(task.classes) for task in tasks]
        self._task_of_label = np.repeat(np.arange(len(tasks)), class_counts)
        first_labels = np.searchsorted(self._task_of_label, np.arange(len(tasks)))
        lower, upper = torch.tensor(config.center_range).view(2, 3, 1)
        limits = torch.tensor([task.nms_distance_squared for task in tasks])
        self.register_buffer('_lower', lower)
        self.register_buffer('_upper', upper)
        self.register_buffer('_limits', limits)
        sizes = config.decode.size_aware_nms
        self.register_buffer('_factors', None if sizes is None else torch.tensor(sizes.factors))
        self.register_buffer('_first_labels', torch.from_numpy(first_labels))

    def forward(self, maps: Tensor) -> Tensor:
        """Return (B, T * boxes_per_task, 11) float32: x y z length width height yaw vx vy, score
        (``NO_BOX`` in rows without a box), label. The rows are grouped by task; the rows of a task
        begin with the best score.

        Args:
            maps: (B, T, BOX_VALUES + classes, ny, nx), of any strides, see ``stack_maps``.
        """
        return self.suppress(self.candidates(maps), maps.shape[0])

    def candidates(self, maps: Tensor) -> Tensor:
        """Return the K candidates of each task before suppression, (B T, 11, K) float32, highest
        logit first. The 11 values are the same as in ``forward``. The score of a candidate that
        is not usable is ``NO_BOX``.

        Args:
            maps: see ``forward``.
        """
        batch, columns = maps.shape[0], maps.shape[4]
        cells = maps.shape[3] * columns
        maps = maps.flatten(0, 1)
        # Select the K highest logits of all classes of a task: (B T, K). These logits also give
        # the highest scores, because the sigmoid is monotonic.
        logits = maps[:, BOX_VALUES:].float().flatten(1)
        logits, index = logits.topk(min(self._decode.candidates, logits.shape[1]))
        class_index, cell = index // cells, index % cells
        task = torch.arange(len(maps), device=maps.device)[:, None]
        # Indexing reads K cells in any memory layout, without a copy of the map.
        pixels = maps[:, :BOX_VALUES].permute(0, 2, 3, 1)
        values = pixels[task, cell // columns, cell % columns].float().transpose(1, 2)
        boxes = boxes_from_values(values, cell, self._grid)  # (B T, 9, K)
        # Maps of a task with fewer classes are padded with NO_CLASS. NO_CLASS / 2 separates the
        # padding from all real logits, also after rounding to half precision.
        usable = self._usable(boxes) & (logits > NO_CLASS / 2)
        scores = torch.where(usable, logits.sigmoid(), NO_BOX)
        labels = self._first_labels.repeat(batch)[:, None] + class_index
        return torch.cat((boxes, scores[:, None], labels[:, None].float()), dim=1)

    def suppress(self, candidates: Tensor, batch: int) -> Tensor:
        """Apply NMS and return the table that ``forward`` describes.

        Args:
            candidates: result of the method ``candidates``.
            batch: number of samples B.
        """
        usable = candidates[:, _SCORE] != NO_BOX
        kept = self._kept(candidates[:, :_SCORE], usable, batch)
        return _chosen(candidates, kept).unflatten(0, (batch, -1)).flatten(1, 2)

    def _kept(self, boxes: Tensor, usable: Tensor, batch: int) -> Tensor:
        """Return the (B T, boxes_per_task) indices of the boxes that NMS keeps."""
        centers, max_boxes = boxes[:, :2].transpose(1, 2), self._decode.boxes_per_task
        if self._factors is None:
            return circle_nms(centers, usable, self._limits.repeat(batch), max_boxes)
        length, width, yaw = boxes[:, 3], boxes[:, 4], boxes[:, 6]
        extents = half_extents(length, width, yaw)
        return size_aware_nms(centers, extents, usable, self._factors.repeat(batch), max_boxes)

    def _usable(self, boxes: Tensor) -> Tensor:
        """Return a (B T, K) mask of boxes that have finite values, a positive size and a center in
        ``ModelConfig.center_range``.
        """
        center, size = boxes[:, :3], boxes[:, 3:6]
        inside = (center >= self._lower) & (center <= self._upper)
        return (inside & (size > 0)).all(dim=1) & boxes.isfinite().all(dim=1)

    def boxes(self, table: np.ndarray, threshold: float) -> ScoredBoxes:
        """Return the boxes of one sample whose scores exceed ``threshold``, best score first.

        Args:
            table: (T * boxes_per_task, 11), the rows that ``forward`` returns for one sample.
            threshold: a score.
        """
        table = table[(table[:, _SCORE] > threshold) & (table[:, _SCORE] != NO_BOX)]
        table = table[np.argsort(-table[:, _SCORE], kind='stable')]
        found = ScoredBoxes(
            Boxes3D(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7:9]),
            table[:, _SCORE],
            table[:, _LABEL].astype(np.int64),
        )
        return found if self._decode.scale_nms is None else self._without_overlaps(found)

    def _without_overlaps(self, boxes: ScoredBoxes) -> ScoredBoxes:
        """Return the boxes that scale NMS keeps. Only boxes of the same task are compared."""
        config = self._decode.scale_nms
        assert config is not None
        factors, tasks = np.array(config.factors)[boxes.labels], self._task_of_label[boxes.labels]
        kept: list[np.ndarray] = []
        for task in np.unique(tasks):
            index = np.flatnonzero(tasks == task)
            kept.append(index[scale_nms(boxes.boxes[index], factors[index], config.max_overlap)])
        return boxes[np.sort(np.concatenate(kept))] if kept else boxes


def boxes_from_values(values: Tensor, cells: Tensor, grid: BEVGrid) -> Tensor:
    """Return boxes (n, 9, k) with the values x y z length width height yaw vx vy.

    Args:
        values: (n, BOX_VALUES, k) values of the head maps at ``cells``.
        cells: (n, k) indices into the flattened grid, y * nx + x.
        grid: the BEV grid.
    """
    columns = grid.shape[0]
    parts = split_box_values(values, dim=1)
    offset_x, offset_y = parts['reg'].unbind(1)
    sine, cosine = parts['rot'].unbind(1)
    x = (cells % columns + offset_x) * grid.cell[0] + grid.lower[0]
    y = (cells // columns + offset_y) * grid.cell[1] + grid.lower[1]
    yaw = torch.atan2(sine, cosine)
    center = (x[:, None], y[:, None], parts['height'])
    return torch.cat((*center, parts['dim'].exp(), yaw[:, None], parts['vel']), dim=1)


def half_extents(length: Tensor, width: Tensor, yaw: Tensor) -> Tensor:
    """Return (..., 2): half of the extent of each rotated box along x and y, in meters."""
    along_x, along_y = yaw.cos().abs(), yaw.sin().abs()
    extents = (length * along_x + width * along_y, length * along_y + width * along_x)
    return torch.stack(extents, dim=-1) / 2


def _chosen(table: Tensor, kept: Tensor) -> Tensor:
    """Select columns of a table, and return them as rows.

    Args:
        table: (n, 11, K).
        kept: (n, m) indices of columns; for -1, the returned row has the score NO_BOX.

    Returns:
        (n, m, 11).
    """
    index = kept.clamp(min=0).long()[:, None].expand(-1, table.shape[1], -1)
    chosen = table.gather(2, index)
    chosen[:, _SCORE].masked_fill_(kept < 0, NO_BOX)
    return chosen.transpose(1, 2)
