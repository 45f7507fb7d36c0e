"""Tests the figure that shows the losses of a run."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from bevdepth_core.training.plot import main, read_parts, repeated_steps

HEADER = 'loss/box,loss/depth,loss/heatmap,loss/total,step'


@pytest.fixture
def run_in_two_parts(tmp_path: Path) -> Path:
    """Return the folder of a run that was killed after step 6 and then resumed from step 4.

    Steps 4 to 6 are logged twice. The two losses of step 5 differ by 0.1 %.
    """
    for version, steps in ((0, range(7)), (1, range(4, 10))):
        folder = tmp_path / f'csv/version_{version}'
        folder.mkdir(parents=True)
        rows = [
            f'1,2,3,{50 / (step + 1) * (1.001 if (version, step) == (1, 5) else 1)},{step}\n'
            f',,,,{step}'
            for step in steps
        ]
        (folder / 'metrics.csv').write_text('\n'.join([HEADER, *rows]) + '\n')
    return tmp_path


def test_the_logs_before_and_after_a_resume_are_read_in_order(run_in_two_parts: Path) -> None:
    assert [part['step'].tolist() for part in read_parts(run_in_two_parts)] == [
        [0, 1, 2, 3, 4, 5, 6],
        [4, 5, 6, 7, 8, 9],
    ]


def test_the_losses_of_steps_that_ran_twice_are_compared(run_in_two_parts: Path) -> None:
    count, difference = repeated_steps(read_parts(run_in_two_parts))
    assert count == 3
    assert difference == pytest.approx(1e-3, rel=1e-6)


def test_the_figure_shows_the_two_parts_of_a_run_in_different_colors(
    run_in_two_parts: Path,
) -> None:
    main([str(run_in_two_parts), str(run_in_two_parts / 'loss.png')])
    pixels = cv2.imread(str(run_in_two_parts / 'loss.png')).reshape(-1, 3).astype(int)
    blue, orange = (
        (np.abs(pixels - color).max(axis=1) < 60).sum()
        for color in ((180, 119, 31), (14, 127, 255))
    )
    assert min(blue, orange) > 100


def test_a_folder_without_a_run_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / 'loss.png')])
    assert 'give the output folder of a run' in capsys.readouterr().err


def test_a_run_without_a_logged_loss_is_rejected_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / 'csv/version_0').mkdir(parents=True)
    (tmp_path / 'csv/version_0/metrics.csv').write_text('lr-AdamW,step\n0.1,0\n')
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / 'loss.png')])
    assert 'has logged no loss yet' in capsys.readouterr().err
    assert not (tmp_path / 'loss.png').exists()


def test_a_part_without_a_logged_loss_is_ignored(run_in_two_parts: Path) -> None:
    (run_in_two_parts / 'csv/version_2').mkdir()
    (run_in_two_parts / 'csv/version_2/metrics.csv').write_text(HEADER + '\n')
    assert len(read_parts(run_in_two_parts)) == 2
    main([str(run_in_two_parts), str(run_in_two_parts / 'loss.png')])
    assert (run_in_two_parts / 'loss.png').is_file()
