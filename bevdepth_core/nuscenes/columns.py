"""Reads the samples of a scene as arrays from the tables of a nuScenes-format dataset.

Annotations keep the name of their category, so the arrays are valid for every class list.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from bevdepth_core.nuscenes.channels import Channels
from bevdepth_core.nuscenes.completeness import DatasetIncompleteError
from bevdepth_core.nuscenes.records import DISTORTION

if TYPE_CHECKING:
    from nuscenes import NuScenes  # only for types, because this import takes seconds

Columns = dict[str, np.ndarray]
"""Arrays by name. Arrays whose names are in ``PER_ANNOTATION`` have one row per annotation, and
all other arrays have one row per sample."""
VECTORS = {'center': ('translation', 3), 'size': ('size', 3), 'quaternion': ('rotation', 4)}
"""Columns of annotations that contain vectors. Each column is mapped to its field in the tables
and its number of values."""
PER_ANNOTATION = ('category', 'attribute', *VECTORS, 'velocity', 'points', 'score')
UNKNOWN_POINTS = -1
"""Value of the column ``points`` for annotations whose number of points is unknown."""


class InvalidAnnotationError(ValueError):
    """An annotation has impossible numbers; the message names dataset, sample and annotation."""


def scene_columns(devkit: NuScenes, scene: dict, channels: Channels) -> Columns:
    """Return the columns of one scene.

    The rows of all annotations are in the order of their samples. The column ``annotations``
    contains the number of annotations of each sample. Columns of sensors have a second dimension,
    which is the sensor in the order of ``channels.names()``.

    Raises:
        DatasetIncompleteError: the scene has no samples.
        InvalidAnnotationError: an annotation has a wrong number of values, or an invalid score.
        ValueError: a sample has no file of a sensor, a camera has no image size or no intrinsics,
            images have lens distortion, or samples refer to each other in a cycle.
    """
    samples = list(_samples(devkit, scene))
    # All vectors are checked first, because the devkit computes a velocity from the positions in
    # the previous and in the next sample.
    vectors = {token: _vectors(devkit, token) for sample in samples for token in sample['anns']}
    rows = [
        [_annotation_row(devkit, token) | vectors[token] for token in sample['anns']]
        for sample in samples
    ]
    columns = {
        'token': np.array([sample['token'].encode() for sample in samples]),
        'scene': np.array([scene['name'].encode()] * len(samples)),
        'stamp_us': np.array([sample['timestamp'] for sample in samples], np.int64),
        'annotations': np.array([len(sample_rows) for sample_rows in rows], np.int64),
    }
    columns |= _sensor_columns(
        [_sensor_row(devkit, sample, name) for sample in samples for name in channels.names()],
        len(samples),
    )
    return columns | _annotation_columns([row for sample_rows in rows for row in sample_rows])


def _samples(devkit: NuScenes, scene: dict) -> Iterator[dict]:
    token, left = scene['first_sample_token'], len(devkit.sample)
    if not token:
        raise DatasetIncompleteError(
            f'scene {scene["name"]} has no samples: use a split without this scene'
        )
    while token:
        if not left:
            raise ValueError(
                f'the samples of {scene["name"]} refer to each other in a cycle: unpack the '
                'metadata again'
            )
        sample = devkit.get('sample', token)
        yield sample
        token, left = sample['next'], left - 1


def _sensor_row(devkit: NuScenes, sample: dict, channel: str) -> dict:
    if channel not in sample['data']:
        raise ValueError(
            f'sample {sample["token"]} has no key frame of {channel}, but every sample needs all '
            'selected sensors: select other sensors with data.cameras and data.lidar, or use a '
            'split without this scene'
        )
    data = devkit.get('sample_data', sample['data'][channel])
    sensor = devkit.get('calibrated_sensor', data['calibrated_sensor_token'])
    if any(sensor.get(DISTORTION) or ()):
        raise ValueError(
            f'the images of {channel} in {devkit.dataroot} have lens distortion '
            f'({DISTORTION} {sensor[DISTORTION]}): convert the dataset with nuscenes_to_bag and '
            'bag_to_nuscenes, which undistorts the images'
        )
    if data['sensor_modality'] == 'camera':
        _require_camera(data, sensor)
    ego = devkit.get('ego_pose', data['ego_pose_token'])
    return {
        'filename': data['filename'].encode(),
        'sensor_stamp_us': data['timestamp'],
        'sensor_quaternion': sensor['rotation'],
        'sensor_translation': sensor['translation'],
        'ego_quaternion': ego['rotation'],
        'ego_translation': ego['translation'],
        'image_size': (data['width'] or 0, data['height'] or 0),
        'intrinsics': sensor['camera_intrinsic'] or np.zeros((3, 3)),
    }


def _require_camera(data: dict, sensor: dict) -> None:
    if not (data['width'] and data['height']):
        raise ValueError(
            f'an image of {data["channel"]}, {data["filename"]}, has no width and height in '
            'sample_data.json: add width and height in pixels'
        )
    if np.shape(sensor['camera_intrinsic']) != (3, 3):
        raise ValueError(
            f'the row of calibrated_sensor.json for {data["filename"]} ({data["channel"]}) has no '
            'camera_intrinsic of 3x3 numbers: add the intrinsic matrix'
        )


def _sensor_columns(rows: list[dict], samples: int) -> Columns:
    dtypes: dict[str, type | None] = dict.fromkeys(rows[0], np.float64) | {
        'filename': None,
        'sensor_stamp_us': np.int64,
        'image_size': np.int32,
    }
    columns = {
        name: np.array([row[name] for row in rows], dtype) for name, dtype in dtypes.items()
    }
    return {
        name: column.reshape(samples, -1, *column.shape[1:]) for name, column in columns.items()
    }


def _annotation_row(devkit: NuScenes, token: str) -> dict:
    record = devkit.get('sample_annotation', token)
    velocity = np.array(record.get('velocity') or devkit.box_velocity(token), np.float64)
    attributes = [devkit.get('attribute', name) for name in record.get('attribute_tokens') or ()]
    return {
        'category': record['category_name'].encode(),
        'attribute': attributes[0]['name'].encode() if attributes else b'',
        'velocity': np.where(np.isfinite(velocity), velocity, np.nan),
        'points': _points(record),
        'score': _score(devkit, record),
    }


def _vectors(devkit: NuScenes, token: str) -> dict[str, np.ndarray]:
    record = devkit.get('sample_annotation', token)
    return {name: _vector(devkit, record, *source) for name, source in VECTORS.items()}


def _vector(devkit: NuScenes, record: dict, name: str, count: int) -> np.ndarray:
    try:
        vector = np.array(record[name], np.float64)
    except (KeyError, TypeError, ValueError):
        vector = np.zeros(0)
    if vector.shape != (count,):
        raise InvalidAnnotationError(
            f'annotation {record["token"]} of sample {record["sample_token"]} in '
            f'{devkit.dataroot} has {name} {record.get(name)}: {name} must be {count} numbers'
        )
    return vector


def _score(devkit: NuScenes, record: dict) -> float:
    """Return the certainty of a box. Pseudo labels have the field ``score``; boxes without this
    field have the certainty 1.
    """
    score = record.get('score', 1.0)
    if not isinstance(score, (int, float)) or not 0 < score <= 1:
        raise InvalidAnnotationError(
            f'annotation {record["token"]} of sample {record["sample_token"]} in '
            f'{devkit.dataroot} has score {score!r}: a score must be above 0 and at most 1'
        )
    return float(score)


def _points(record: dict) -> int:
    """Return the number of lidar and radar points inside a box.

    A count that is absent, null or negative is unknown. If the lidar count is unknown and the
    radar count is 0 or unknown, the box may still contain lidar points, so the result is
    ``UNKNOWN_POINTS``.
    """
    lidar, radar = (_count(record.get(name)) for name in ('num_lidar_pts', 'num_radar_pts'))
    if lidar is None:
        return radar or UNKNOWN_POINTS
    return lidar + (radar or 0)


def _count(value: object) -> int | None:
    if isinstance(value, (int, float)) and math.isfinite(value) and value >= 0:
        return int(value)
    return None


def _annotation_columns(rows: list[dict]) -> Columns:
    columns = {name: np.array([row[name] for row in rows]) for name in PER_ANNOTATION}
    if rows:
        return columns
    texts = dict.fromkeys(('category', 'attribute'), np.zeros(0, 'S1'))
    vectors = {name: np.zeros((0, count)) for name, (_, count) in VECTORS.items()}
    return (
        texts
        | vectors
        | {'velocity': np.zeros((0, 3)), 'points': np.zeros(0, np.int64), 'score': np.zeros(0)}
    )
