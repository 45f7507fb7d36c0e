"""Valid inputs for the fuzzing targets, as small as possible."""

from __future__ import annotations

from pathlib import Path

from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.nuscenes.completeness import TABLES
from tests.dataset_rows import fixed_rows, sensor_row, write_map, write_tables

CALIBRATION = {
    'image_width': 160, 'image_height': 96, 'camera_name': 'front',
    'distortion_model': 'plumb_bob',
    'camera_matrix': {'rows': 3, 'cols': 3, 'data': [128.0, 0.0, 80.0, 0.0, 128.0, 48.0, 0.0, 0.0,
    1.0]},
    'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': [0.1, 0.0, 0.0, 0.0, 0.0]},
    'rectification_matrix': {'rows': 3, 'cols': 3, 'data': [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0,
    1.0]},
    'projection_matrix': {'rows': 3, 'cols': 4, 'data': [128.0, 0.0, 80.0, 0.0, 0.0, 128.0, 48.0,
    0.0, 0.0, 0.0, 1.0, 0.0]},
}  # fmt: skip


def make_tables(root: Path) -> dict[str, list | dict]:
    """Write a dataset in nuScenes format with one scene, two frames and one object. Return the
    tables of the dataset."""
    tables: dict[str, list | dict] = {name: [] for name in TABLES}
    tables['category'] = [{'token': 'car', 'name': 'vehicle.car', 'description': ''}]
    tables['attribute'] = [{'token': 'moving', 'name': 'vehicle.moving', 'description': ''}]
    tables.update(fixed_rows())
    tables['scene'] = [
        {'token': 'scene', 'name': 'scene-0001', 'log_token': 'log', 'nbr_samples': 2,
         'description': '', 'first_sample_token': 'sample0',
         'last_sample_token': 'sample1'}
    ]  # fmt: skip
    tables['instance'] = [
        {
            'token': 'instance',
            'category_token': 'car',
            'nbr_annotations': 2,
            'first_annotation_token': 'box0',
            'last_annotation_token': 'box1',
        }
    ]
    for channel in (*CAMERAS, LIDAR):
        _add_sensor(tables, channel)
    for frame in range(2):
        _add_frame(tables, root, frame)
    tables['splits'] = {'all': ['scene-0001']}
    write_map(root)
    write_tables(root / 'v1.0-mini', tables)
    return tables


def _add_sensor(tables: dict, channel: str) -> None:
    camera = channel != LIDAR
    tables['sensor'].append(sensor_row(channel, camera))
    intrinsics = [[128.0, 0.0, 80.0], [0.0, 128.0, 48.0], [0.0, 0.0, 1.0]] if camera else []
    tables['calibrated_sensor'].append(
        {'token': f'calib-{channel}', 'sensor_token': f'sensor-{channel}', 'translation': [1.5,
         0.0, 1.6],
         'rotation': [0.5, -0.5, 0.5, -0.5], 'camera_intrinsic': intrinsics}
    )  # fmt: skip


def _add_frame(tables: dict, root: Path, frame: int) -> None:
    stamp_us = 1_531_883_530_000_000 + frame * 500_000
    chain = {'prev': '', 'next': 'sample1'} if frame == 0 else {'prev': 'sample0', 'next': ''}
    tables['sample'].append(
        {'token': f'sample{frame}', 'timestamp': stamp_us, 'scene_token': 'scene', **chain}
    )
    boxes = {'prev': '', 'next': 'box1'} if frame == 0 else {'prev': 'box0', 'next': ''}
    tables['sample_annotation'].append(
        {'token': f'box{frame}', 'sample_token': f'sample{frame}', 'instance_token': 'instance',
         'visibility_token': '4',
         'attribute_tokens': ['moving'], 'translation': [10.0 + frame, 0.0, 1.0], 'size': [2.0,
         4.5, 1.6], 'rotation': [1.0, 0.0, 0.0, 0.0],
         'num_lidar_pts': 5, 'num_radar_pts': 0, **boxes}
    )  # fmt: skip
    for channel in (*CAMERAS, LIDAR):
        token, ending = f'data-{channel}-{frame}', 'jpg' if channel != LIDAR else 'bin'
        filename = f'samples/{channel}/{frame}.{ending}'
        tables['ego_pose'].append(
            {
                'token': token,
                'timestamp': stamp_us,
                'translation': [frame * 2.0, 0.0, 0.0],
                'rotation': [1.0, 0.0, 0.0, 0.0],
            }
        )
        tables['sample_data'].append(
            {'token': token, 'sample_token': f'sample{frame}', 'ego_pose_token': token,
             'calibrated_sensor_token': f'calib-{channel}',
             'filename': filename, 'timestamp': stamp_us, 'is_key_frame': True,
             'fileformat': ending, 'width': 160, 'height': 96,
             'prev': '', 'next': ''}
        )  # fmt: skip
        (root / filename).parent.mkdir(parents=True, exist_ok=True)
        (root / filename).write_bytes(bytes(20))
