"""Writes a dataset of another vehicle in the nuScenes format. The dataset has other sensors,
categories and point counts than nuScenes. It has no maps, no radar data and no sweeps.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

VERSION = 'v1.0-own'
SPLIT = 'own_train'
SCENE = 'drive-1'
IMAGE_SIZE = (96, 64)
FORWARD = (0.5, -0.5, 0.5, -0.5)
"""Quaternion (w, x, y, z) of a camera that looks along the x axis of the vehicle."""


@dataclass(frozen=True)
class OwnBox:
    """An object that is annotated in every frame.

    Attributes:
        category: name in the category table.
        x, y: center relative to the vehicle, meters.
        counts: fields with the numbers of points, such as ``{'num_lidar_pts': 3}``. None adds
            no field.
        changes: fields that are added to the annotation or replace its fields.
    """

    category: str
    x: float = 8.0
    y: float = 0.0
    counts: Any = None
    changes: Any = None


CARS = (OwnBox('car', 8, 1, {'num_lidar_pts': 5}), OwnBox('truck', 6, -2, {'num_lidar_pts': 2}))


def write_own_dataset(
    root: Path,
    boxes: Sequence[OwnBox] = CARS,
    cameras: Sequence[str] = ('front', 'rear'),
    lidar: str | None = 'os1',
    frames: int = 3,
    scenes: int = 1,
    categories: Sequence[str] = (),
) -> Path:
    """Write the dataset. The vehicle moves 5 m along x between two frames."""
    names = sorted({box.category for box in boxes} | set(categories))
    channels = [(name, 'camera') for name in cameras] + ([(lidar, 'lidar')] if lidar else [])
    tables: dict[str, list[dict]] = {
        'category': [{'token': name, 'name': name, 'description': ''} for name in names],
        'sensor': [{'token': n, 'channel': n, 'modality': kind} for n, kind in channels],
        'calibrated_sensor': [_calibration(name, kind) for name, kind in channels],
        **{name: [] for name in ('instance', 'scene', 'sample', 'sample_data', 'ego_pose')},
        'sample_annotation': [],
    }
    for number in range(scenes):
        _add_scene(tables, f'drive-{number + 1}', frames, channels, boxes)
    for name, rows in tables.items():
        rewrite(root, name, rows)
    rewrite(root, 'splits', {SPLIT: [scene['name'] for scene in tables['scene']]})
    _write_files(root, [name for name, _ in channels], lidar)
    return root


def rewrite(root: Path, table: str, rows: object) -> None:
    """Write ``rows`` as the content of a table."""
    path = root / VERSION / f'{table}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


def rows_of(root: Path, table: str) -> list[dict]:
    """Return the rows of a table."""
    return json.loads((root / VERSION / f'{table}.json').read_text())


def _calibration(name: str, kind: str) -> dict:
    camera = kind == 'camera'
    width, height = IMAGE_SIZE
    intrinsic = [[60.0, 0, width / 2], [0, 60.0, height / 2], [0, 0, 1]]
    return {
        'token': name,
        'sensor_token': name,
        'translation': [1.0, 0, 1.5],
        'rotation': list(FORWARD if camera else (1.0, 0, 0, 0)),
        'camera_intrinsic': intrinsic if camera else [],
    }


def _add_scene(
    tables: dict[str, list[dict]],
    scene: str,
    frames: int,
    channels: Sequence[tuple[str, str]],
    boxes: Sequence[OwnBox],
) -> None:
    samples = [f'{scene}-{frame}' for frame in range(frames)]
    tables['scene'].append(
        {'token': scene, 'name': scene, 'log_token': '', 'nbr_samples': frames, 'description': '',
         'first_sample_token': samples[0], 'last_sample_token': samples[-1]}
    )  # fmt: skip
    for frame, sample in enumerate(samples):
        stamp = 1_700_000_000_000_000 + 500_000 * frame
        tables['sample'].append(
            {'token': sample, 'scene_token': scene, 'timestamp': stamp,
             **_links(samples, frame)}
        )  # fmt: skip
        for name, kind in channels:
            _add_file(tables, sample, name, kind, stamp, frame)
    for number, box in enumerate(boxes):
        _add_track(tables, scene, samples, number, box)


def _links(tokens: Sequence[str], place: int) -> dict[str, str]:
    return {'prev': tokens[place - 1] if place else '', 'next': (*tokens, '')[place + 1]}


def _add_file(
    tables: dict[str, list[dict]], sample: str, name: str, kind: str, stamp: int, frame: int
) -> None:
    token = f'{sample}-{name}'
    width, height = IMAGE_SIZE if kind == 'camera' else (0, 0)
    tables['ego_pose'].append(
        {'token': token, 'timestamp': stamp, 'translation': [5.0 * frame, 0, 0],
         'rotation': [1.0, 0, 0, 0]}
    )  # fmt: skip
    tables['sample_data'].append(
        {'token': token, 'sample_token': sample, 'ego_pose_token': token,
         'calibrated_sensor_token': name, 'timestamp': stamp, 'is_key_frame': True,
         'fileformat': 'jpg', 'filename': f'samples/{name}/file', 'width': width,
         'height': height, 'prev': '', 'next': ''}
    )  # fmt: skip


def _add_track(
    tables: dict[str, list[dict]], scene: str, samples: Sequence[str], number: int, box: OwnBox
) -> None:
    tokens = [f'{sample}-box-{number}' for sample in samples]
    instance = f'{scene}-instance-{number}'
    tables['instance'].append(
        {'token': instance, 'category_token': box.category, 'nbr_annotations': len(tokens),
         'first_annotation_token': tokens[0], 'last_annotation_token': tokens[-1]}
    )  # fmt: skip
    for frame, (token, sample) in enumerate(zip(tokens, samples, strict=True)):
        record = {
            'token': token, 'sample_token': sample, 'instance_token': instance,
            'translation': [5.0 * frame + box.x, box.y, 0.8], 'size': [2.0, 4.0, 1.6],
            'rotation': [1.0, 0, 0, 0], **_links(tokens, frame),
        }  # fmt: skip
        tables['sample_annotation'].append(record | (box.counts or {}) | (box.changes or {}))


def _write_files(root: Path, channels: Sequence[str], lidar: str | None) -> None:
    rng = np.random.default_rng(0)
    for name in channels:
        path = root / 'samples' / name / 'file'
        path.parent.mkdir(parents=True, exist_ok=True)
        if name == lidar:
            points = np.column_stack(
                (rng.uniform((4, -4, -1), (12, 4, 1), (200, 3)), np.zeros((200, 2)))
            )
            points.astype(np.float32).tofile(path)
        else:
            pixels = rng.integers(0, 256, (IMAGE_SIZE[1], IMAGE_SIZE[0], 3), np.uint8)
            Image.fromarray(pixels).save(path, format='JPEG')
