"""Compares our result files with result files of the official code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.nuscenes.result_file import result_boxes, write_results
from bevdepth_core.types import Boxes3D, Detections3D


def detections(rows: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> Detections3D:
    """Return detections from (n, 9) rows of center, size, yaw and velocity."""
    boxes = Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 7:])
    return Detections3D(boxes, scores, labels, NUSCENES_CLASSES, stamp_ns=0)


def require_official_results(official: dict, found: Detections3D, folder: Path) -> None:
    """Fail unless the result file of ``found`` equals the official file ``official``."""
    inputs = official['_inputs']
    pose = Pose(
        np.array(inputs['ego2global_rotation']), np.array(inputs['ego2global_translation'])
    )
    (token, expected), *_ = official['results'].items()
    write_results({token: result_boxes(token, found, pose)}, folder / 'results.json')
    written = json.loads((folder / 'results.json').read_text())
    assert written['meta'] == official['meta']
    assert len(written['results'][token]) == len(expected) > 0
    for ours, theirs in zip(written['results'][token], expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            exact = isinstance(value, str)
            assert ours[name] == (value if exact else pytest.approx(value, abs=2e-7)), name
