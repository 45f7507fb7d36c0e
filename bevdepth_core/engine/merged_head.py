"""The centre head in three convolutions."""

from __future__ import annotations

import torch
from torch import nn

from bevdepth_core.decode import NO_CLASS
from bevdepth_core.engine.convolutions import FusedConv, folded
from bevdepth_core.model.head import CenterHead
from bevdepth_core.types import BOX_VALUES


class MergedHead(nn.Module):
    """All tasks of the center head in three convolutions.

    Tasks have different numbers of classes; maps of classes that a task lacks hold ``NO_CLASS``.
    """

    def __init__(self, head: CenterHead) -> None:
        super().__init__()
        self.shared = FusedConv.folded(*head.shared[:2])
        self.task_count = len(head.tasks)
        self.classes = max(task['heatmap'][1].out_channels for task in head.tasks)
        nets = [net for task in head.tasks for net in task.values()]
        first = [folded(*net[0][:2]) for net in nets]
        self.first = FusedConv(
            nets[0][0][0], *(torch.cat(part) for part in zip(*first, strict=True))
        )
        self.last = self._merged(head.tasks)

    def _merged(self, tasks: nn.ModuleList) -> nn.Conv2d:
        """Return the convolution that makes all maps at once.

        Each map has a net of its own, so that most weights are 0; cuDNN's grouped convolutions
        take eight times as long.
        """
        width = next(iter(tasks[0].values()))[1].in_channels
        channels = BOX_VALUES + self.classes
        last = nn.Conv2d(
            width * sum(len(task) for task in tasks), channels * len(tasks), 3, padding=1
        ).requires_grad_(False)
        last.weight.zero_()
        last.bias.fill_(NO_CLASS)
        net_number = 0
        for number, task in enumerate(tasks):
            first = number * channels
            for net in task.values():
                rows = slice(first, first + net[1].out_channels)
                last.weight[rows, net_number * width : (net_number + 1) * width] = net[1].weight
                last.bias[rows] = net[1].bias
                first, net_number = rows.stop, net_number + 1
        return last

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, tasks, BOX_VALUES + most classes, ny, nx), as ``BoxDecoder`` takes it, from
        (B, in_channels, ny, nx).
        """
        return self.last(self.first(self.shared(features))).unflatten(1, (self.task_count, -1))
