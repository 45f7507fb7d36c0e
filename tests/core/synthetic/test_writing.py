"""The writer of synthetic datasets: the same plan gives the same bytes, and an interrupted run
leaves no dataset."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest

from bevdepth_core.synthetic import __main__ as command
from bevdepth_core.synthetic.dataset.writing import SPLITS, write_dataset
from tests.core.synthetic.drives import PLAN, digests
from tests.imports import ROOT

TIMEOUT_S = 120.0


def test_one_process_and_two_processes_write_the_same_dataset(drives_root, tmp_path):
    copy = shutil.copytree(drives_root, tmp_path / 'drives')
    (copy / 'maps' / 'left_over.png').write_text('from the old dataset')
    write_dataset(copy, PLAN, jobs=1, force=True)
    assert digests(copy) == digests(drives_root)
    assert [path.name for path in tmp_path.iterdir()] == ['drives']


def test_a_larger_plan_keeps_the_existing_scenes_and_no_world_is_in_both_splits():
    few, many = PLAN.drives(), replace(PLAN, train_scenes=50, val_scenes=20).drives()
    for split in SPLITS:
        assert many[split][: len(few[split])] == few[split]
    drives = [drive for split in SPLITS for drive in many[split]]
    assert len({drive.seed for drive in drives}) == len({drive.name for drive in drives}) == 70
    assert replace(PLAN, seed=1).drives()[SPLITS[0]][0].seed not in {
        drive.seed for drive in drives
    }


@pytest.mark.parametrize('force', [[], ['--force']])
def test_existing_files_are_not_overwritten(drives_root, tmp_path, force):
    taken = tmp_path / 'photos'
    taken.mkdir()
    (taken / 'holiday.jpg').write_text('mine')
    with pytest.raises(SystemExit, match='photos exists and was not written by this program'):
        command.main([str(taken), *force])
    assert (taken / 'holiday.jpg').read_text() == 'mine'
    before = digests(drives_root)
    with pytest.raises(SystemExit, match='--force'):
        command.main([str(drives_root)])
    assert digests(drives_root) == before


def test_invalid_options_are_rejected_with_the_reason(tmp_path):
    with pytest.raises(SystemExit, match='at least one scene is needed'):
        command.main([str(tmp_path / 'drives'), '--train-scenes', '0', '--val-scenes', '0'])
    with pytest.raises(SystemExit, match='at least 2 beams'):
        command.main([str(tmp_path / 'drives'), '--duration', '0.1'])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('number', 'left'), [(signal.SIGTERM, []), (signal.SIGKILL, ['drives.part'])]
)
def test_an_interrupted_run_leaves_no_dataset_and_no_process(tmp_path, number, left):
    options = [
        '--train-scenes',
        '50',
        '--image-size',
        '160x90',
        '--lidar-beams',
        '8',
        '--jobs',
        '2',
    ]
    line = [sys.executable, '-m', 'bevdepth_core.synthetic', str(tmp_path / 'drives'), *options]
    with subprocess.Popen(
        line, cwd=ROOT, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        while not list(tmp_path.glob('drives.part/samples/CAM_BACK/*.jpg')):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(timeout=TIMEOUT_S) != 0
    deadline = time.monotonic() + TIMEOUT_S
    while group_exists(process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert [path.name for path in tmp_path.iterdir()] == left


def group_exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
