"""A seeded drive through a made town, seen by six cameras: data for everyone who has none.

``make_scene`` lays out the world, ``nuscenes_like_rig`` the cameras, ``render_frame`` takes the six pictures.
"""

from bevdepth_core.nuscenes.synthetic.render import render_camera, render_frame
from bevdepth_core.nuscenes.synthetic.rig import EXPOSURE_OFFSET_S, nuscenes_like_rig
from bevdepth_core.nuscenes.synthetic.scene import Scene
from bevdepth_core.nuscenes.synthetic.town import make_scene

__all__ = ['EXPOSURE_OFFSET_S', 'Scene', 'make_scene', 'nuscenes_like_rig', 'render_camera', 'render_frame']
