"""Finds the annotations that are visible in a camera image of their sample."""

from __future__ import annotations

import itertools

import numpy as np

from bevdepth_core.geometry import invert_rigid, rigid_from_quaternion, to_4x4
from bevdepth_core.nuscenes.columns import Columns

_POINTS = np.array(list(itertools.product((-0.5, 0.0, 0.5), repeat=3)))
"""Points of a box that are projected, in shares of its length, width and height: the center, the
corners, and the centers of edges and faces."""


def in_view(columns: Columns, cameras: int, rows: np.ndarray) -> np.ndarray:
    """Return a (n,) mask that is True for each annotation with at least one of ``_POINTS`` in an
    image of its sample.

    Occlusion, and the motion of an object between the stamps of two sensors, are ignored.

    Args:
        columns: see ``scene_columns``.
        cameras: number of cameras, which are the first sensors of ``columns``.
        rows: (n,) mask of the annotations to test; the result is False for all other annotations.
    """
    mask = np.zeros(len(rows), bool)
    ends = np.cumsum(columns['annotations'])
    for position, (end, count) in enumerate(zip(ends, columns['annotations'], strict=True)):
        chosen = np.flatnonzero(rows[end - count : end]) + end - count
        if len(chosen):
            points = _world_points(columns, chosen)
            seen = [_inside(columns, position, number, points) for number in range(cameras)]
            mask[chosen] = np.any(seen, axis=0).any(axis=1)
    return mask


def _world_points(columns: Columns, rows: np.ndarray) -> np.ndarray:
    """Return (n, points, 4) homogeneous points in the world frame."""
    size = columns['size'][rows][:, [1, 0, 2]]
    points = np.pad(_POINTS * size[:, None], ((0, 0), (0, 0), (0, 1)), constant_values=1.0)
    poses = [
        rigid_from_quaternion(columns['quaternion'][row], columns['center'][row]) for row in rows
    ]
    return points @ np.array(poses).swapaxes(1, 2)


def _inside(columns: Columns, position: int, number: int, points: np.ndarray) -> np.ndarray:
    """Return a (n, points) mask of the points in the image of one camera of one sample."""
    world_from_ego, ego_from_camera = (
        rigid_from_quaternion(
            columns[f'{name}_quaternion'][position, number],
            columns[f'{name}_translation'][position, number],
        )
        for name in ('ego', 'sensor')
    )
    camera_from_world = invert_rigid(world_from_ego @ ego_from_camera)
    image_from_world = to_4x4(columns['intrinsics'][position, number]) @ camera_from_world
    projected = points @ image_from_world.T
    depth = projected[..., 2]
    pixels = projected[..., :2] / np.where(depth > 0, depth, np.inf)[..., None]
    inside = (pixels >= 0) & (pixels < columns['image_size'][position, number])
    return (depth > 0) & inside.all(axis=-1)
