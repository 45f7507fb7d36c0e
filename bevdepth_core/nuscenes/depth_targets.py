"""Computes the targets of the depth network: sparse depth maps from a lidar scan."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bevdepth_core.nuscenes.records import Pose, SensorRecord
from bevdepth_core.preprocess import ImageTransform

POINT_NUMBERS = 5
"""float32 numbers per point of a ``.pcd.bin`` file: x, y, z, intensity, ring."""
IMAGE_MARGIN = 1
"""Smallest distance of a point from the border of the source image, pixels."""


def read_points(path: str | Path) -> np.ndarray:
    """Return the (n, 3) float32 points of a ``.pcd.bin`` file in the lidar's frame, meters.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: the file is truncated.
    """
    numbers = np.fromfile(path, np.float32)
    if numbers.size % POINT_NUMBERS:
        raise ValueError(
            f'{path} is truncated: {numbers.size} numbers are not a multiple of {POINT_NUMBERS}; '
            'unpack it again'
        )
    return numbers.reshape(-1, POINT_NUMBERS)[:, :3]


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
        transforms: image transform of each camera; all give the same size.

    Returns:
        (N, height, width) float32, meters along the optical axis in the source camera, 0 where no
        point falls. Where several points fall, the last one of the scan is kept.

    Source: the official lidar projection, including its peculiarities: coordinates are truncated
        towards zero, so that points up to one pixel outside the left and upper edge are kept;
        near points do not hide far ones; points are rounded to float32 after every rigid
        transform. The maps therefore equal the official ones in every pixel.
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
    inside = ((pixels > IMAGE_MARGIN) & (pixels < np.array(camera.image_size) - IMAGE_MARGIN)).all(
        axis=1
    )
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
