"""Sentences of reports about cameras."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from bevdepth_ros.detector.camera_reports import CameraReports
from bevdepth_ros.detector.parameters import Settings


@pytest.mark.parametrize(
    ('distance_ns', 'sentence'),
    [
        (200_000_000, 'newest stamp of right is +0.200 s from those of the other cameras'),
        (1_000_000, 'no image set was formed for 12 s, although the newest stamps'),
    ],
)
def test_stamps_are_the_cause_of_missing_sets_only_if_they_disagree(
    distance_ns: int, sentence: str
):
    synchronizer = SimpleNamespace(
        jitters=False,
        members=[0, 1, 2],
        cameras=[SimpleNamespace(newest_ns=10**18 + shift) for shift in (0, 0, distance_ns)],
    )
    monitor = SimpleNamespace(seconds_since_last_set=lambda: 12.0)
    settings = Settings(cameras=('left', 'front', 'right'))
    reports = CameraReports(None, settings, monitor, synchronizer)
    assert sentence in reports._unmatched_sentence()
