"""Scores the launched node with the tool ``evaluate_node``."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.synthetic.dataset.writing import VERSION
from tests.ros.bags.conftest import SCENES
from tests.ros.closed_loop.key_frames import (
    ABSENT,
    KEY_FRAMES,
    SPLIT,
    gap_bag,
    index,
    key_frames_root,
)

__all__ = ['gap_bag', 'index', 'key_frames_root']


@pytest.fixture(scope='module')
def out(
    key_frames_root: Path,
    gap_bag: Path,
    small_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Run the tool and return its output folder. The tool writes the bag of the first scene and
    reuses the existing bag of the second scene.
    """
    out = tmp_path_factory.mktemp('closed_loop')
    values = {
        'dataroot': key_frames_root,
        'version': VERSION,
        'split': SPLIT,
        'checkpoint': small_checkpoint,
        'out': out,
        'device': 'cpu',
    }
    values |= {'bags': gap_bag.parent, 'cache-dir': key_frames_root.parent / 'cache'}
    options = [f'--{name}={value}' for name, value in values.items()]
    done = subprocess.run(
        [sys.executable, '-m', 'bevdepth_ros.closed_loop.evaluate_node', *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / 'report.md').read_text() in done.stdout
    return out


def results_in(folder: Path) -> dict[str, list[dict]]:
    return json.loads((folder / 'results.json').read_text())['results']


def rows(entries: list[dict]) -> np.ndarray:
    """Return a (n, 10) table of the boxes: center, size, heading (squares of w and z of the
    quaternion), score and class. The rows are sorted by rounded x and y, so that rounding errors
    do not change the order.
    """
    found = [
        (
            *e['translation'],
            *e['size'],
            *(np.array(e['rotation'])[[0, 3]] ** 2),
            e['detection_score'],
        )
        for e in entries
    ]
    names = [e['detection_name'] for e in entries]
    table = np.column_stack((np.array(found), [NUSCENES_CLASSES.index(name) for name in names]))
    return table[np.lexsort(np.round(table[:, :2], 1).T)]


def test_the_boxes_of_the_node_equal_the_boxes_of_the_offline_evaluation(
    out: Path, index: SampleIndex
) -> None:
    offline, node = results_in(out / 'offline'), results_in(out)
    assert list(offline) == list(node) == index.tokens()
    for token in index.tokens()[:KEY_FRAMES]:
        assert len(offline[token]) > 50
        np.testing.assert_allclose(rows(node[token]), rows(offline[token]), rtol=0, atol=2e-3)
    compared = json.loads((out / 'report.json').read_text())['boxes']
    assert compared['matching'] >= sum(
        len(offline[token]) for token in index.tokens()[:KEY_FRAMES]
    )


def test_velocities_with_a_past_frame_equal_the_velocities_of_the_offline_evaluation(
    out: Path, index: SampleIndex
) -> None:
    offline, node = results_in(out / 'offline'), results_in(out)
    first, second = index.tokens()[:2]
    assert all(entry['velocity'] == [0.0, 0.0] for entry in node[first])
    speeds = [
        np.sort([np.hypot(*entry['velocity']) for entry in found[second]])
        for found in (node, offline)
    ]
    np.testing.assert_allclose(*speeds, atol=2e-3)
    assert speeds[0].max() > 0.1


def test_only_the_key_frame_without_result_is_reported_as_missed(
    out: Path, index: SampleIndex
) -> None:
    scenes = json.loads((out / 'report.json').read_text())['scenes']
    missed = index[ABSENT].token
    assert [scenes[name]['missed'] for name in SCENES] == [[], [missed]]
    assert [len(scenes[name]['unfused']) for name in SCENES] == [1, 2]
    assert results_in(out)[missed] == [] and all(
        found for token, found in results_in(out).items() if token != missed
    )
    report = (out / 'report.md').read_text()
    assert re.search(
        rf'^\| {SCENES[1]} \| 4 \| 3 \| 1 (\| \d+ ){{3}}(\| [\d.]+ ){{2}}\|$',
        report,
        re.MULTILINE,
    )
    assert {'mean_ap', 'nd_score'} <= json.loads((out / 'metrics_summary.json').read_text()).keys()
