"""A seeded drive through a made town, seen by six cameras and a lidar: data for everyone who has none.

``make_scene`` lays out the world, ``nuscenes_like_rig`` and ``ego_from_lidar`` say where the sensors sit, ``render_frame`` takes
the six pictures, ``scan`` turns the lidar once, ``visible_fractions`` says what an annotator could see.
"""

from bevdepth_core.nuscenes.synthetic.lidar import LidarScan, scan
from bevdepth_core.nuscenes.synthetic.render import render_camera, render_frame
from bevdepth_core.nuscenes.synthetic.rig import EXPOSURE_OFFSET_S, ego_from_lidar, nuscenes_like_rig
from bevdepth_core.nuscenes.synthetic.scene import Scene
from bevdepth_core.nuscenes.synthetic.town import make_scene
from bevdepth_core.nuscenes.synthetic.visibility import visible_fractions

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
