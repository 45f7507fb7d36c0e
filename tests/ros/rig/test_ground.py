from __future__ import annotations

import numpy as np

from bevdepth_core.types import Boxes3D, CameraRig, Detections3D, Frame
from bevdepth_ros.rig.ground import detections_in_base, frame_on_ground


def frame() -> Frame:
    mount = np.array([[0, 0, 1, 1.5], [-1, 0, 0, 0], [0, -1, 0, 1.1], [0, 0, 0, 1]], np.float64)
    intrinsics = np.array([[[1266.0, 0, 800], [0, 1266.0, 450], [0, 0, 1]]])
    world_from_base = np.eye(4)[None].copy()
    world_from_base[0, :3, 3] = (10.0, 0.0, 0.4)
    rig = CameraRig(('front',), intrinsics, mount[None])
    image = np.zeros((900, 1600, 3), np.uint8)
    return Frame((image,), rig, np.array([10**9]), world_from_base)


def test_extrinsics_and_ego_poses_refer_to_the_ground_below_the_base_frame():
    on_ground = frame_on_ground(frame(), 0.4)
    assert np.allclose(on_ground.rig.ego_from_camera[0, :3, 3], (1.5, 0.0, 1.5))
    assert np.allclose(on_ground.world_from_ego[0, :3, 3], (10.0, 0.0, 0.0))


def test_boxes_are_returned_in_the_base_frame():
    boxes = Boxes3D(np.array([[5.0, 1.0, 0.8]]), np.ones((1, 3)), np.zeros(1), np.zeros((1, 2)))
    found = Detections3D(boxes, np.ones(1), np.zeros(1, np.int64), ('car',), 10**9)
    assert np.allclose(detections_in_base(found, 0.4).boxes.center, [[5.0, 1.0, 0.4]])


def test_a_frame_is_returned_unchanged_if_the_base_frame_is_on_the_ground():
    scene = frame()
    assert frame_on_ground(scene, 0.0) is scene
