"""Head maps to boxes on the device, always the same number of them, so that no size has to be
asked for.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bevdepth_core.config import ModelConfig
from bevdepth_core.decode import ScoredBoxes, boxes_from_values
from bevdepth_core.engine.merged_head import BOX_VALUES
from bevdepth_core.ops.circle_suppression import suppress_circles
from bevdepth_core.types import Boxes3D

NO_BOX = -1.0
"""Score of a place without a box."""


class BoxDecoder(nn.Module):
    """What ``decode`` does before the score threshold, as a table of tasks x boxes_per_task lines.

    Boxes under the threshold suppress none above it, so that it can be applied to the table.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self._grid, self._decode = config.grid, config.decode
        lower, upper = torch.tensor(config.decode.center_range).view(2, 3, 1)
        first_labels = np.cumsum([0, *(len(task.classes) for task in config.head.tasks[:-1])])
        self.register_buffer('_lower', lower)
        self.register_buffer('_upper', upper)
        self.register_buffer(
            '_limits', torch.tensor([task.nms_distance_squared for task in config.head.tasks])
        )
        self.register_buffer('_first_labels', torch.tensor(first_labels)[:, None])

    def forward(self, maps: Tensor) -> Tensor:
        """Return (T * boxes_per_task, 11) float32: x y z length width height yaw vx vy, score,
        label.

        Args:
            maps: (T, BOX_VALUES + classes, ny, nx), the output of ``MergedHead``.
        """
        tasks, cells = len(maps), maps.shape[2] * maps.shape[3]
        logits = maps[:, BOX_VALUES:].float().flatten(1)
        logits, index = logits.topk(min(self._decode.candidates, logits.shape[1]))  # (T, K)
        cell = index % cells
        rows = maps.permute(0, 2, 3, 1).flatten(1, 2)[..., :BOX_VALUES]
        values = rows.gather(1, cell[..., None].expand(-1, -1, BOX_VALUES)).float().transpose(1, 2)
        boxes = boxes_from_values(values, cell, self._grid)  # (T, 9, K)
        kept = suppress_circles(
            boxes[:, :2].transpose(1, 2),
            self._usable(boxes),
            self._limits,
            self._decode.boxes_per_task,
        )
        labels = self._first_labels + index // cells
        table = torch.cat((boxes, logits.sigmoid()[:, None], labels[:, None].float()), dim=1)
        table = table.gather(2, kept.clamp(min=0).long()[:, None].expand(-1, table.shape[1], -1))
        table[:, 9].masked_fill_(kept < 0, NO_BOX)
        return table.transpose(1, 2).reshape(tasks * kept.shape[1], -1)

    def _usable(self, boxes: Tensor) -> Tensor:
        """Return (T, K): whether a box is finite, has a size and lies in range."""
        center, size = boxes[:, :3], boxes[:, 3:6]
        inside = (center >= self._lower) & (center <= self._upper)
        return (inside & (size > 0)).all(dim=1) & boxes.isfinite().all(dim=1)


def boxes_above(table: np.ndarray, score: float) -> ScoredBoxes:
    """Return the boxes of ``BoxDecoder``'s table that score more than ``score``, best first."""
    table = table[(table[:, 9] > score) & (table[:, 9] != NO_BOX)]
    table = table[np.argsort(-table[:, 9], kind='stable')]
    return ScoredBoxes(
        Boxes3D(table[:, :3], table[:, 3:6], table[:, 6], table[:, 7:9]),
        table[:, 9],
        table[:, 10].astype(np.int64),
    )
