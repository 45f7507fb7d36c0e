"""Renders boxes in camera images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.types import Boxes3D, Frame
from bevdepth_core.visualization.colors import TRUTH, class_color
from bevdepth_core.visualization.drawing import (
    TRACK_ID_PX,
    draw_dashed,
    draw_lines,
    draw_text,
    tint,
)

BOX_EDGES = np.array(
    (
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 0),
        (4, 5),
        (5, 6),
        (6, 7),
        (7, 4),
        (0, 4),
        (1, 5),
        (2, 6),
        (3, 7),
    )
)
"""Edges of a box: pairs of indices into ``Boxes3D.corners``."""
_NEAR = 0.2
_CLIP_MARGIN_PX = 8.0
_SMALL_BOX_PX = 20.0
"""A box is small if its height in the image is less than this number of pixels. A small detected
box is drawn with thin lines, and a small annotated box as a rectangle, because twelve thick edges
would cover the object."""


def draw_boxes_on_image(
    image: np.ndarray,
    boxes: Boxes3D,
    labels: np.ndarray,
    intrinsics: np.ndarray,
    camera_from_ego: np.ndarray,
    *,
    class_names: Sequence[str] = NUSCENES_CLASSES,
    ground_truth: bool = False,
    thickness: int = 2,
    track_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Return ``image`` with boxes: edges in the class color and a tinted front face. Far boxes are
    drawn first.

    Args:
        image: (height, width, 3) uint8 RGB.
        boxes: n boxes in the ego frame.
        labels: (n,) index into ``class_names``.
        intrinsics: (3, 3) for pixels of ``image``.
        camera_from_ego: (4, 4) rigid transform.
        class_names: class names to which the labels refer.
        ground_truth: True: draw the edges as thin dashed white lines, without a tint, and a small
            box as a dashed rectangle.
        thickness: line width, pixels.
        track_ids: (n,) ids that are written above boxes that are not small; all boxes are drawn
            over the ids. An id of 0 is not written. None: no ids.
    """
    canvas = image.copy()
    corners = boxes.corners() @ camera_from_ego[:3, :3].T + camera_from_ego[:3, 3]
    order = np.argsort(-corners[..., 2].mean(axis=1))
    edges = {
        index: _edges_in_image(corners[index], intrinsics, image.shape)
        for index in order
        if corners[index, :, 2].max() > _NEAR
    }
    if track_ids is not None:  # before all boxes, so that no text covers a box
        _draw_ids(canvas, {track_ids[index]: segments for index, segments in edges.items()})
    for index, segments in edges.items():
        small = _is_small(segments)
        if ground_truth:
            draw_dashed(canvas, _rectangle_around(segments) if small else segments, TRUTH)
            continue
        color = class_color(class_names[labels[index]])
        if corners[index, :4, 2].min() > _NEAR:
            tint(canvas, _project(corners[index, :4], intrinsics), color)
        draw_lines(canvas, segments, color, 1 if small else thickness)
    return canvas


def _is_small(segments: np.ndarray) -> bool:
    return bool(len(segments)) and np.ptp(segments[..., 1]) < _SMALL_BOX_PX


def _draw_ids(canvas: np.ndarray, edges: dict[int, np.ndarray]) -> None:
    """Write track ids above boxes that are not small; ``edges`` maps an id to its box's edges."""
    for track_id, segments in edges.items():
        if track_id and len(segments) and not _is_small(segments):
            above = segments.min(axis=(0, 1)) - (0, TRACK_ID_PX + 4)
            draw_text(canvas, f'#{track_id}', np.maximum(above, 0), TRACK_ID_PX, shadow=True)


def camera_from_mean_ego(frame: Frame, index: int) -> np.ndarray:
    """Return the (4, 4) transform from the frame of the detections, which is the mean of all ego
    poses, to the frame of the camera at its exposure time.
    """
    camera_from_ego = invert_rigid(frame.rig.ego_from_camera[index])
    if frame.world_from_ego is None:
        return camera_from_ego
    mean = frame.world_from_ego.mean(axis=0)
    left, _, right = np.linalg.svd(mean[:3, :3])
    mean[:3, :3] = left @ right
    return camera_from_ego @ invert_rigid(frame.world_from_ego[index]) @ mean


def moved(boxes: Boxes3D, seconds: float) -> Boxes3D:
    """Return the boxes at their positions after ``seconds``, if their velocities are constant. A
    negative time gives earlier positions.
    """
    center = boxes.center.copy()
    center[:, :2] += boxes.velocity * seconds
    return Boxes3D(center, boxes.size, boxes.yaw, boxes.velocity)


def _project(points: np.ndarray, intrinsics: np.ndarray) -> np.ndarray:
    pixels = points @ intrinsics.T
    return pixels[..., :2] / pixels[..., 2:]


def _edges_in_image(
    corners: np.ndarray, intrinsics: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Return the visible edges of a box as (m, 2, 2) segments, pixels. They are clipped at the
    near plane and slightly outside of the image.
    """
    start, stop = corners[BOX_EDGES[:, 0]], corners[BOX_EDGES[:, 1]]
    rise = np.where(stop[:, 2] == start[:, 2], 1, stop[:, 2] - start[:, 2])
    crossing = start + (stop - start) * ((_NEAR - start[:, 2]) / rise)[:, None]
    visible = (start[:, 2] > _NEAR) | (stop[:, 2] > _NEAR)
    start, stop = (np.where(end[:, 2:] > _NEAR, end, crossing)[visible] for end in (start, stop))
    segments = np.stack((_project(start, intrinsics), _project(stop, intrinsics)), axis=1)
    return _clip_to_image(segments, shape)


def _rectangle_around(segments: np.ndarray) -> np.ndarray:
    """Return the (4, 2, 2) sides of the upright rectangle around (m, 2, 2) segments."""
    (left, top), (right, bottom) = segments.min(axis=(0, 1)), segments.max(axis=(0, 1))
    corners = np.array(((left, top), (right, top), (right, bottom), (left, bottom)))
    return np.stack((corners, np.roll(corners, -1, axis=0)), axis=1)


def _clip_to_image(segments: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Clip (m, 2, 2) segments to the image plus a margin, so that clipped ends are not visible."""
    low, high = np.full(2, -_CLIP_MARGIN_PX), np.array((shape[1], shape[0])) + _CLIP_MARGIN_PX
    start, direction = segments[:, 0], segments[:, 1] - segments[:, 0]
    steps = np.where(direction == 0, 1e-9, direction)
    at_low, at_high = (low - start) / steps, (high - start) / steps
    enter = np.maximum(np.minimum(at_low, at_high).max(axis=1, initial=0), 0)
    leave = np.minimum(np.maximum(at_low, at_high).min(axis=1, initial=1), 1)
    ends = start[:, None] + direction[:, None] * np.stack((enter, leave), axis=1)[..., None]
    return ends[enter < leave]
