"""Colours, RGB: one per class, the same in pictures, ROS markers and the web viewer, and those of
the pictures' frame.
"""

from __future__ import annotations

import cv2
import numpy as np

CLASS_COLORS: dict[str, tuple[int, int, int]] = {
    'car': (255, 158, 0),
    'truck': (255, 84, 60),
    'construction_vehicle': (232, 214, 64),
    'bus': (255, 92, 172),
    'trailer': (186, 120, 255),
    'barrier': (150, 164, 178),
    'motorcycle': (88, 214, 141),
    'bicycle': (0, 200, 190),
    'pedestrian': (70, 150, 255),
    'traffic_cone': (205, 133, 83),
}
"""RGB per class, far enough apart to be told from each other."""

UNKNOWN_CLASS_COLOR = (210, 210, 210)
"""Classes that are not nuScenes ones."""

TRUTH = (255, 255, 255)
BACKGROUND, PANEL, GRID, FAINT, TEXT = (
    (16, 18, 22),
    (24, 27, 33),
    (58, 64, 74),
    (150, 158, 170),
    (236, 238, 242),
)


def class_color(name: str) -> tuple[int, int, int]:
    """Return the RGB colour of a class."""
    return CLASS_COLORS.get(name, UNKNOWN_CLASS_COLOR)


def depth_colors(depth: np.ndarray, nearest_m: float, farthest_m: float) -> np.ndarray:
    """Return (..., 3) uint8 RGB, near red, far blue, on a logarithmic scale: the near, where
    errors matter, gets most colours.

    Args:
        depth: (...) metres, more than 0.
        nearest_m: depth of the first colour.
        farthest_m: depth of the last colour.
    """
    share = np.log(np.maximum(depth, nearest_m) / nearest_m) / np.log(farthest_m / nearest_m)
    steps = np.rint(255 * (1 - np.clip(share, 0, 1))).astype(np.uint8)
    return cv2.applyColorMap(steps.reshape(-1, 1), cv2.COLORMAP_TURBO)[:, 0, ::-1].reshape(
        *np.shape(depth), 3
    )
