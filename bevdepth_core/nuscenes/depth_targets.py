"""Computes the targets of the depth network, which are sparse depth maps from a lidar scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.records import Pose, SensorRecord
from bevdepth_core.preprocess import ImageTransform

NUMBERS_PER_POINT = 5
"""A ``.pcd.bin`` file stores five float32 numbers per point: x, y, z, intensity and ring."""
IMAGE_MARGIN_PX = 1
"""A point is used only if its distance from every edge of the source image exceeds this number of
pixels."""


def read_points(path: str | Path) -> np.ndarray:
    """Return the (n, 3) float32 points of a ``.pcd.bin`` file in the lidar's frame, meters.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is truncated.
    """
    numbers = np.fromfile(path, np.float32)
    if numbers.size % NUMBERS_PER_POINT:
        raise ValueError(
            f'{path} is truncated: it contains {numbers.size} numbers, which is not a multiple of '
            f'{NUMBERS_PER_POINT}; unpack the file again'
        )
    return numbers.reshape(-1, NUMBERS_PER_POINT)[:, :3]


def depth_maps(
    points: np.ndarray,
    lidar: SensorRecord,
    cameras: Sequence[SensorRecord],
    transforms: Sequence[ImageTransform],
) -> np.ndarray:
    """Return the sparse depth maps of N cameras.

    Args:
        points: (n, 3) points in the lidar's frame.
        lidar: the lidar, with the ego pose of its scan.
        cameras: N cameras, each with the ego pose of its exposure.
        transforms: transform from the source image of each camera to the network input; all
            outputs have the same height and width.

    Returns:
        (N, height, width) float32, one map per camera. A pixel contains the depth of a point along
        the optical axis of the camera in meters, or 0 if the scan has no point at this pixel. If
        several points fall on a pixel, the depth of the point that is last in the scan is used.

    Source: the official lidar projection. Every pixel equals the official value, because this
        function also adopts three peculiarities:

        * Pixel coordinates are truncated towards zero. A point less than one pixel outside the
          left or upper edge of the network input is therefore kept.
        * A point is used even if a nearer surface hides it from the camera.
        * Coordinates are rounded to float32 after each rotation and each translation.
    """
    in_world = _to_parent(_to_parent(points, lidar.ego_from_sensor), lidar.world_from_ego)
    return np.stack(
        [
            _depth_map(in_world, camera, transform)
            for camera, transform in zip(cameras, transforms, strict=True)
        ]
    )


def _depth_map(
    in_world: np.ndarray, camera: SensorRecord, transform: ImageTransform
) -> np.ndarray:
    in_camera = _to_child(_to_child(in_world, camera.world_from_ego), camera.ego_from_sensor)
    in_front = in_camera[in_camera[:, 2] > 0]
    depth = in_front[:, 2]
    pixels = (in_front @ camera.intrinsics.T)[:, :2] / depth[:, None]
    upper = np.array(camera.image_size) - IMAGE_MARGIN_PX
    inside = ((pixels > IMAGE_MARGIN_PX) & (pixels < upper)).all(axis=1)
    return _rasterized(pixels[inside], depth[inside], transform)


def _to_parent(points: np.ndarray, pose: Pose) -> np.ndarray:
    return (points @ pose.matrix()[:3, :3].T).astype(np.float32) + pose.translation.astype(
        np.float32
    )


def _to_child(points: np.ndarray, pose: Pose) -> np.ndarray:
    return ((points - pose.translation.astype(np.float32)) @ pose.matrix()[:3, :3]).astype(
        np.float32
    )


def _rasterized(pixels: np.ndarray, depth: np.ndarray, transform: ImageTransform) -> np.ndarray:
    matrix = transform.matrix()
    columns, rows = np.trunc(pixels @ matrix[:2, :2].T + matrix[:2, 3]).astype(np.int64).T
    inside = (columns >= 0) & (columns < transform.width) & (rows >= 0) & (rows < transform.height)
    depths = np.zeros((transform.height, transform.width), np.float32)
    depths[rows[inside], columns[inside]] = depth[inside]
    return depths
