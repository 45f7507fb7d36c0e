"""Shows the progress of a run on the terminal."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm

REFRESH_STEPS = 10
"""Number of batches between two updates of the bar. Fewer updates save time, because each update
waits for the GPU. The bar is updated after each of the first ``REFRESH_STEPS`` batches of an
epoch."""


class ProgressBar(TQDMProgressBar):
    """Lightning's progress bar of an epoch. It is updated from the first step on, and also shows
    the expected remaining time of the whole run.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=REFRESH_STEPS)
        self._started_s = 0.0
        self._first_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._started_s, self._first_step = time.monotonic(), trainer.global_step

    def _should_update(self, current: int, total: int) -> bool:
        early = self.is_enabled and current <= REFRESH_STEPS
        return early or super()._should_update(current, total)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop('v_num', None)
        remaining_s = remaining_seconds(
            time.monotonic() - self._started_s,
            trainer.global_step - self._first_step,
            int(trainer.estimated_stepping_batches) - trainer.global_step,
        )
        if remaining_s is None:
            return metrics
        return metrics | {'run_left': tqdm.format_interval(remaining_s)}


def remaining_seconds(elapsed_s: float, done: int, remaining: int) -> float | None:
    """Return the expected time for the remaining steps.

    Args:
        elapsed_s: time that the steps so far took, seconds.
        done: number of steps so far.
        remaining: number of remaining steps; a negative number counts as 0.

    Returns:
        The time in seconds, or None if ``done`` is 0.
    """
    return elapsed_s / done * max(0, remaining) if done else None
