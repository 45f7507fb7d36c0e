"""Runs training/demo.py with one training scene and two epochs."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.reference import ROOT

EPOCHS = 2


@pytest.fixture(scope='module')
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('train_demo')


def start(out: Path) -> subprocess.Popen[str]:
    words = ['--out', str(out), '--epochs', str(EPOCHS), '--scenes', '1']
    return subprocess.Popen(
        [sys.executable, 'training/demo.py', *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_prints_a_decreasing_loss_resumes_a_killed_run_and_prints_scores(out: Path):
    demo = start(out)
    text, errors = demo.communicate()
    assert (demo.returncode, errors) == (0, ''), text + errors
    assert 'generating 1 training scenes' in text
    assert 'killed the run with SIGKILL after' in text
    repeated = re.search(r'(\d+) steps were repeated, .* by at most (\S+)', text)
    assert int(repeated[1]) > 0 and float(repeated[2]) < 1e-5, text
    first, last = text.split('] loss ')[1].split(' in the first tenth of the steps, ')
    assert float(last.split()[0]) < float(first)
    assert 'scores near 0 are normal after 16 steps' in text
    assert 'mAP' in text and (out / 'loss.png').exists()


def test_after_ctrl_c_a_second_demo_uses_the_data_and_continues_the_training(out: Path):
    demo = start(out)
    lines = [demo.stdout.readline() for _ in range(2)]
    assert 'using the data of an earlier run' in lines[0] and 'training 16 steps' in lines[1]
    run = out / f'run_1_scenes_{EPOCHS}_epochs'
    while not (run / 'last.ckpt').exists():
        assert demo.poll() is None
        time.sleep(0.1)
    demo.send_signal(signal.SIGINT)
    text, errors = demo.communicate()
    assert demo.returncode == 130
    assert errors == 'train-demo: interrupted; the same command continues the training\n'
    resumed = start(out)
    text, errors = resumed.communicate()
    assert (resumed.returncode, errors) == (0, ''), text + errors
    assert 'continuing the training that was interrupted' in text and 'mAP' in text
