"""The center head with all tasks merged into three convolutions."""

from __future__ import annotations

import torch
from torch import nn

from bevdepth_core.decode import NO_CLASS
from bevdepth_core.engine.convolutions import FusedConv, fold_batch_norm, require_type
from bevdepth_core.model.head import CenterHead, TaskHead
from bevdepth_core.types import BOX_VALUES


class MergedHead(nn.Module):
    """All tasks of the center head in three convolutions.

    Tasks have different numbers of classes, but every task gets the same number of heatmaps. The
    heatmaps of classes that a task does not have contain ``NO_CLASS``.
    """

    def __init__(self, head: CenterHead) -> None:
        super().__init__()
        self.shared = FusedConv.from_conv_norm(head.shared[0], head.shared[1])
        tasks = [list(require_type(task, TaskHead).values()) for task in head.tasks]
        self.task_count = len(tasks)
        nets = [require_type(net, nn.Sequential) for task in tasks for net in task]
        first = [require_type(net[0], nn.Sequential) for net in nets]
        last = [require_type(net[1], nn.Conv2d) for net in nets]
        self.first = _joined(first)
        self.last = _merged(last, self.task_count)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the head maps (B, tasks, BOX_VALUES + classes, ny, nx) for ``BoxDecoder`` from
        features (B, in_channels, ny, nx); ``classes`` is the largest number of classes of a
        task.
        """
        return self.last(self.first(self.shared(features))).unflatten(1, (self.task_count, -1))


def _joined(layers: list[nn.Sequential]) -> FusedConv:
    """Return one convolution whose output channels are the output channels of all ``layers``, in
    this order. The layers must have the same input.
    """
    convs = [require_type(layer[0], nn.Conv2d) for layer in layers]
    weights, biases = zip(
        *(
            fold_batch_norm(conv, require_type(layer[1], nn.BatchNorm2d))
            for conv, layer in zip(convs, layers, strict=True)
        ),
        strict=True,
    )
    return FusedConv(convs[0], torch.cat(weights), torch.cat(biases))


def _merged(convs: list[nn.Conv2d], tasks: int) -> nn.Conv2d:
    """Return one convolution that computes all maps of all tasks. Each of ``convs`` uses only its
    own part of the input channels.

    The weights of all other input channels are 0. A grouped convolution would not need these
    weights, but grouped convolutions of cuDNN take eight times as long.
    """
    nets = len(convs) // tasks
    classes = max(conv.out_channels for conv in convs[nets - 1 :: nets])  # heatmaps come last
    channels, width = BOX_VALUES + classes, convs[0].in_channels
    merged = nn.Conv2d(width * len(convs), channels * tasks, 3, padding=1).requires_grad_(False)
    assert merged.bias is not None
    merged.weight.zero_()
    merged.bias.fill_(NO_CLASS)
    for task in range(tasks):
        start = task * channels
        for index in range(task * nets, (task + 1) * nets):
            conv = convs[index]
            assert conv.bias is not None
            outputs = slice(start, start + conv.out_channels)
            merged.weight[outputs, index * width : (index + 1) * width] = conv.weight
            merged.bias[outputs] = conv.bias
            start = outputs.stop
    return merged
