"""Renders a frame: camera images with boxes, a bird's-eye view, depth as colors, and all of them
in one image.

All images are (height, width, 3) uint8 RGB. Functions do not change their arguments unless their
docstring says "in place".
"""

from bevdepth_core.visualization.bev import EGO_OUTLINE, MIN_ARROW_MPS, draw_bev
from bevdepth_core.visualization.cameras import BOX_EDGES, draw_boxes_on_image
from bevdepth_core.visualization.colors import CLASS_COLORS, UNKNOWN_CLASS_COLOR, class_color
from bevdepth_core.visualization.composition import (
    GroundTruth,
    camera_panel,
    camera_places,
    compose,
)
from bevdepth_core.visualization.depth import (
    DepthMaps,
    depth_points,
    draw_depth_on_image,
    expected_depth,
    likely_depth,
)
from bevdepth_core.visualization.drawing import draw_text

__all__ = [
    'BOX_EDGES',
    'CLASS_COLORS',
    'EGO_OUTLINE',
    'MIN_ARROW_MPS',
    'UNKNOWN_CLASS_COLOR',
    'DepthMaps',
    'GroundTruth',
    'camera_panel',
    'camera_places',
    'class_color',
    'compose',
    'depth_points',
    'draw_bev',
    'draw_boxes_on_image',
    'draw_depth_on_image',
    'draw_text',
    'expected_depth',
    'likely_depth',
]
