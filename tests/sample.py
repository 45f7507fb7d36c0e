"""Renders the synthetic sample, and reads this sample or the nuScenes sample of the reference
folder.

A sample is a folder in the format in which the official code prepares nuScenes. The folder
contains two key frames of six cameras. ``infos_2frames.json`` describes both frames, and
``infos.json`` describes only the second frame. Both files contain the paths of the JPEG files, and
the path of a lidar scan that is not in the folder.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from bevdepth_core.geometry import quaternion_from_rotation, rigid_from_quaternion
from bevdepth_core.nuscenes.classes import CAMERAS, LIDAR
from bevdepth_core.synthetic.sensors.render import render_frame
from bevdepth_core.synthetic.sensors.rig import ego_from_lidar, nuscenes_like_rig
from bevdepth_core.synthetic.sensors.schedule import LIDAR_STAMP_S
from bevdepth_core.synthetic.world.generator import make_scene
from bevdepth_core.types import CameraRig, Frame

TOKENS = ('past-frame', 'key-frame')
"""Tokens of the two frames, in order of time."""
STAMP_S = 1_531_883_530.0
PERIOD_S = 0.5
SEED = 3
ORIGIN = rigid_from_quaternion((-0.75, -0.008, 0.008, -0.66), (1010.0, 610.0, 0.0))
"""Transform from the synthetic world to the map. As in a real map, the vehicle is about 1 km from
the origin, and the ground has a slight slope."""

ANNOTATIONS = (
    ('movable_object.trafficcone', 12.0, 5.0, 0.0, 2),
    ('movable_object.trafficcone', 15.0, 5.5, 0.0, 3),
    ('vehicle.truck', 18.0, -7.0, 0.0, 171),
    ('vehicle.car', 25.0, 3.0, 6.0, 150),
    ('human.pedestrian.construction_worker', 9.0, 8.0, 0.0, 7),
    ('vehicle.car', -14.0, 3.0, 5.0, 151),
    ('vehicle.truck', -30.0, -8.0, 0.0, 9),
    ('human.pedestrian.construction_worker', 11.0, -9.0, 1.2, 10),
    ('movable_object.trafficcone', 19.0, 6.0, 0.0, 4),
    ('vehicle.truck', 40.0, 12.0, 0.0, 42),
)
"""Annotated objects: category, meters ahead of the vehicle, meters to the left, forward speed in
m/s, and number of lidar points."""
LABELS = (9, 9, 1, 0, 8, 0, 1, 8, 9, 1)
"""Class index of each annotation, in the class order of the official checkpoints."""
_SIZES = {
    'movable_object.trafficcone': (0.3, 0.29, 0.73),
    'vehicle.truck': (2.3, 6.9, 2.8),
    'vehicle.car': (1.9, 4.6, 1.7),
    'human.pedestrian.construction_worker': (0.7, 0.7, 1.8),
}
"""Size of each category in meters, in the order of nuScenes: width, length, height."""


@cache
def synthetic_sample() -> Path:
    """Return the folder of the synthetic sample, rendered once per process."""
    folder = Path(tempfile.mkdtemp(prefix='synthetic-sample-'))
    weakref.finalize(synthetic_sample, shutil.rmtree, folder, ignore_errors=True)
    scene, rig = make_scene(SEED, 2.0), nuscenes_like_rig(log_seed=SEED)
    infos = []
    for number, token in enumerate(TOKENS):
        frame = render_frame(scene, rig, PERIOD_S * number, start_ns=round(STAMP_S * 1e9))
        infos.append(_info(folder, token, frame, ORIGIN @ scene.world_from_ego(PERIOD_S * number)))
    (folder / 'infos_2frames.json').write_text(json.dumps(infos))
    (folder / 'infos.json').write_text(json.dumps(infos[-1:]))
    return folder


def sample_infos(sample: Path, name: str = 'infos_2frames.json') -> list[dict[str, Any]]:
    """Return the records of the frames of a sample, in the format of the official code."""
    return json.loads((sample / name).read_text())


def sample_paths(sample: Path) -> list[Path]:
    """Return the image paths of the second frame, in the camera order of the checkpoints."""
    cameras = sample_infos(sample, 'infos.json')[0]['cam_infos']
    return [sample / cameras[name]['filename'] for name in CAMERAS]


def sample_frames(sample: Path, name: str = 'infos_2frames.json') -> list[Frame]:
    """Return the frames of a sample as input of the detector, in order of time."""
    return [_frame(sample, info['cam_infos']) for info in sample_infos(sample, name)]


def _frame(sample: Path, cameras: dict[str, Any]) -> Frame:
    records = [cameras[name] for name in CAMERAS]
    calibrations = [record['calibrated_sensor'] for record in records]
    rig = CameraRig(
        CAMERAS,
        [calibration['camera_intrinsic'] for calibration in calibrations],
        [pose_matrix(calibration) for calibration in calibrations],
    )
    return Frame(
        [np.asarray(Image.open(sample / record['filename'])) for record in records],
        rig,
        [1000 * record['timestamp'] for record in records],
        [pose_matrix(record['ego_pose']) for record in records],
    )


def pose_matrix(record: dict[str, Any]) -> np.ndarray:
    """Return the (4, 4) transform of a nuScenes record with rotation and translation."""
    return rigid_from_quaternion(record['rotation'], record['translation'])


def _info(folder: Path, token: str, frame: Frame, map_from_ego: np.ndarray) -> dict[str, Any]:
    cameras = {name: _camera(folder, frame, index) for index, name in enumerate(frame.rig.names)}
    stamp_us = min(camera['timestamp'] for camera in cameras.values()) + round(LIDAR_STAMP_S * 1e6)
    lidar = {
        'timestamp': stamp_us,
        'filename': f'samples/{LIDAR}/sweep.pcd.bin',
        'ego_pose': _pose(map_from_ego),
        'calibrated_sensor': _pose(ego_from_lidar(SEED)) | {'camera_intrinsic': []},
    }
    return {
        'sample_token': token,
        'timestamp': stamp_us,
        'cam_infos': cameras,
        'lidar_infos': {LIDAR: lidar},
        'ann_infos': [_annotation(map_from_ego, *row) for row in ANNOTATIONS],
    }


def _camera(folder: Path, frame: Frame, index: int) -> dict[str, Any]:
    """Write one image and return its record."""
    name, stamp_us = frame.rig.names[index], int(frame.stamps_ns[index]) // 1000
    image, path = frame.images[index], Path('samples', name, f'{stamp_us}.jpg')
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    calibration = _pose(frame.rig.ego_from_camera[index])
    return {
        'timestamp': stamp_us,
        'filename': str(path),
        'width': image.shape[1],
        'height': image.shape[0],
        'ego_pose': _pose(ORIGIN @ frame.world_from_ego[index]),
        'calibrated_sensor': calibration
        | {'camera_intrinsic': frame.rig.intrinsics[index].tolist()},
    }


def _annotation(
    map_from_ego: np.ndarray, category: str, ahead: float, left: float, speed: float, points: int
) -> dict[str, Any]:
    size = _SIZES[category]
    center = map_from_ego @ (ahead, left, size[2] / 2, 1)
    velocity = map_from_ego[:3, :3] @ (speed, 0, 0)
    return {
        'category_name': category,
        'translation': center[:3].tolist(),
        'size': list(size),
        'rotation': _pose(map_from_ego)['rotation'],
        'velocity': velocity.tolist(),
        'visibility_token': '4',
        'attribute_tokens': [],
        'num_lidar_pts': points,
        'num_radar_pts': 0,
    }


def _pose(matrix: np.ndarray) -> dict[str, Any]:
    return {
        'rotation': list(quaternion_from_rotation(matrix[:3, :3])),
        'translation': matrix[:3, 3].tolist(),
    }
