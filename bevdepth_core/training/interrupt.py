"""Handles Ctrl-C during training: the step ends, a checkpoint is written, and the run stops.

| state | entered by | Ctrl-C | left by |
| --- | --- | --- | --- |
| starting | entering the context | stops at once, nothing to save | the start of training |
| training | the start of training | stopping | the end of training |
| stopping | the first Ctrl-C | stops at once, unsaved | the end of the step, with a checkpoint |
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from bevdepth_core.training.checkpoints import ResumeCheckpoint

SYNC_BATCHES = 10
"""Number of batches between two checks whether any process was interrupted."""


class RunInterruptedError(Exception):
    """The user stopped the run; the message says what was saved."""


class StopOnInterrupt(Checkpoint):
    """Callback that stops a run after Ctrl-C; see the table of states above.

    Args:
        checkpoint: writes the checkpoint; this callback runs earlier.
    """

    def __init__(self, checkpoint: ResumeCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._training = self._stopping = False

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle SIGINT while the ``with`` block runs. Python allows that in the main thread only;
        in other threads, this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGINT, self._on_signal)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._training:
            raise RunInterruptedError('interrupted before the first step: nothing was saved')
        if self._stopping:
            raise RunInterruptedError('stopped at once: steps since the last checkpoint are lost')
        self._stopping = True
        rank_zero_info(
            '\nInterrupted: the run writes a checkpoint after this step, or after the validation '
            'in progress. Press Ctrl-C again to stop at once, without a checkpoint.'
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._training = True

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step_is_complete = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if step_is_complete and not trainer.is_last_batch and self._must_stop(trainer, batch_idx):
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._must_stop(trainer, 0):
            self._stop(trainer)

    def _must_stop(self, trainer: Trainer, batch_idx: int) -> bool:
        """Return True if any process was interrupted; all processes return the same."""
        if trainer.world_size == 1:
            return self._stopping
        if batch_idx % SYNC_BATCHES:
            return False
        return trainer.strategy.reduce_boolean_decision(self._stopping, all=False)

    def _stop(self, trainer: Trainer) -> None:
        self._checkpoint.write(trainer)
        raise RunInterruptedError(
            f'interrupted after step {trainer.global_step}; wrote {self._checkpoint.path}'
        )
