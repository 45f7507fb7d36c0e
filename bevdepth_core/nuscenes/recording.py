"""Reads a scene of a dataset in nuScenes format as a recording: streams of files, ego poses and
annotations.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bevdepth_core.geometry import invert_rigid, rigid_from_quaternion
from bevdepth_core.nuscenes.classes import LIDAR, ClassMap
from bevdepth_core.nuscenes.records import DISTORTION, Pose

if TYPE_CHECKING:
    from nuscenes import NuScenes  # only for types, because this import takes seconds

CAMERA_MODALITY, LIDAR_MODALITY = 'camera', 'lidar'


@dataclass(frozen=True)
class SensorStream:
    """All files of one sensor, key frames and sweeps, in order of time.

    Attributes:
        channel: name of the sensor, such as ``CAM_FRONT``.
        modality: ``camera`` or ``lidar``.
        intrinsics: (3, 3) float64, pixels; zeros for a lidar.
        image_size: (width, height) in pixels; (0, 0) for a lidar.
        stamps_ns: (n,) int64.
        filenames: n paths relative to the dataset's root.
        distortion: coefficients of lens distortion in the images, in the order of OpenCV; empty
            for images without distortion.
    """

    channel: str
    modality: str
    intrinsics: np.ndarray
    image_size: tuple[int, int]
    stamps_ns: np.ndarray
    filenames: tuple[str, ...]
    distortion: tuple[float, ...] = ()


@dataclass(frozen=True)
class AnnotatedMoment:
    """The annotations of a key frame that belong to a class, in the world frame.

    Attributes:
        stamp_ns: stamp of the key frame.
        world_from_ego: pose of the vehicle.
        class_names: name of the class of each annotation.
        instances: instance token of each annotation; an object has the same token in all key
            frames.
        center: (n, 3) float64, meters.
        size: (n, 3) float64, length, width, height, meters.
        quaternion: (n, 4) float64, w x y z.
    """

    stamp_ns: int
    world_from_ego: Pose
    class_names: tuple[str, ...]
    instances: tuple[str, ...]
    center: np.ndarray
    size: np.ndarray
    quaternion: np.ndarray

    def poses_in_ego(self) -> np.ndarray:
        """Return (n, 4, 4) box poses in the ego frame."""
        boxes = [
            rigid_from_quaternion(turn, center)
            for turn, center in zip(self.quaternion, self.center, strict=True)
        ]
        return invert_rigid(self.world_from_ego.matrix()) @ np.array(boxes).reshape(-1, 4, 4)


@dataclass(frozen=True)
class SceneRecording:
    """One scene.

    Attributes:
        name: name of the scene.
        streams: cameras and lidars.
        mounts: maps the channel of every sensor, including radars, to its (4, 4)
            ``ego_from_sensor``, meters.
        pose_stamps_ns: (m,) int64, increasing.
        poses: m ego poses (world from ego) at these times.
        moments: the key frames in order of time.
    """

    name: str
    streams: tuple[SensorStream, ...]
    mounts: dict[str, np.ndarray]
    pose_stamps_ns: np.ndarray
    poses: tuple[Pose, ...]
    moments: tuple[AnnotatedMoment, ...]

    def filenames(self) -> list[str]:
        """Return the paths of all files, relative to the dataset's root."""
        return list(itertools.chain.from_iterable(stream.filenames for stream in self.streams))


def read_recording(
    devkit: NuScenes, scene_name: str, classes: ClassMap | None = None
) -> SceneRecording:
    """Return the content of the tables for a scene. Sensor files are not opened.

    Args:
        devkit: the tables.
        scene_name: name of the scene, such as ``scene-0061``.
        classes: classes whose annotations are returned; None for the ten nuScenes classes.

    Raises:
        ValueError: the scene does not exist or has no samples, or rows refer to each other in a
            cycle.
    """
    scene = next((scene for scene in devkit.scene if scene['name'] == scene_name), None)
    samples = list(_chain(devkit, 'sample', scene['first_sample_token'])) if scene else []
    if not samples:
        raise ValueError(f'{devkit.dataroot} has no scene {scene_name} with samples')
    files = {
        channel: _files(devkit, samples, channel)
        for channel in sorted({name for sample in samples for name in sample['data']})
    }
    calibrations = {
        channel: devkit.get('calibrated_sensor', rows[0]['calibrated_sensor_token'])
        for channel, rows in files.items()
    }
    stamps_ns, poses = _poses(devkit, itertools.chain.from_iterable(files.values()))
    return SceneRecording(
        scene_name,
        tuple(
            _stream(channel, rows, calibrations[channel])
            for channel, rows in files.items()
            if _is_streamed(rows)
        ),
        {
            channel: rigid_from_quaternion(record['rotation'], record['translation'])
            for channel, record in calibrations.items()
        },
        stamps_ns,
        poses,
        tuple(_moment(devkit, sample, classes or ClassMap()) for sample in samples),
    )


