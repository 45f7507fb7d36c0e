"""Selects the sensors that every sample of a dataset must have: cameras and at most one lidar, by
channel name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.nuscenes.completeness import consistent, read_json
from bevdepth_core.nuscenes.suggestions import did_you_mean


@dataclass(frozen=True)
class Channels:
    """The sensors of every sample.

    Attributes:
        cameras: channels of the cameras. Every array with one entry per camera has this order.
        lidar: channel of the lidar; None in a dataset without a lidar.
    """

    cameras: tuple[str, ...]
    lidar: str | None

    def names(self) -> tuple[str, ...]:
        """Return the cameras, then the lidar."""
        return self.cameras if self.lidar is None else (*self.cameras, self.lidar)


def dataset_channels(
    tables: Path, cameras: Sequence[str] | None = None, lidar: str | None = None
) -> Channels:
    """Return the selected sensors of a dataset.

    Args:
        tables: folder of the tables.
        cameras: channels of the cameras to use, in this order. None selects all cameras: first the
            cameras of nuScenes in the official order, then all other cameras by name.
        lidar: channel of the lidar to use. None selects ``LIDAR_TOP``, or the only lidar of a
            dataset that has no ``LIDAR_TOP``.

    Raises:
        ValueError: a channel does not exist, there is no camera, a camera is repeated, or
            ``lidar`` is None and the dataset has several lidars, but no ``LIDAR_TOP``.
    """
    with consistent(tables):
        by_modality: dict[str, list[str]] = {'camera': [], 'lidar': []}
        for sensor in read_json(tables / 'sensor.json'):
            by_modality.setdefault(sensor['modality'], []).append(sensor['channel'])
        chosen = _cameras(tables, by_modality['camera'], cameras)
        return Channels(chosen, _lidar(tables, by_modality['lidar'], lidar))


def _cameras(tables: Path, present: list[str], requested: Sequence[str] | None) -> tuple[str, ...]:
    if requested is None:
        official = [name for name in CAMERAS if name in present]
        requested = official + sorted(set(present) - set(CAMERAS))
    if not requested:
        raise ValueError(
            f'{tables / "sensor.json"} lists no camera, or data.cameras is empty: use a dataset '
            'with cameras, and leave out data.cameras to use all cameras'
        )
    if len(set(requested)) < len(requested):
        raise ValueError(f'data.cameras must not repeat a camera, got {", ".join(requested)}')
    for name in requested:
        _require_present(tables, 'camera', name, present)
    return tuple(requested)


def _lidar(tables: Path, present: list[str], requested: str | None) -> str | None:
    if requested is not None:
        _require_present(tables, 'lidar', requested, present)
        return requested
    if LIDAR in present or not present:
        return LIDAR if present else None
    if len(present) > 1:
        raise ValueError(
            f'{tables / "sensor.json"} lists the lidars {", ".join(sorted(present))}: choose one '
            'with data.lidar'
        )
    return present[0]


def _require_present(tables: Path, modality: str, name: str, present: list[str]) -> None:
    if name not in present:
        raise ValueError(
            f'{tables / "sensor.json"} lists no {modality} {name!r}{did_you_mean(name, present)}; '
            f'this file lists {", ".join(sorted(present)) or f"no {modality}"}'
        )
