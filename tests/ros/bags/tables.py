"""Reads the tables of a dataset without the code under test."""

from __future__ import annotations

import json
from pathlib import Path

from bevdepth_core.synthetic.dataset.writing import VERSION


class Tables:
    """The rows of one scene, and the tables to which these rows refer. The keys of the tables are
    tokens."""

    def __init__(self, dataroot: Path, scene_name: str):
        self._folder = dataroot / VERSION
        scene = next(row for row in self._rows('scene') if row['name'] == scene_name)
        self.samples = {
            row['token']: row
            for row in self._rows('sample')
            if row['scene_token'] == scene['token']
        }
        self.data = sorted(
            (row for row in self._rows('sample_data') if row['sample_token'] in self.samples),
            key=lambda row: row['timestamp'],
        )
        self.annotations = [
            row for row in self._rows('sample_annotation') if row['sample_token'] in self.samples
        ]
        self.poses = {row['token']: row for row in self._rows('ego_pose')}
        self.calibrations = {row['token']: row for row in self._rows('calibrated_sensor')}
        self._channels = {row['token']: row['channel'] for row in self._rows('sensor')}
        categories = {row['token']: row['name'] for row in self._rows('category')}
        self.categories = {
            row['token']: categories[row['category_token']] for row in self._rows('instance')
        }

    def _rows(self, name: str) -> list[dict]:
        return json.loads((self._folder / f'{name}.json').read_text())

    def channel(self, row: dict) -> str:
        """Return the channel of a sample_data row."""
        return self._channels[self.calibrations[row['calibrated_sensor_token']]['sensor_token']]

    def files(self, channel: str) -> list[dict]:
        """Return the sample_data rows of a channel in order of time."""
        return [row for row in self.data if self.channel(row) == channel]

    def channels(self) -> dict[str, dict]:
        """Return the calibration of each channel of the scene."""
        return {
            self.channel(row): self.calibrations[row['calibrated_sensor_token']]
            for row in self.data
        }
