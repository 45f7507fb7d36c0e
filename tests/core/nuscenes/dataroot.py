"""Writes a dataset in the nuScenes format from the key frames of a sample folder. The folder
contains either the synthetic sample or the real sample of the reference folder; ``tests.sample``
describes both.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.nuscenes.completeness import TABLES
from tests.dataset_rows import fixed_rows, sensor_row, write_map, write_tables
from tests.reference import uniform
from tests.sample import TOKENS, sample_infos, synthetic_sample

VERSION = 'v1.0-mini'
SPLIT = 'sample'
SCENE = 'scene-sample'
PREVIOUS, TOKEN = TOKENS
"""The two key frames of the synthetic sample, in order of time."""
IGNORED = ('animal', 7)
UNSEEN = ('vehicle.car', 0)
"""``IGNORED`` and ``UNSEEN`` each contain the category and the number of lidar points of an
annotation that is added to every frame. Neither annotation is a ground-truth box: ``animal`` is
not a class, and a box without points is ignored."""

ATTRIBUTES = {'vehicle': 'vehicle.moving', 'human': 'pedestrian.moving'}
"""Maps the first word of a category to an attribute, because the annotations of a sample folder
have no attributes."""


def lidar_cloud() -> np.ndarray:
    """Return the (30000, 4) float32 points (x, y, z, intensity) from which the official depth maps
    were computed.
    """
    return (uniform('lidar_cloud', (30000, 4)) * (55, 55, 3, 1) + (0, 0, -0.5, 0)).astype(
        np.float32
    )


def make_dataroot(
    root: Path, scenes: int = 1, frames: int = 2, sample: Path | None = None
) -> Path:
    """Write ``scenes`` equal scenes, which use the same files. Each scene consists of the last
    ``frames`` key frames of the folder ``sample``. If ``sample`` is None, the synthetic sample is
    used.

    The images are links to the images in ``sample``.
    """
    sample = sample or synthetic_sample()
    infos = sample_infos(sample)[-frames:]
    tables = {name: [] for name in TABLES}
    _add_fixed_records(tables, infos)
    for number in range(scenes):
        _add_scene(tables, infos, number)
    _write_tables(root / VERSION, tables)
    _write_files(root, infos, sample)
    return root


def _write_tables(folder: Path, tables: dict[str, list[dict]]) -> None:
    write_tables(folder, tables)
    (folder / 'splits.json').write_text(
        json.dumps({SPLIT: [scene['name'] for scene in tables['scene']]})
    )


def _write_files(root: Path, infos: list[dict], sample: Path) -> None:
    for filename in {info['cam_infos'][name]['filename'] for info in infos for name in CAMERAS}:
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        (root / filename).symlink_to(sample / filename)
    for filename in {info['lidar_infos'][LIDAR]['filename'] for info in infos}:
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        np.pad(lidar_cloud(), ((0, 0), (0, 1))).tofile(root / filename)
    write_map(root)


def _add_fixed_records(tables: dict, infos: list[dict]) -> None:
    categories = sorted(
        {annotation['category_name'] for annotation in infos[-1]['ann_infos']}
        | {IGNORED[0], UNSEEN[0]}
    )
    tables['category'] = [
        {'token': f'category-{name}', 'name': name, 'description': ''} for name in categories
    ]
    tables['attribute'] = [
        {'token': name, 'name': name, 'description': ''} for name in ATTRIBUTES.values()
    ]
    tables.update(fixed_rows())
    for channel, record in _sensors(infos[-1]):
        tables['sensor'].append(sensor_row(channel, channel in CAMERAS))
        tables['calibrated_sensor'].append(
            record['calibrated_sensor']
            | {'token': f'calib-{channel}', 'sensor_token': f'sensor-{channel}'}
        )


def _sensors(info: dict) -> list[tuple[str, dict]]:
    return [*info['cam_infos'].items(), *info['lidar_infos'].items()]


def _add_scene(tables: dict, infos: list[dict], number: int) -> None:
    suffix = f'-{number}' if number else ''
    tokens = [info['sample_token'] + suffix for info in infos]
    scene = {
        'token': f'scene{suffix}',
        'name': SCENE + suffix,
        'log_token': 'log',
        'nbr_samples': len(infos),
        'description': '',
    }
    tables['scene'].append(
        scene | {'first_sample_token': tokens[0], 'last_sample_token': tokens[-1]}
    )
    for frame, info in enumerate(infos):
        neighbors = {'prev': tokens[frame - 1] if frame else '', 'next': (*tokens, '')[frame + 1]}
        sample = {
            'token': tokens[frame],
            'timestamp': info['timestamp'],
            'scene_token': scene['token'],
        }
        tables['sample'].append(sample | neighbors)
        for channel, record in _sensors(info):
            _add_sensor_data(tables, channel, record, tokens[frame])
    annotations = infos[-1]['ann_infos'] + [
        _extra(infos[-1], *IGNORED),
        _extra(infos[-1], *UNSEEN),
    ]
    for row, annotation in enumerate(annotations):
        _add_track(
            tables, annotation, f'{row}{suffix}', tokens, [info['timestamp'] for info in infos]
        )


def _add_sensor_data(tables: dict, channel: str, record: dict, sample_token: str) -> None:
    token = f'{sample_token}-{channel}'
    tables['ego_pose'].append(record['ego_pose'] | {'token': token})
    size = {'width': 1600, 'height': 900} if channel in CAMERAS else {'width': 0, 'height': 0}
    data = {
        'token': token,
        'sample_token': sample_token,
        'ego_pose_token': token,
        'calibrated_sensor_token': f'calib-{channel}',
    }
    file = {
        'filename': record['filename'],
        'timestamp': record['timestamp'],
        'is_key_frame': True,
        'fileformat': 'jpg',
    }
    tables['sample_data'].append(data | file | size | {'prev': '', 'next': ''})


def _extra(info: dict, category: str, points: int) -> dict:
    return info['ann_infos'][0] | {
        'category_name': category,
        'num_lidar_pts': points,
        'num_radar_pts': 0,
    }


def _add_track(
    tables: dict, annotation: dict, name: str, sample_tokens: list[str], stamps_us: list[int]
) -> None:
    """Add an object to all frames. From the positions of the object, the devkit computes the
    velocity in ``annotation``.
    """
    tokens = [f'annotation-{name}-{frame}' for frame in range(len(sample_tokens))]
    instance = {
        'token': f'instance-{name}',
        'category_token': f'category-{annotation["category_name"]}',
    }
    ends = {
        'first_annotation_token': tokens[0],
        'last_annotation_token': tokens[-1],
        'nbr_annotations': len(tokens),
    }
    tables['instance'].append(instance | ends)
    plain = {
        key: value for key, value in annotation.items() if key not in ('category_name', 'velocity')
    }
    group = annotation['category_name'].split('.')[0]
    plain['attribute_tokens'] = [ATTRIBUTES[group]] if group in ATTRIBUTES else []
    for frame, token in enumerate(tokens):
        age_s = (stamps_us[-1] - stamps_us[frame]) * 1e-6
        translation = (
            np.array(annotation['translation']) - age_s * np.array(annotation['velocity'])
        ).tolist()
        links = {'prev': tokens[frame - 1] if frame else '', 'next': (*tokens, '')[frame + 1]}
        record = (
            plain
            | links
            | {'token': token, 'instance_token': instance['token'], 'translation': translation}
        )
        tables['sample_annotation'].append(record | {'sample_token': sample_tokens[frame]})
