"""A seeded drive through a made town, seen by six cameras and a lidar: data for everyone who has
none.

``make_scene`` lays out the world, ``nuscenes_like_rig`` and ``ego_from_lidar`` say where the
sensors sit, ``render_frame`` takes the six pictures, ``scan`` turns the lidar once,
``visible_fractions`` says what an annotator could see.
"""

from bevdepth_core.synthetic.sensors.lidar import LidarScan, scan
from bevdepth_core.synthetic.sensors.render import render_camera, render_frame
from bevdepth_core.synthetic.sensors.rig import (
    EXPOSURE_OFFSET_S,
    ego_from_lidar,
    nuscenes_like_rig,
)
from bevdepth_core.synthetic.sensors.visibility import visible_fractions
from bevdepth_core.synthetic.world.scene import Scene
from bevdepth_core.synthetic.world.town import make_scene

__all__ = [
    'EXPOSURE_OFFSET_S',
    'LidarScan',
    'Scene',
    'ego_from_lidar',
    'make_scene',
    'nuscenes_like_rig',
    'render_camera',
    'render_frame',
    'scan',
    'visible_fractions',
]
