"""The demo of training, with one scene and few steps."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.reference import ROOT

STEPS = 12


@pytest.fixture(scope='module')
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp('train_demo')


def start(out: Path) -> subprocess.Popen[str]:
    words = ['--out', str(out), '--steps', str(STEPS), '--scenes', '1']
    return subprocess.Popen(
        [sys.executable, 'training/demo.py', *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_demo_shows_a_falling_loss_a_resumed_run_and_scores(out: Path):
    demo = start(out)
    text, errors = demo.communicate()
    assert (demo.returncode, errors) == (0, ''), text + errors
    assert 'generating 1 training scenes' in text
    assert 'killed the run with SIGKILL after' in text
    assert 'resumed before step' in text and 'steps were repeated' in text
    first, last = text.split('] loss ')[1].split(' in the first tenth of the steps, ')
    assert float(last.split()[0]) < float(first)
    assert 'mAP' in text and (out / 'loss.png').exists()


def test_after_ctrl_c_a_second_demo_uses_the_data_and_continues_the_training(out: Path):
    demo = start(out)
    lines = [demo.stdout.readline() for _ in range(2)]
    assert 'using the data of an earlier run' in lines[0] and 'training 12 steps' in lines[1]
    run = out / f'run_1_scenes_{STEPS}_steps'
    while not (run / 'last.ckpt').exists():
        assert demo.poll() is None
    demo.send_signal(signal.SIGINT)
    text, errors = demo.communicate()
    assert demo.returncode == 130
    assert errors == 'train-demo: interrupted; the same command continues\n'
    resumed = start(out)
    text, errors = resumed.communicate()
    assert (resumed.returncode, errors) == (0, ''), text + errors
    assert 'continuing the training that was interrupted' in text and 'mAP' in text
