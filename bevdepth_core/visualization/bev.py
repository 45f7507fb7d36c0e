"""Renders boxes in a bird's-eye view."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D
from bevdepth_core.visualization.colors import FAINT, GRID, PANEL, TEXT, TRUTH, class_color
from bevdepth_core.visualization.drawing import (
    SHIFT,
    TRACK_ID_PX,
    draw_arrow,
    draw_dashed,
    draw_lines,
    draw_text,
    fixed_point,
    tint,
)

EGO_OUTLINE = ((3.8, 0.95), (3.8, -0.95), (-1.0, -0.95), (-1.0, 0.95))
"""Outline of the ego vehicle relative to the point below its rear axle, meters."""
MIN_ARROW_MPS = 0.3
"""Boxes with this speed or a smaller speed have no velocity arrow, m/s."""
_RING_STEP_M = 10
_RING_LABEL_DIRECTION = (0.72, -0.72)


def draw_bev(
    size: tuple[int, int],
    boxes: Boxes3D,
    labels: np.ndarray,
    *,
    class_names: Sequence[str] = NUSCENES_CLASSES,
    ground_truth: tuple[Boxes3D, np.ndarray] | None = None,
    reach_m: float = 52.0,
    track_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Return a bird's-eye view in which the ego vehicle faces upwards. It contains range rings,
    and boxes with heading and velocity arrow. The length of an arrow is the distance that the
    object moves in one second.

    Args:
        size: width and height, pixels.
        boxes: n boxes in the ego frame.
        labels: (n,) index into ``class_names``.
        class_names: class names to which the labels refer.
        ground_truth: annotated boxes and their labels, drawn as dashed outlines; ``boxes`` are
            drawn over them.
        reach_m: distance from the ego vehicle to the nearest border of the view, meters.
        track_ids: (n,) ids that are written beside the boxes; all boxes are drawn over the ids. An
            id of 0 is not written. None: no ids.
    """
    width, height = size
    scale = min(width, height) / 2 / reach_m
    canvas = np.full((height, width, 3), PANEL, np.uint8)
    _draw_rings(canvas, scale, reach_m)
    cv2.fillPoly(
        canvas,
        [fixed_point(_bev_pixels(np.array(EGO_OUTLINE), size, scale))],
        FAINT,
        cv2.LINE_AA,
        SHIFT,
    )
    if ground_truth is not None:
        _draw_truth(canvas, ground_truth[0], scale)
    outlines, noses, tips, speeds = _bev_parts(boxes)
    if track_ids is not None:  # before all boxes, so that no text covers a box
        for outline, track_id in zip(outlines, track_ids, strict=True):
            if track_id:
                place = _bev_pixels(outline, size, scale).max(axis=0) + 1
                draw_text(canvas, f'#{track_id}', place, TRACK_ID_PX, FAINT)
    for outline, nose, tip, speed, label in zip(
        outlines, noses, tips, speeds, labels, strict=True
    ):
        color = class_color(class_names[label])
        pixels = _bev_pixels(np.concatenate((outline, nose, tip)), size, scale)
        tint(canvas, pixels[:4], color)
        draw_lines(canvas, pixels[None, :4], color, 2, closed=True)
        draw_lines(canvas, pixels[None, 4:6], color, 2)
        if speed > MIN_ARROW_MPS:
            draw_arrow(canvas, pixels[4], pixels[6], TEXT)
    return canvas


def _bev_parts(boxes: Boxes3D) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return for each box the (4, 2) outline, the (2, 2) line from the center to the middle of
    the front side, the (1, 2) tip of the velocity arrow, and the speed.
    """
    corners = boxes.corners()[..., :2]
    outline = corners[:, (0, 1, 5, 4)]
    center = boxes.center[:, :2]
    nose = np.stack((center, corners[:, :2].mean(axis=1)), axis=1)
    return (
        outline,
        nose,
        (center + boxes.velocity)[:, None],
        np.linalg.norm(boxes.velocity, axis=-1),
    )


def _bev_pixels(points: np.ndarray, size: tuple[int, int], scale: float) -> np.ndarray:
    return np.stack(
        (size[0] / 2 - points[:, 1] * scale, size[1] / 2 - points[:, 0] * scale), axis=-1
    )


def _draw_rings(canvas: np.ndarray, scale: float, reach_m: float) -> None:
    height, width = canvas.shape[:2]
    center = np.array((width / 2, height / 2))
    for radius in range(_RING_STEP_M, int(reach_m * 1.5), _RING_STEP_M):
        cv2.circle(
            canvas,
            fixed_point(center).tolist(),
            int(radius * scale * (1 << SHIFT)),
            GRID,
            1,
            cv2.LINE_AA,
            SHIFT,
        )
        if radius < reach_m and radius % (2 * _RING_STEP_M) == 0:
            draw_text(
                canvas,
                f'{radius} m',
                center + radius * scale * np.array(_RING_LABEL_DIRECTION),
                12,
                FAINT,
            )
    cv2.line(canvas, (width // 2, 0), (width // 2, height), GRID, 1)
    cv2.line(canvas, (0, height // 2), (width, height // 2), GRID, 1)


def _draw_truth(canvas: np.ndarray, boxes: Boxes3D, scale: float) -> None:
    size = (canvas.shape[1], canvas.shape[0])
    for outline, nose, tip, speed in zip(*_bev_parts(boxes), strict=True):
        pixels = _bev_pixels(np.concatenate((outline, nose, tip)), size, scale)
        sides = np.stack((pixels[:4], np.roll(pixels[:4], -1, axis=0)), axis=1)
        draw_dashed(canvas, np.concatenate((sides, pixels[None, 4:6])), TRUTH)
        if speed > MIN_ARROW_MPS:
            draw_arrow(canvas, pixels[4], pixels[6], FAINT)
