"""Frames and detections of a vehicle whose base frame is not on the ground.

The network expects the ego frame on the ground, as in nuScenes. These functions convert between
the base frame and the frame on the ground below it.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bevdepth_core.types import Detections3D, Frame


def frame_on_ground(frame: Frame, height_m: float) -> Frame:
    """Return ``frame`` with cameras and poses relative to the ground below the base frame.

    Args:
        frame: frame with cameras and poses relative to the base frame.
        height_m: height of the base frame above the ground, meters.
    """
    if not height_m:
        return frame
    ground_from_base = np.eye(4)
    ground_from_base[2, 3] = height_m
    rig = replace(frame.rig, ego_from_camera=ground_from_base @ frame.rig.ego_from_camera)
    poses = frame.world_from_ego
    if poses is not None:
        poses = poses @ np.linalg.inv(ground_from_base)
    return replace(frame, rig=rig, world_from_ego=poses)


def detections_in_base(detections: Detections3D, height_m: float) -> Detections3D:
    """Transform detections from the frame on the ground to the base frame, which is ``height_m``
    meters above the ground.
    """
    if not height_m:
        return detections
    center = detections.boxes.center - np.array([0.0, 0.0, height_m])
    return replace(detections, boxes=replace(detections.boxes, center=center))
