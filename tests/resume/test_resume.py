"""Compares runs that were interrupted and resumed with a run that was not interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bevdepth_core.checkpoint import load_checkpoint
from tests.training.runs import InterruptedRunError, Noise, run, tiny_config

TOLERANCE = 1e-6
SAMPLES_PER_STEP = 2


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp('uninterrupted')
    run(tiny_config(output))
    return output


def read(output: Path) -> dict:
    return torch.load(output / 'last.ckpt', weights_only=True)


def interrupt(output: Path, step: int) -> None:
    """Train until the batch of optimizer step ``step`` (counted from 0) cannot be loaded."""
    with pytest.raises(InterruptedRunError):
        run(tiny_config(output), Noise(interrupt_after=SAMPLES_PER_STEP * step))


def require_equal(ours: Path, theirs: Path) -> None:
    """Fail unless weights, averaged weights, states of optimizer and schedule, and progress of the
    two runs are equal."""
    resumed, expected = read(ours), read(theirs)
    names = (
        'state_dict',
        'current_model_state',
        'averaging_state',
        'optimizer_states',
        'global_step',
        'epoch',
    )
    for name in names:
        torch.testing.assert_close(
            resumed[name],
            expected[name],
            rtol=0,
            atol=TOLERANCE,
            msg=lambda text, name=name: f'{name}: {text}',
        )
    assert resumed['lr_schedulers'] == expected['lr_schedulers']
    assert resumed['loops']['fit_loop'] == expected['loops']['fit_loop']


@pytest.mark.parametrize(
    ('step', 'written'),
    [(4, 3), (5, 5), (7, 6)],
    ids=[
        'between two checkpoints',
        'at the end of an epoch',
        'between two checkpoints of a later epoch',
    ],
)
def test_a_resumed_run_ends_with_the_same_state_as_an_uninterrupted_run(
    tmp_path: Path, uninterrupted: Path, step: int, written: int
) -> None:
    interrupt(tmp_path, step)
    assert read(tmp_path)['global_step'] == written
    source = Noise()
    run(tiny_config(tmp_path), source, resume=True)
    assert len(source.seen) == SAMPLES_PER_STEP * (10 - written)
    require_equal(tmp_path, uninterrupted)
    for name in ('epoch_001', 'epoch_002'):
        torch.testing.assert_close(
            load_checkpoint(tmp_path / f'weights/{name}.safetensors').state_dict(),
            load_checkpoint(uninterrupted / f'weights/{name}.safetensors').state_dict(),
            rtol=0,
            atol=TOLERANCE,
        )


def test_the_checkpoint_stores_weights_and_their_average_separately(uninterrupted: Path) -> None:
    content = read(uninterrupted)
    assert not torch.equal(
        content['state_dict']['model.head.shared.0.weight'],
        content['current_model_state']['model.head.shared.0.weight'],
    )


def test_a_run_with_accumulated_batches_and_without_averaging_is_resumed_exactly(
    tmp_path: Path,
) -> None:
    settings = {'averaging': None, 'accumulate_grad_batches': 2, 'checkpoint_every_n_steps': 2}
    run(tiny_config(tmp_path / 'uninterrupted', **settings))
    with pytest.raises(InterruptedRunError):
        run(
            tiny_config(tmp_path / 'resumed', **settings),
            Noise(interrupt_after=SAMPLES_PER_STEP * 7 + 1),
        )
    run(tiny_config(tmp_path / 'resumed', **settings), resume=True)
    resumed, expected = read(tmp_path / 'resumed'), read(tmp_path / 'uninterrupted')
    assert expected['global_step'] == 6
    torch.testing.assert_close(
        resumed['state_dict'], expected['state_dict'], rtol=0, atol=TOLERANCE
    )


def test_resuming_without_a_checkpoint_starts_a_new_run(tmp_path: Path) -> None:
    source = Noise()
    run(tiny_config(tmp_path, max_steps=1), source, resume=True)
    assert len(source.seen) == SAMPLES_PER_STEP
    assert read(tmp_path)['global_step'] == 1


def test_an_existing_run_is_not_overwritten(tmp_path: Path, uninterrupted: Path) -> None:
    with pytest.raises(FileExistsError, match='--resume true'):
        run(tiny_config(uninterrupted))


def test_resuming_with_another_number_of_samples_is_rejected(tmp_path: Path) -> None:
    run(tiny_config(tmp_path, max_steps=2))
    with pytest.raises(ValueError, match='samples was 10 and is 12'):
        run(tiny_config(tmp_path), Noise(12), resume=True)


def test_a_finished_run_can_be_resumed_with_more_steps(
    tmp_path: Path, uninterrupted: Path
) -> None:
    run(tiny_config(tmp_path, max_steps=4))
    run(tiny_config(tmp_path), resume=True)
    require_equal(tmp_path, uninterrupted)
