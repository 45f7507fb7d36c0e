"""Writes a nuScenes sample as a bag that contains the JPEG files of the sample unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.types import CameraRig
from bevdepth_ros.bags.writer import BagWriter
from tests.sample import pose_matrix, sample_infos


def write_sample_bag(
    sample: Path,
    out_path: str | Path,
    infos_name: str = 'infos_2frames.json',
    storage: str = 'sqlite3',
) -> Path:
    """Write the frames of ``sample`` as a bag and return ``out_path``.

    Each image has its recorded stamp and ego pose. /tf_static contains the extrinsics of the first
    frame.
    """
    with BagWriter(out_path, storage) as bag:
        for number, (cameras, rig) in enumerate(_frames(sample_infos(sample, infos_name))):
            stamps_ns = [camera['timestamp'] * 1000 for camera in cameras]
            if number == 0:
                bag.write_static_transforms(rig, min(stamps_ns))
            poses = np.stack([pose_matrix(camera['ego_pose']) for camera in cameras])
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
                np.stack([pose_matrix(calibration) for calibration in calibrations]),
            ),
        )
