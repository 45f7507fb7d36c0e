"""The real nuScenes sample of the reference folder as a bag, JPEG bytes untouched."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bevdepth_core.geometry import rigid_from_quaternion
from bevdepth_core.types import CameraRig
from bevdepth_ros.bags.writer import BagWriter

CAMERAS = (
    'CAM_FRONT_LEFT',
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK',
    'CAM_BACK_RIGHT',
)
"""Order of the checkpoints."""


def write_sample_bag(
    reference_dir: str | Path, infos_name: str, out_path: str | Path, storage: str = 'sqlite3'
) -> Path:
    """Write the frames of ``nuscenes_sample/<infos_name>`` as a bag and return ``out_path``.

    Each camera has its own stamp and ego pose, as recorded; the first frame's calibration becomes
    /tf_static.
    """
    sample = Path(reference_dir) / 'nuscenes_sample'
    infos = json.loads((sample / infos_name).read_text())
    with BagWriter(out_path, storage) as bag:
        for number, (cameras, rig) in enumerate(_frames(infos)):
            stamps_ns = [camera['timestamp'] * 1000 for camera in cameras]
            if number == 0:
                bag.write_static_transforms(rig, min(stamps_ns))
            poses = np.stack([_matrix(camera['ego_pose']) for camera in cameras])
            jpegs = [(sample / camera['filename']).read_bytes() for camera in cameras]
            bag.write_frame(
                rig, stamps_ns, poses, jpegs, (cameras[0]['width'], cameras[0]['height'])
            )
    return Path(out_path)


def _frames(infos: list[dict]) -> Iterator[tuple[list[dict], CameraRig]]:
    """Yield each frame's cameras and rig, in order of time."""
    for info in sorted(infos, key=lambda info: info['timestamp']):
        cameras = [info['cam_infos'][name] for name in CAMERAS]
        calibrations = [camera['calibrated_sensor'] for camera in cameras]
        intrinsics = np.array([calibration['camera_intrinsic'] for calibration in calibrations])
        yield (
            cameras,
            CameraRig(
                CAMERAS,
                intrinsics,
                np.stack([_matrix(calibration) for calibration in calibrations]),
            ),
        )


def _matrix(pose: dict) -> np.ndarray:
    return rigid_from_quaternion(pose['rotation'], pose['translation'])
