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
    """Write three frames, each with one car and one truck, and return the logged messages."""
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


def test_if_training_needs_no_boxes_the_only_warning_is_about_the_missing_lidar(
    tmp_path, caplog
) -> None:
    messages = report(tmp_path, caplog, lidar=None, needs_boxes=False)
    assert messages[1:] == ['DATA has no lidar: training with this dataset has no depth loss']
