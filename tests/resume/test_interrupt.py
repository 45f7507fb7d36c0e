"""Interrupts training with Ctrl-C (SIGINT) and SIGTERM."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback

from bevdepth_core.training.checkpoints import ResumeCheckpoint
from bevdepth_core.training.interrupt import RunInterruptedError, StopOnInterrupt
from tests.training.runs import Noise, run, tiny_config


class Interrupt(Callback):
    """Sends signals to this process at the start of batch number ``batch``, counted from 0 over
    all epochs."""

    def __init__(self, batch: int, *numbers: int) -> None:
        self._left, self._numbers = batch, numbers or (signal.SIGINT,)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if self._left == 0:
            for number in self._numbers:
                self._send(number)
        self._left -= 1

    def _send(self, number: int) -> None:
        os.kill(os.getpid(), number)


class InterruptAll(Interrupt):
    """Sends the signals to this process and to its loader processes. A separate process sends the
    signals, as a scheduler does, because PyTorch's loader processes end without an error if their
    parent sends SIGTERM.
    """

    def _send(self, number: int) -> None:
        processes = [*multiprocessing.active_children(), multiprocessing.current_process()]
        command = ['kill', f'-{int(number)}', *(str(process.pid) for process in processes)]
        subprocess.run(command, check=True)


def state(output: Path) -> dict:
    return torch.load(output / 'last.ckpt', weights_only=True)


@pytest.mark.parametrize(
    ('batch', 'step', 'number', 'text'),
    [
        (1, 2, signal.SIGINT, 'interrupted'),
        (4, 5, signal.SIGINT, 'interrupted'),
        (1, 2, signal.SIGTERM, 'terminated'),
    ],
)
def test_an_interrupted_step_is_finished_and_a_resumed_run_equals_an_uninterrupted_run(
    tmp_path: Path, batch: int, step: int, number: int, text: str
) -> None:
    run(tiny_config(tmp_path / 'uninterrupted'))
    interrupted = tmp_path / 'interrupted'
    expected = rf'{text} after step {step}; wrote .*last\.ckpt'
    with pytest.raises(RunInterruptedError, match=expected) as stopped:
        run(tiny_config(interrupted), watchers=[Interrupt(batch, number)])
    assert stopped.value.status == 128 + number
    assert state(interrupted)['global_step'] == step
    run(tiny_config(interrupted), resume=True)
    resumed, uninterrupted = (state(tmp_path / name) for name in ('interrupted', 'uninterrupted'))
    torch.testing.assert_close(
        resumed['state_dict'], uninterrupted['state_dict'], rtol=0, atol=1e-6
    )


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_after_an_interrupt_during_gradient_accumulation_the_step_is_finished(
    tmp_path: Path, number: int
) -> None:
    source = Noise()
    with pytest.raises(RunInterruptedError, match='after step 1'):
        run(
            tiny_config(tmp_path, accumulate_grad_batches=3),
            source,
            watchers=[Interrupt(0, number)],
        )
    assert state(tmp_path)['global_step'] == 1


def test_a_second_ctrl_c_stops_training_immediately_without_a_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RunInterruptedError, match='stopped immediately'):
        run(tiny_config(tmp_path), watchers=[Interrupt(1, signal.SIGINT, signal.SIGINT)])
    assert not (tmp_path / 'last.ckpt').exists()


def test_a_checkpoint_is_written_if_training_and_loader_processes_receive_sigterm_twice(
    tmp_path: Path,
) -> None:
    config = tiny_config(tmp_path)
    config = replace(config, data=replace(config.data, workers=1))
    with pytest.raises(RunInterruptedError, match='terminated after step 2; wrote'):
        run(config, watchers=[InterruptAll(1, signal.SIGTERM, signal.SIGTERM)])
    assert state(tmp_path)['global_step'] == 2


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_before_the_first_step_stops_training_immediately(
    tmp_path: Path, number: int
) -> None:
    stop = StopOnInterrupt(ResumeCheckpoint(tmp_path / 'last.ckpt', 3))
    before = signal.getsignal(number)
    with (
        pytest.raises(RunInterruptedError, match='before the first step'),
        stop.handling_signals(),
    ):
        signal.raise_signal(number)
    assert signal.getsignal(number) is before
