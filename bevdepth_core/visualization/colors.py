"""Defines RGB colors. Each class has the same color in rendered images, ROS markers and the
live view.
"""

from __future__ import annotations

import cv2
import numpy as np

CLASS_COLORS: dict[str, tuple[int, int, int]] = {
    'car': (255, 158, 0),
    'truck': (219, 66, 16),
    'construction_vehicle': (255, 250, 118),
    'bus': (192, 30, 105),
    'trailer': (159, 112, 255),
    'barrier': (64, 125, 184),
    'motorcycle': (94, 222, 153),
    'bicycle': (12, 191, 183),
    'pedestrian': (127, 200, 255),
    'traffic_cone': (189, 97, 75),
}
"""RGB per class. All pairs differ clearly, also for people with protanopia or deuteranopia."""

UNKNOWN_CLASS_COLOR = (210, 210, 210)
"""Color of classes that nuScenes does not have."""

TRUTH = (255, 255, 255)
BACKGROUND, PANEL, GRID, FAINT, TEXT = (
    (16, 18, 22),
    (24, 27, 33),
    (58, 64, 74),
    (150, 158, 170),
    (236, 238, 242),
)


def class_color(name: str) -> tuple[int, int, int]:
    """Return the RGB color of a class."""
    return CLASS_COLORS.get(name, UNKNOWN_CLASS_COLOR)


def depth_colors(depth: np.ndarray, nearest_m: float, farthest_m: float) -> np.ndarray:
    """Return (..., 3) uint8 RGB, from red for near depths to blue for far depths.

    The scale is logarithmic: most colors are for near depths, because errors at near depths
    matter most.

    Args:
        depth: (...) meters, more than 0.
        nearest_m: smallest depth of the color scale, meters. Smaller depths have the same color.
        farthest_m: largest depth of the color scale, meters. Larger depths have the same color.
    """
    share = np.log(np.maximum(depth, nearest_m) / nearest_m) / np.log(farthest_m / nearest_m)
    steps = np.rint(255 * (1 - np.clip(share, 0, 1))).astype(np.uint8)
    return cv2.applyColorMap(steps.reshape(-1, 1), cv2.COLORMAP_TURBO)[:, 0, ::-1].reshape(
        *np.shape(depth), 3
    )
