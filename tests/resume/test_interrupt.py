"""Ctrl-C during training."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from bevdepth_core.training.checkpoints import ResumeCheckpoint
from bevdepth_core.training.interrupt import RunInterruptedError, StopOnInterrupt
from tests.training.runs import Noise, run, tiny_config


class Interrupt(Callback):
    """Sends Ctrl-C at the start of a batch, counted over all epochs."""

    def __init__(self, batch: int, times: int = 1) -> None:
        self._left, self._times = batch, times

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self._left == 0:
            for _ in range(self._times):
                os.kill(os.getpid(), signal.SIGINT)
        self._left -= 1


def state(output: Path) -> dict:
    return torch.load(output / 'last.ckpt', weights_only=True)


@pytest.mark.parametrize(('batch', 'step'), [(1, 2), (4, 5)])
def test_the_step_is_finished_and_the_resumed_run_ends_like_an_uninterrupted_one(
    tmp_path: Path, batch: int, step: int
) -> None:
    run(tiny_config(tmp_path / 'uninterrupted'))
    interrupted = tmp_path / 'interrupted'
    with pytest.raises(RunInterruptedError, match=f'after step {step}; wrote .*last.ckpt'):
        run(tiny_config(interrupted), watchers=[Interrupt(batch)])
    assert state(interrupted)['global_step'] == step
    run(tiny_config(interrupted), resume=True)
    resumed, uninterrupted = (state(tmp_path / name) for name in ('interrupted', 'uninterrupted'))
    torch.testing.assert_close(
        resumed['state_dict'], uninterrupted['state_dict'], rtol=0, atol=1e-6
    )


def test_accumulated_batches_are_finished_first(tmp_path: Path) -> None:
    source = Noise()
    with pytest.raises(RunInterruptedError, match='after step 1'):
        run(
            tiny_config(tmp_path, accumulate_grad_batches=3),
            source,
            watchers=[Interrupt(0)],
        )
    assert state(tmp_path)['global_step'] == 1


def test_a_second_interrupt_stops_at_once_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunInterruptedError, match='stopped at once'):
        run(tiny_config(tmp_path), watchers=[Interrupt(1, times=2)])
    assert not (tmp_path / 'last.ckpt').exists()


def test_an_interrupt_before_the_first_step_stops_at_once(tmp_path: Path) -> None:
    stop = StopOnInterrupt(ResumeCheckpoint(tmp_path / 'last.ckpt', 3))
    before = signal.getsignal(signal.SIGINT)
    with (
        pytest.raises(RunInterruptedError, match='before the first step'),
        stop.handling_signals(),
    ):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before
