"""Runs tools/adapt_rig.sh, which docs/OWN_RIG.md describes, on a very small dataset."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.reference import ROOT


@pytest.mark.timeout(0)  # no limit, because the test runs many programs
def test_adapt_rig_runs_every_step_and_writes_a_table_of_scores(tmp_path: Path) -> None:
    environment = os.environ | {'OUT': str(tmp_path / 'out'), 'IMAGE_SIZE': '160x90'}
    command = ['tools/adapt_rig.sh', 'c', '--quick']
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    table = (tmp_path / 'out/table.md').read_text()
    assert [line.split()[1] for line in table.splitlines()[2:]] == [
        'unchanged', 'depth_adapted', 'fine_tuned'
    ]  # fmt: skip


def test_an_unknown_rig_is_rejected_and_the_usage_is_printed() -> None:
    done = subprocess.run(
        ['tools/adapt_rig.sh', 'e'], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert 'adapt_rig: there is no rig e' in done.stderr
    assert 'RIG is b, c, d or the path of a rig file' in done.stderr
