"""Sparse depth maps from a lidar sweep: what the depth network is taught."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.records import Pose, SensorRecord
from bevdepth_core.preprocess import ImageTransform

POINT_NUMBERS = 5
"""float32 numbers per point of a ``.pcd.bin`` file: x, y, z, intensity, ring."""
IMAGE_MARGIN = 1
"""Points must lie more than this inside the source image, pixels."""


def read_points(path: str | Path) -> np.ndarray:
    """Return the (n, 3) float32 points of a ``.pcd.bin`` file in the lidar's frame, metres.

    Raises:
        ValueError: the file is cut off.
    """
    numbers = np.fromfile(path, np.float32)
    if numbers.size % POINT_NUMBERS:
        raise ValueError(f'{path} is cut off: {numbers.size} numbers are not a multiple of {POINT_NUMBERS}; unpack it again')
    return numbers.reshape(-1, POINT_NUMBERS)[:, :3]


def depth_map(points: np.ndarray, lidar: SensorRecord, camera: SensorRecord, transform: ImageTransform) -> np.ndarray:
    """Return the sparse depth map of one camera.

    Args:
        points: (n, 3) points in the lidar's frame.
        lidar: the lidar, with the ego pose of its sweep.
        camera: the camera, with the ego pose of its exposure.
        transform: what is done to the camera's image.

    Returns:
        (height, width) float32, metres along the optical axis in the unscaled source camera, 0 where no point falls.
        Where several fall the last of the sweep counts.

    Source: the official lidar projection. Two of its oddities are kept: coordinates are truncated towards zero, so that
    points up to one pixel outside the left and upper edge count, and near points do not hide far ones.
    """
    in_camera = _in_camera(points, lidar, camera)
    in_front = in_camera[in_camera[:, 2] > 0]
    depth = in_front[:, 2]
    pixels = (in_front @ camera.intrinsics.T)[:, :2] / depth[:, None]
    inside = ((pixels > IMAGE_MARGIN) & (pixels < np.array(camera.image_size) - IMAGE_MARGIN)).all(axis=1)
    return _painted(pixels[inside], depth[inside], transform)


def _in_camera(points: np.ndarray, lidar: SensorRecord, camera: SensorRecord) -> np.ndarray:
    """Return the (n, 3) points in the camera's frame, lidar to ego to world to ego to camera.

    Rounded to float32 after every step as in the official code: with that the depth maps are equal to the last pixel.
    """
    for pose in (lidar.ego_from_sensor, lidar.world_from_ego):
        rotation, translation = _rotation_and_translation(pose)
        points = (points @ rotation.T).astype(np.float32) + translation
    for pose in (camera.world_from_ego, camera.ego_from_sensor):
        rotation, translation = _rotation_and_translation(pose)
        points = ((points - translation) @ rotation).astype(np.float32)
    return points


def _rotation_and_translation(pose: Pose) -> tuple[np.ndarray, np.ndarray]:
    return pose.matrix()[:3, :3], pose.translation.astype(np.float32)


def _painted(pixels: np.ndarray, depth: np.ndarray, transform: ImageTransform) -> np.ndarray:
    matrix = transform.matrix()
    columns, rows = np.trunc(pixels @ matrix[:2, :2].T + matrix[:2, 3]).astype(np.int64).T
    inside = (columns >= 0) & (columns < transform.width) & (rows >= 0) & (rows < transform.height)
    depths = np.zeros((transform.height, transform.width), np.float32)
    depths[rows[inside], columns[inside]] = depth[inside]
    return depths
