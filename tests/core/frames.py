"""Creates frames for tests. A frame has noise images of any number of cameras around the vehicle.
The vehicle moves along a straight line while its heading changes.
"""

from __future__ import annotations

import numpy as np
import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.geometry import invert_rigid, rigid_from_quaternion, to_4x4
from bevdepth_core.preprocess import normalize, preprocess
from bevdepth_core.types import CameraMatrices, CameraRig, Frame, ModelInputs

SECOND_NS = 1_000_000_000
OPTICAL = np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]])
"""Rotation that converts the axes of a forward-looking camera to the ego axes."""


def yaw_transform(yaw: float, translation=(0, 0, 0)) -> np.ndarray:
    return rigid_from_quaternion((np.cos(yaw / 2), 0, 0, np.sin(yaw / 2)), translation)


def make_rig(count: int = 6, width: int = 352, height: int = 200) -> CameraRig:
    """Return ``count`` cameras whose viewing directions are equally spread over 360 degrees."""
    poses = []
    for index in range(count):
        pose = yaw_transform(2 * np.pi * index / count, (1.0, 0.1 * index, 1.5))
        pose[:3, :3] = pose[:3, :3] @ OPTICAL
        poses.append(pose)
    intrinsics = np.array([[0.8 * width, 0, width / 2], [0, 0.8 * width, height / 2], [0, 0, 1]])
    return CameraRig(
        [f'camera_{index}' for index in range(count)], np.repeat(intrinsics[None], count, 0), poses
    )


def make_frame(
    stamp_s: float,
    rig: CameraRig | None = None,
    seed: int = 0,
    size: tuple[int, int] = (200, 352),
    poses: bool = True,
) -> Frame:
    """Return a frame of noise images of ``size`` (height, width).

    The cameras expose one after the other, with 8 ms between two cameras. If ``poses`` is False,
    the frame has no ego poses.
    """
    rig = make_rig() if rig is None else rig
    images = np.random.default_rng(seed).integers(0, 255, (len(rig), *size, 3), dtype=np.uint8)
    stamps = np.array([round((stamp_s + 0.008 * index) * SECOND_NS) for index in range(len(rig))])
    world_from_ego = [yaw_transform(0.1 * t, (5 * t, 0.3 * t, 0)) for t in stamps / SECOND_NS]
    return Frame(images, rig, stamps, world_from_ego if poses else None)


def two_frame_inputs(key: Frame, past: Frame, config: ModelConfig) -> ModelInputs:
    """Return the inputs of the network for a key frame and a past frame of the same cameras."""
    crops, image_aug = zip(
        *(preprocess(frame.images, config.image) for frame in (key, past)), strict=True
    )
    key_ego_from_past_camera = (
        invert_rigid(key.world_from_ego) @ past.world_from_ego @ past.rig.ego_from_camera
    )
    intrinsics = to_4x4(np.stack((key.rig.intrinsics, past.rig.intrinsics)))
    matrices = (
        np.stack((key.rig.ego_from_camera, key_ego_from_past_camera)),
        intrinsics,
        np.stack(image_aug),
    )
    return ModelInputs(
        normalize(torch.from_numpy(np.stack(crops)), config.image)[None],
        CameraMatrices(
            *(torch.from_numpy(matrix).float()[None] for matrix in matrices), torch.eye(4)[None]
        ),
    )
