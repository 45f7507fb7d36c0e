"""Shows the progress of a run on the terminal."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm

REFRESH_STEPS = 10
"""Steps between two updates of the bar; each update waits for the GPU. The first steps update it
every time."""


class ProgressBar(TQDMProgressBar):
    """Lightning's bar of an epoch, from the first step on, with the remaining time of the run."""

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
        left_s = remaining_seconds(
            time.monotonic() - self._started_s,
            trainer.global_step - self._first_step,
            int(trainer.estimated_stepping_batches) - trainer.global_step,
        )
        return metrics | ({} if left_s is None else {'run_left': tqdm.format_interval(left_s)})


def remaining_seconds(elapsed_s: float, done: int, left: int) -> float | None:
    """Return the expected time for ``left`` steps if ``done`` steps took ``elapsed_s``; None
    before the first step.
    """
    return elapsed_s / done * max(0, left) if done else None