def _chain(devkit: NuScenes, table: str, token: str) -> Iterator[dict]:
    left = len(getattr(devkit, table))
    while token:
        if not left:
            raise ValueError(
                f'rows of the table {table} refer to each other in a cycle: unpack the metadata '
                'again'
            )
        record = devkit.get(table, token)
        yield record
        token, left = record['next'], left - 1


def _files(devkit: NuScenes, samples: Sequence[dict], channel: str) -> list[dict]:
    """Return all sample_data of a channel in order of time: key frames and sweeps."""
    rows: dict[str, dict] = {}
    for sample in samples:
        if channel in sample['data']:
            row = devkit.get('sample_data', sample['data'][channel])
            row = row if rows else _first(devkit, row)
            for follower in _chain(devkit, 'sample_data', row['token']):
                if follower['token'] in rows:
                    break
                rows[follower['token']] = follower
    return sorted(rows.values(), key=lambda row: row['timestamp'])


def _first(devkit: NuScenes, row: dict) -> dict:
    """Return the first row of the chain of sample_data that contains ``row``."""
    for _ in range(len(devkit.sample_data)):
        if not row['prev']:
            return row
        row = devkit.get('sample_data', row['prev'])
    raise ValueError(
        'rows of the table sample_data refer to each other in a cycle: unpack the metadata again'
    )


def _is_streamed(rows: Sequence[dict]) -> bool:
    return rows[0]['sensor_modality'] in (CAMERA_MODALITY, LIDAR_MODALITY)


def _stream(channel: str, rows: Sequence[dict], calibration: dict) -> SensorStream:
    return SensorStream(
        channel,
        rows[0]['sensor_modality'],
        np.array(calibration['camera_intrinsic'] or np.zeros((3, 3)), np.float64),
        (rows[0]['width'] or 0, rows[0]['height'] or 0),
        np.array([row['timestamp'] for row in rows], np.int64) * 1000,
        tuple(row['filename'] for row in rows),
        tuple(calibration.get(DISTORTION) or ()),
    )


def _poses(devkit: NuScenes, rows: Iterable[dict]) -> tuple[np.ndarray, tuple[Pose, ...]]:
    """Return the stamps and ego poses of all files in order of time. Each stamp occurs once."""
    records = {
        record['timestamp']: record
        for record in (devkit.get('ego_pose', row['ego_pose_token']) for row in rows)
    }
    ordered = [records[stamp_us] for stamp_us in sorted(records)]
    return np.array([record['timestamp'] for record in ordered], np.int64) * 1000, tuple(
        _pose(record) for record in ordered
    )


def _pose(record: dict) -> Pose:
    return Pose(
        np.array(record['rotation'], np.float64), np.array(record['translation'], np.float64)
    )


def _moment(devkit: NuScenes, sample: dict, classes: ClassMap) -> AnnotatedMoment:
    """Return the annotations of a sample, with the stamp and the ego pose of its ``LIDAR_TOP``
    scan. If the sample has no such scan, stamp and ego pose of its first sensor are used.
    """
    token = sample['data'].get(LIDAR) or next(iter(sample['data'].values()))
    ego = devkit.get('ego_pose', devkit.get('sample_data', token)['ego_pose_token'])
    records = [devkit.get('sample_annotation', name) for name in sample['anns']]
    labeled = [
        (record, label)
        for record in records
        if (label := classes.label(record['category_name'])) is not None
    ]
    # A sample without annotations gives arrays with 0 rows.
    center, size, quaternion = (
        np.array([record[name] for record, _ in labeled], np.float64).reshape(-1, count)
        for name, count in (('translation', 3), ('size', 3), ('rotation', 4))
    )
    return AnnotatedMoment(
        ego['timestamp'] * 1000,
        _pose(ego),
        tuple(classes.class_names[label] for _, label in labeled),
        tuple(record['instance_token'] for record, _ in labeled),
        center,
        size[:, [1, 0, 2]],
        quaternion,
    )
