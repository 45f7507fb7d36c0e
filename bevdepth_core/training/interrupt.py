"""Handles Ctrl-C and SIGTERM during training: the step ends, a checkpoint is written, and the run
stops.

| state | entered by | Ctrl-C | SIGTERM | left by |
| --- | --- | --- | --- | --- |
| starting | entering the context | stops immediately, unsaved | as Ctrl-C | start of training |
| training | start of training | enters "stopping" | as Ctrl-C | end of training |
| stopping | first signal | stops immediately, unsaved | is ignored | end of the step |

A second SIGTERM is ignored, because some schedulers send SIGTERM several times. To end a run
without waiting for the step, a scheduler sends SIGKILL.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities import rank_zero_info

from bevdepth_core.training.checkpoints import ResumeCheckpoint

SYNC_BATCHES = 10
"""Number of batches between two checks whether any process was interrupted."""
_NAMES: dict[int, str] = {signal.SIGINT: 'interrupted', signal.SIGTERM: 'terminated'}
"""Effect of each signal on a run, for messages."""


class RunInterruptedError(Exception):
    """A signal stopped the run; the message says what was saved.

    Attributes:
        status: exit status of the program, as in a shell: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.status = 128 + number


class StopOnInterrupt(Checkpoint):
    """Callback that stops a run after Ctrl-C or SIGTERM; see the table of states above.

    Args:
        checkpoint: callback that writes the checkpoint; it runs before this callback.
    """

    def __init__(self, checkpoint: ResumeCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._training = False
        self._received = 0

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Handle SIGINT and SIGTERM while the ``with`` block runs. Python allows this in the main
        thread only. In other threads, no signal is handled.
        """
        if not _is_main_thread():
            yield
            return
        previous = {number: signal.signal(number, self._on_signal) for number in _NAMES}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        name = _NAMES[number]
        if not self._training:
            raise RunInterruptedError(
                f'the run was {name} before the first step: nothing was saved', number
            )
        if self._received and number == signal.SIGINT:
            raise RunInterruptedError(
                'stopped immediately: steps since the last checkpoint are lost', number
            )
        if self._received:
            return
        self._received = number
        rank_zero_info(
            f'\n{name.capitalize()}: the run writes a checkpoint after this step, or after the '
            'validation in progress. Press Ctrl-C to stop immediately, without a checkpoint.'
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # This replaces Lightning's handler of SIGTERM, which would end the run at the end of the
        # batch, without a checkpoint. With several processes, that handler would also block until
        # every process has received SIGTERM.
        if _is_main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
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
        if step_is_complete and not trainer.is_last_batch:
            self._stop_if_received(trainer, batch_idx)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop_if_received(trainer, 0)

    def _stop_if_received(self, trainer: Trainer, batch_idx: int) -> None:
        """Write the checkpoint and stop if any process received a signal."""
        number = self._received_by_any(trainer, batch_idx)
        if number:
            self._checkpoint.write(trainer)
            raise RunInterruptedError(
                f'{_NAMES[number]} after step {trainer.global_step}; wrote '
                f'{self._checkpoint.path}',
                number,
            )

    def _received_by_any(self, trainer: Trainer, batch_idx: int) -> int:
        """Return the number of a signal that at least one process received, or 0. All processes
        return the same number. With several processes, only every ``SYNC_BATCHES``-th batch is
        checked; for all other batches, the result is 0.
        """
        if trainer.world_size == 1:
            return self._received
        if batch_idx % SYNC_BATCHES:
            return 0
        received = torch.tensor(self._received, device=trainer.strategy.root_device)
        return int(trainer.strategy.reduce(received, reduce_op='max'))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
