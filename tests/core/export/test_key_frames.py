"""The key frames that are selected for the calibration of INT8."""

from __future__ import annotations

from pathlib import Path

import pytest

from bevdepth_core.export import key_frames
from bevdepth_core.export.key_frames import KeyFrames


@pytest.mark.parametrize(
    ('count', 'expected'),
    [
        (1, [10]),
        (2, [10, 16]),
        (3, [10, 13, 16]),
        (7, list(range(10, 17))),
        (9, list(range(10, 17))),
    ],
)
def test_the_chosen_key_frames_are_spread_evenly_over_the_split(
    monkeypatch: pytest.MonkeyPatch, count: int, expected: list[int]
) -> None:
    requests = []

    def index(*request: object) -> list[int]:
        requests.append(request)
        return list(range(10, 17))

    monkeypatch.setattr(key_frames, 'load_index', index)
    monkeypatch.setattr(key_frames, 'load_frame', lambda record, root: (record, root))
    root = Path('dataset')
    found = list(KeyFrames(root, 'v1.0-synthetic', 'train', count).load())
    assert found == [(record, root) for record in expected]
    assert requests == [(root, 'v1.0-synthetic', 'train')]
