"""Converts the key frames of a drive to rows of the nuScenes tables."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Sequence

import numpy as np

from bevdepth_core.nuscenes.classes import LIDAR, MOVING_SPEED
from bevdepth_core.nuscenes.records import DISTORTION
from bevdepth_core.nuscenes.table_files import linked, pose_fields, token
from bevdepth_core.synthetic.dataset.capture import Drive, KeyFrame, Sensors
from bevdepth_core.synthetic.dataset.fixed_tables import (
    attribute_tokens,
    category_token,
    visibility_token,
)
from bevdepth_core.synthetic.sensors.schedule import TURNS_PER_KEY_FRAME, Shot, lidar_shot

ANNOTATION_RANGE = 80.0
"""Largest distance of annotated objects from the ego vehicle, meters."""


def drive_rows(
    drive: Drive, sensors: Sensors, key_frames: Sequence[KeyFrame]
) -> dict[str, list[dict]]:
    """Return the rows that a drive adds to the tables.

    Args:
        drive: the drive, which is one scene with its own log.
        sensors: the sensors with which the drive was recorded.
        key_frames: all key frames of the drive in order.
    """
    rows = _log_rows(drive) | {
        'calibrated_sensor': _calibration_rows(drive, sensors),
        'sample': _sample_rows(drive, key_frames),
    }
    rows |= _sensor_data_rows(drive, sensors, key_frames) | _annotation_rows(
        drive, key_frames, needs_view=not sensors.rig.covers_full_circle
    )
    first, last = rows['sample'][0]['token'], rows['sample'][-1]['token']
    scene = {
        'token': token('scene', drive.name, drive.seed),
        'log_token': rows['log'][0]['token'],
        'nbr_samples': len(key_frames),
    }
    names = {
        'first_sample_token': first,
        'last_sample_token': last,
        'name': drive.name,
        'description': f'Synthetic, seed {drive.seed}',
    }
    return rows | {'scene': [scene | names]}


def _log_rows(drive: Drive) -> dict[str, list[dict]]:
    date = datetime.datetime.fromtimestamp(drive.start_us // 1_000_000, datetime.timezone.utc)
    log = {
        'token': token('log', drive.name, drive.seed),
        'logfile': drive.name,
        'vehicle': 'synthetic',
    }
    semantic_prior = {
        'token': token('map', drive.name, drive.seed),
        'log_tokens': [log['token']],
        'category': 'semantic_prior',
    }
    return {
        'log': [log | {'date_captured': f'{date:%Y-%m-%d}', 'location': f'town-{drive.name}'}],
        'map': [semantic_prior | {'filename': drive.map_filename()}],
    }


def _calibration_token(drive: Drive, channel: str) -> str:
    return token('calibrated_sensor', drive.name, drive.seed, channel)


def _calibration_rows(drive: Drive, sensors: Sensors) -> list[dict]:
    rig = drive.camera_rig(sensors)
    mounts = [
        *zip(rig.names, rig.ego_from_camera, rig.intrinsics.tolist(), strict=True),
        (LIDAR, drive.ego_from_lidar(sensors), []),
    ]
    return [
        {
            'token': _calibration_token(drive, channel),
            'sensor_token': token('sensor', channel),
            **pose_fields(mount),
            'camera_intrinsic': matrix,
            **_distortion(sensors, channel),
        }
        for channel, mount, matrix in mounts
    ]


def _distortion(sensors: Sensors, channel: str) -> dict[str, list[float]]:
    """Return the distortion coefficients under the field name of nuImages, if there are any."""
    camera = sensors.rig.cameras.get(channel)
    if camera is None or not (sensors.distorted and any(camera.distortion)):
        return {}
    return {DISTORTION: list(camera.distortion)}


def _sample_token(drive: Drive, number: int) -> str:
    return token('sample', drive.name, drive.seed, number)


def _sample_rows(drive: Drive, key_frames: Sequence[KeyFrame]) -> list[dict]:
    scene = token('scene', drive.name, drive.seed)
    stamps = [
        drive.stamp_us(lidar_shot(key_frame.number * TURNS_PER_KEY_FRAME).time_s)
        for key_frame in key_frames
    ]
    rows = [
        {'token': _sample_token(drive, key_frame.number), 'timestamp': stamp, 'scene_token': scene}
        for key_frame, stamp in zip(key_frames, stamps, strict=True)
    ]
    return linked(rows)


def _sensor_data_rows(
    drive: Drive, sensors: Sensors, key_frames: Sequence[KeyFrame]
) -> dict[str, list[dict]]:
    """Return one row of ``ego_pose`` and one row of ``sample_data`` per shot. The rows of
    ``sample_data`` are grouped by channel; within a channel, they are in order of time.
    """
    by_channel: dict[str, list[dict]] = {}
    poses = []
    for key_frame in key_frames:
        for shot, world_from_ego in zip(key_frame.shots, key_frame.world_from_ego, strict=True):
            row = _sensor_data_row(drive, sensors, shot, key_frame.number)
            by_channel.setdefault(shot.channel, []).append(row)
            poses.append(
                {
                    'token': row['ego_pose_token'],
                    'timestamp': row['timestamp'],
                    **pose_fields(world_from_ego),
                }
            )
    data = itertools.chain.from_iterable(linked(rows) for rows in by_channel.values())
    return {'ego_pose': poses, 'sample_data': list(data)}


def _sensor_data_row(drive: Drive, sensors: Sensors, shot: Shot, number: int) -> dict:
    width, height, file_format = (
        (0, 0, 'pcd') if shot.channel == LIDAR else (sensors.width, sensors.height, 'jpg')
    )
    return {
        'token': token('sample_data', drive.name, drive.seed, shot.channel, shot.turn),
        'sample_token': _sample_token(drive, number),
        'ego_pose_token': token('ego_pose', drive.name, drive.seed, shot.channel, shot.turn),
        'calibrated_sensor_token': _calibration_token(drive, shot.channel),
        'timestamp': drive.stamp_us(shot.time_s),
        'fileformat': file_format,
        'is_key_frame': shot.key_frame,
        'height': height,
        'width': width,
        'filename': drive.filename(shot),
    }


def _annotation_rows(
    drive: Drive, key_frames: Sequence[KeyFrame], needs_view: bool
) -> dict[str, list[dict]]:
    """Return a row of ``instance`` per actor that has a box in at least one key frame, and a row
    of ``sample_annotation`` per box; boxes are grouped by actor.

    If ``needs_view`` is True, a box that no image shows gets a point count of 0, so that training
    and evaluation exclude the box. Without this rule, a network with only a front camera would be
    expected to detect objects behind the vehicle.
    """
    annotated, moves = (
        _annotated(key_frames),
        np.array([key_frame.speed for key_frame in key_frames]).max(axis=0) > MOVING_SPEED,
    )
    instances, annotations = [], []
    for actor in np.flatnonzero(annotated.any(axis=0)):
        frames = [key_frames[number] for number in np.flatnonzero(annotated[:, actor])]
        instance = token('instance', drive.name, drive.seed, actor)
        rows = linked(
            [
                _annotation_row(drive, key_frame, actor, instance, moves[actor], needs_view)
                for key_frame in frames
            ]
        )
        ends = {
            'first_annotation_token': rows[0]['token'],
            'last_annotation_token': rows[-1]['token'],
            'nbr_annotations': len(rows),
        }
        category = category_token(frames[0].classes[actor], frames[0].size[actor, 2])
        instances.append({'token': instance, 'category_token': category, **ends})
        annotations += rows
    return {'instance': instances, 'sample_annotation': annotations}


def _annotated(key_frames: Sequence[KeyFrame]) -> np.ndarray:
    """Return a (key frames, actors) mask of the actors that have a box in a key frame.

    An actor is observed in a key frame if it has a lidar point or is visible in an image. The
    actor has a box in every key frame from one before its first observation to one after its last
    observation, even in key frames in which it is hidden. The devkit computes velocities from
    neighboring boxes. Because of the additional boxes, an actor that is observed in a single key
    frame can also have a velocity. In key frames in which an actor is farther away than
    ``ANNOTATION_RANGE``, it has no box.
    """
    observed = np.array(
        [(key_frame.points > 0) | (key_frame.visible > 0) for key_frame in key_frames]
    )
    vehicle = np.array([key_frame.world_from_ego[-1, :2, 3] for key_frame in key_frames])
    near = np.array(
        [
            np.linalg.norm(key_frame.position - at, axis=1)
            for key_frame, at in zip(key_frames, vehicle, strict=True)
        ]
    )
    observed &= (near := near < ANNOTATION_RANGE)
    widened = observed.copy()
    widened[1:] |= observed[:-1]
    widened[:-1] |= observed[1:]
    has_begun, has_not_ended = (
        np.logical_or.accumulate(widened, axis=0),
        np.logical_or.accumulate(widened[::-1], axis=0)[::-1],
    )
    return has_begun & has_not_ended & near


def _annotation_row(
    drive: Drive,
    key_frame: KeyFrame,
    actor: int,
    instance: str,
    ever_moves: bool,
    needs_view: bool,
) -> dict:
    length, width, height = key_frame.size[actor].tolist()
    half_turn = key_frame.heading[actor] / 2
    is_hidden = needs_view and not key_frame.visible[actor]
    return {
        'token': token('sample_annotation', drive.name, drive.seed, actor, key_frame.number),
        'sample_token': _sample_token(drive, key_frame.number),
        'instance_token': instance,
        'visibility_token': visibility_token(key_frame.visible[actor]),
        'attribute_tokens': attribute_tokens(
            key_frame.classes[actor], key_frame.riders[actor], key_frame.speed[actor], ever_moves
        ),
        'translation': [*key_frame.position[actor].tolist(), height / 2],
        'size': [width, length, height],
        'rotation': [float(np.cos(half_turn)), 0.0, 0.0, float(np.sin(half_turn))],
        'num_lidar_pts': 0 if is_hidden else int(key_frame.points[actor]),
        'num_radar_pts': 0,
    }
