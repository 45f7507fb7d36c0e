"""Tests the progress bar and the remaining time."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.training.progress import ProgressBar, remaining_seconds
from tests.training.runs import run, tiny_config


def test_the_remaining_time_is_computed_from_the_mean_time_of_the_steps_so_far() -> None:
    assert remaining_seconds(6.0, 3, 10) == 20
    assert remaining_seconds(6.0, 3, 0) == 0
    assert remaining_seconds(6.0, 3, -1) == 0
    assert remaining_seconds(6.0, 0, 10) is None


@pytest.mark.parametrize(
    ('step', 'shown'), [(1, True), (10, True), (11, False), (20, True), (25, True)]
)
def test_progress_is_printed_for_the_first_ten_steps_every_tenth_step_and_the_last_step(
    step: int, shown: bool
) -> None:
    assert ProgressBar()._should_update(step, 25) == shown


def test_a_run_prints_the_remaining_time_after_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    run(tiny_config(tmp_path, max_steps=1))
    printed = capsys.readouterr()
    assert 'run_left=00:00' in printed.out + printed.err
