"""Training losses: heatmap focal, box L1, depth BCE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, distributed
from torch.nn import functional as F

from bevdepth_core.training.targets import NO_DEPTH, TaskTargets
from bevdepth_core.types import ModelOutputs, TaskMaps

BOX_WEIGHT = 0.25
DEPTH_WEIGHT = 3.0
_HEATMAP_CLAMP = 1e-4
_LOG_EPSILON = 1e-12
_MIN_BOX_COUNT = 1e-4
_COUNT_EPSILON = torch.finfo(torch.float32).eps


@dataclass(frozen=True)
class Losses:
    """Weighted losses of a batch.

    Attributes:
        heatmap: (tasks,) float32, heatmap loss of each head task.
        box: (tasks,) float32, box loss of each head task.
        depth: scalar float32, depth loss.
    """

    heatmap: Tensor
    box: Tensor
    depth: Tensor

    @property
    def detection(self) -> Tensor:
        return self.heatmap.sum() + self.box.sum()

    @property
    def total(self) -> Tensor:
        return self.detection + self.depth

    def named(self) -> dict[str, Tensor]:
        """Return the losses by name as detached scalars, for the log."""
        parts = {
            'total': self.total,
            'heatmap': self.heatmap.sum(),
            'box': self.box.sum(),
            'depth': self.depth,
        }
        return {name: value.detach() for name, value in parts.items()}


def criterion(
    outputs: ModelOutputs,
    tasks: Sequence[TaskTargets],
    depth_bins: Tensor,
    code_weights: Sequence[float],
) -> Losses:
    """Return the losses of a batch, computed in float32 even if autocast is active.

    Boxes are weighted by their score. The heatmap loss is divided by the number of cells with a
    box, the box loss by the number of boxes (both weighted by score), and the depth loss by the
    number of pixels with depth. These counts are averaged over all GPUs. Several GPUs therefore
    compute the same gradient as a single GPU with all samples. The official code does not
    average the number of pixels with depth.

    Args:
        outputs: outputs of the network.
        tasks: targets of each head task.
        depth_bins: (B, N, h, w) int64, true depth bin of each feature pixel of the key frame;
            ``NO_DEPTH`` where the depth is unknown.
        code_weights: weight of each of the ten numbers in ``TaskTargets.box``.
    """
    with torch.autocast(outputs.depth.device.type, enabled=False):
        weights = [targets.center_weights() for targets in tasks]
        centers = [weight.sum() for weight in weights]
        boxes = [targets.score.sum() for targets in tasks]
        pixels = (depth_bins != NO_DEPTH).sum()
        counts = _mean_over_ranks(
            torch.stack([count.float() for count in (*centers, *boxes, pixels)])
        )
        center_counts, box_counts = counts[:-1].view(2, -1)
        pairs = list(zip(outputs.tasks, tasks, strict=True))
        heatmap = torch.stack(
            [
                heatmap_loss(maps.heatmap, each.heatmap, weight)
                for (maps, each), weight in zip(pairs, weights, strict=True)
            ]
        )
        box = torch.stack([box_loss(maps, each, code_weights) for maps, each in pairs])
        return Losses(
            heatmap / (center_counts.clamp(min=1) + _COUNT_EPSILON),
            BOX_WEIGHT * box / (box_counts.clamp(min=_MIN_BOX_COUNT) + _COUNT_EPSILON),
            DEPTH_WEIGHT * depth_loss(outputs.depth, depth_bins) / counts[-1].clamp(min=1),
        )


def depth_criterion(depth: Tensor, depth_bins: Tensor) -> Losses:
    """Return the depth loss of ``criterion``; the other losses are 0."""
    with torch.autocast(depth.device.type, enabled=False):
        count = _mean_over_ranks((depth_bins != NO_DEPTH).sum().float())
        none = depth.new_zeros(1, dtype=torch.float32)
        return Losses(
            none, none, DEPTH_WEIGHT * depth_loss(depth, depth_bins) / count.clamp(min=1)
        )


def _mean_over_ranks(counts: Tensor) -> Tensor:
    if distributed.is_available() and distributed.is_initialized():
        distributed.all_reduce(counts)
        counts /= distributed.get_world_size()
    return counts


def heatmap_loss(logits: Tensor, target: Tensor, center_weights: Tensor) -> Tensor:
    """Return the Gaussian focal loss (alpha 2, gamma 4) summed over (B, classes, ny, nx).

    Args:
        logits: logits of the network.
        target: in [0, 1], 1 at the centers of boxes.
        center_weights: weight of each box at its center, 0 elsewhere.
    """
    score = logits.float().sigmoid().clamp(_HEATMAP_CLAMP, 1 - _HEATMAP_CLAMP)
    positive = -(score + _LOG_EPSILON).log() * (1 - score) ** 2 * center_weights
    negative = -(1 - score + _LOG_EPSILON).log() * score**2 * (1 - target) ** 4
    return (positive + negative).sum()


def box_loss(maps: TaskMaps, targets: TaskTargets, code_weights: Sequence[float]) -> Tensor:
    """Return the weighted sum of the absolute differences between predicted and true box numbers,
    over all boxes and their ten numbers. The weight is the score of the box times the entry of
    ``code_weights`` for the number.
    """
    values = maps.box_values().float()
    predicted = values[targets.sample, :, targets.cell[:, 1], targets.cell[:, 0]]  # (P, 10)
    distance = (predicted - targets.box).abs()
    weights = targets.score[:, None] * distance.new_tensor(code_weights)
    return (distance * weights).sum()


def depth_loss(depth: Tensor, bins: Tensor) -> Tensor:
    """Return the binary cross entropy between the depth distributions and the true bins, summed
    over all bins of the pixels whose depth is known.

    Args:
        depth: (B, N, D, h, w) in [0, 1].
        bins: (B, N, h, w) int64, true depth bins; ``NO_DEPTH`` where the depth is unknown.
    """
    has_depth = (bins != NO_DEPTH).unsqueeze(2)
    one_hot = torch.zeros_like(depth, dtype=torch.float32).scatter_(
        2, bins.clamp(min=0).unsqueeze(2), 1.0
    )
    return F.binary_cross_entropy(
        depth.float(), one_hot, weight=has_depth.float().expand_as(depth), reduction='sum'
    )
