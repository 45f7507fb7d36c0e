"""Synthetic drives: a seeded world with traffic, rendered for six cameras and a lidar.

``make_scene`` generates the world, ``nuscenes_like_rig`` and ``ego_from_lidar`` return the
calibration of the sensors, ``render_frame`` renders the six images, ``scan`` returns one lidar
scan, and ``visible_fractions`` returns the fraction of each actor that is visible in the images.
"""

from bevdepth_core.synthetic.sensors.lidar import LidarScan, scan
from bevdepth_core.synthetic.sensors.render import render_camera, render_frame
from bevdepth_core.synthetic.sensors.rig import (
    EXPOSURE_OFFSET_S,
    ego_from_lidar,
    nuscenes_like_rig,
)
from bevdepth_core.synthetic.sensors.visibility import visible_fractions
from bevdepth_core.synthetic.world.generator import make_scene
from bevdepth_core.synthetic.world.scene import SyntheticScene

__all__ = [
    'EXPOSURE_OFFSET_S',
    'LidarScan',
    'SyntheticScene',
    'ego_from_lidar',
    'make_scene',
    'nuscenes_like_rig',
    'render_camera',
    'render_frame',
    'scan',
    'visible_fractions',
]
