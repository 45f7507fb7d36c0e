"""The center head: computes raw maps from BEV features."""

from __future__ import annotations

import torch
from torch import nn

from bevdepth_core.config import HeadConfig
from bevdepth_core.model.layers import conv_norm_relu
from bevdepth_core.types import BOX_MAPS, TaskMaps


class TaskHead(nn.ModuleDict):
    """One small network per map of a task. The networks have the names of the maps in
    ``TaskMaps``.
    """

    def __init__(self, channels: int, classes: int) -> None:
        maps = {**BOX_MAPS, 'heatmap': classes}
        super().__init__(
            {
                name: nn.Sequential(
                    conv_norm_relu(channels, channels, 3), nn.Conv2d(channels, out, 3, padding=1)
                )
                for name, out in maps.items()
            }
        )

    def forward(self, features: torch.Tensor) -> TaskMaps:
        return TaskMaps(**{name: net(features) for name, net in self.items()})


class CenterHead(nn.Module):
    """Shared convolution, then one ``TaskHead`` per task.

    Args:
        in_channels: channels of the BEV features.
        config: width and tasks.
    """

    def __init__(self, in_channels: int, config: HeadConfig) -> None:
        super().__init__()
        self.shared = conv_norm_relu(in_channels, config.channels, 3)
        self.tasks = nn.ModuleList(
            TaskHead(config.channels, len(task.classes)) for task in config.tasks
        )

    def forward(self, features: torch.Tensor) -> tuple[TaskMaps, ...]:
        """Return one ``TaskMaps`` per task from (B, in_channels, ny, nx) features."""
        shared = self.shared(features)
        return tuple(task(shared) for task in self.tasks)
