"""Tests what training logs about the boxes and the sensors of a dataset."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from bevdepth_core.training.dataset_settings import DatasetSettings, report_boxes
from tests.core.nuscenes.own_rig import SPLIT, VERSION, write_own_dataset
from tests.networks import TINY


def report(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, lidar: str | None, needs_boxes: bool
) -> list[str]:
    """Write a dataset of three frames with a car and a truck each, and return the messages."""
    root = write_own_dataset(tmp_path / 'data', lidar=lidar)
    settings = DatasetSettings(str(root), VERSION, SPLIT, str(tmp_path / 'cache'))
    with caplog.at_level(logging.INFO):
        report_boxes(settings.load(TINY), settings, TINY, needs_boxes)
    name = f'{root} {VERSION}, split {SPLIT}'
    return [record.getMessage().replace(name, 'DATA') for record in caplog.records]


def test_classes_without_boxes_are_named_in_a_warning(tmp_path, caplog) -> None:
    messages = report(tmp_path, caplog, lidar='os1', needs_boxes=True)
    assert len(messages) == 2
    assert messages[0].startswith('DATA: 3 samples; 6 of 6 boxes are used (car 3, truck 3, ')
    assert messages[1] == (
        'DATA has no boxes of the classes construction_vehicle, bus, trailer, barrier, '
        'motorcycle, bicycle, pedestrian, traffic_cone'
    )


def test_without_needed_boxes_a_missing_lidar_is_reported_but_not_the_absent_classes(
    tmp_path, caplog
) -> None:
    messages = report(tmp_path, caplog, lidar=None, needs_boxes=False)
    assert messages[1:] == ['DATA has no lidar: training with this dataset has no depth loss']
