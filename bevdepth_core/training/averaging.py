"""Exponential moving average of the weights during training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from bevdepth_core.training.command_line import require_at_least


@dataclass(frozen=True)
class AveragingSettings:
    """Settings of the moving average.

    Attributes:
        decay: share of the old average that an update keeps, after the ramp.
        ramp_updates: time constant of the ramp ``decay * (1 - exp(-update / ramp_updates))``; 0
            for no ramp. The official code has a time constant of 2000, but starts ``update`` at
            the number of updates of the whole training. The official decay is therefore 0.9990
            from the first update on, as with ``ramp_updates`` 0.
    """

    decay: float = 0.999
    ramp_updates: float = 0

    def __post_init__(self) -> None:
        require_at_least('trainer.averaging', self, decay=0, ramp_updates=0)
        if self.decay >= 1:
            raise ValueError(f'trainer.averaging.decay must be below 1, got {self.decay:g}')

    def at(self, update: int | Tensor) -> float:
        """Return the decay in update number ``update``; the first update has number 1.

        Without a ramp, ``update`` is not read, because reading a tensor would wait for the GPU.
        """
        return (
            self.decay * (1 - math.exp(-int(update) / self.ramp_updates))
            if self.ramp_updates
            else self.decay
        )


class ExponentialAverage(WeightAveraging):
    """Averages every floating-point entry of the state dict after each step, starting with the
    initial weights.

    Checkpoints contain the average as ``state_dict``, and also the current weights, so that a run
    can be resumed. In validation and after training, the module contains the average.

    Args:
        settings: decay and ramp.
    """

    def __init__(self, settings: AveragingSettings) -> None:
        super().__init__(multi_avg_fn=self._update)
        self.settings = settings

    @property
    def averaged(self) -> nn.Module:
        """The averaged module."""
        return self._averaged_model().module

    def _averaged_model(self) -> AveragedModel:
        if self._average_model is None:
            raise RuntimeError('there is no average before training has been set up')
        return self._average_model

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == 'fit':
            # Lightning calls setup before it moves the module to the GPU, and does not move the
            # average.
            self.averaged.to(trainer.strategy.root_device)
            # In update 0, PyTorch would replace the average by the current weights. In the
            # official code, the average also contains the initial weights.
            self._averaged_model().n_averaged.fill_(1)

    def _update(self, average: list[Tensor], current: list[Tensor], update: Tensor) -> None:
        """Update the average of tensors of one type. Integers, which are the counters of batch
        norms, are copied.
        """
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - self.settings.at(update))
        else:
            torch._foreach_copy_(average, current)
