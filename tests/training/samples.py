"""Creates samples that contain noise.

This module does not import Lightning, so that worker processes start fast.
"""

from __future__ import annotations

import numpy as np
import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.types import CameraMatrices
from tests.networks import TINY

CAMERAS = 2


def noise_sample(
    place: int, rng: np.random.Generator, network: ModelConfig = TINY, cameras: int = CAMERAS
) -> Sample:
    """Return a sample for ``network``.

    Boxes and depth depend only on ``place``, the index of the sample in its dataset. Images and
    image augmentation are drawn from ``rng``.
    """
    fixed = np.random.default_rng(place)
    frames, (height, width), reach = (
        network.key_frames,
        (network.image.height, network.image.width),
        network.grid.x[1],
    )
    intrinsics = np.array(
        [
            (0.6 * width, 0, width / 2, 0),
            (0, 0.6 * width, height / 2, 0),
            (0, 0, 1, 0),
            (0, 0, 0, 1),
        ]
    )
    center, size = (
        fixed.uniform(-reach, reach, (6, 3)) * (1, 1, 0.1),
        fixed.uniform(0.5, 5, (6, 3)),
    )
    depth = np.where(
        fixed.random((cameras, height, width)) < 0.02,
        fixed.uniform(1, 20, (cameras, height, width)),
        0,
    )
    image_aug = np.eye(4) + rng.uniform(-0.05, 0.05) * np.diag([1, 1, 0, 0])
    return Sample(
        name=f'sample {place}',
        images=torch.from_numpy(
            rng.integers(0, 256, (frames, cameras, height, width, 3), np.uint8)
        ),
        matrices=CameraMatrices(
            _repeated(_ring(cameras), frames, cameras),
            _repeated(intrinsics, frames, cameras),
            _repeated(image_aug, frames, cameras),
            torch.eye(4),
        ),
        boxes=torch.from_numpy(
            np.column_stack([center, size, fixed.normal(size=(6, 3))]).astype(np.float32)
        ),
        labels=torch.from_numpy(fixed.integers(0, 10, 6)),
        depth=torch.from_numpy(depth.astype(np.float32)),
        scores=torch.ones(6),
        camera_count=cameras,
    )


def _ring(cameras: int) -> np.ndarray:
    """Return the (cameras, 4, 4) poses of cameras 1.5 m above the ego origin.

    The viewing directions are spread evenly over 360 degrees.
    """
    forward = np.array([(0, 0, 1, 0), (-1, 0, 0, 0), (0, -1, 0, 1.5), (0, 0, 0, 1)])
    turns = np.stack([np.eye(4)] * cameras)
    angles = 2 * np.pi * np.arange(cameras) / cameras
    turns[:, 0, 0], turns[:, 0, 1], turns[:, 1, 0], turns[:, 1, 1] = (
        np.cos(angles),
        -np.sin(angles),
        np.sin(angles),
        np.cos(angles),
    )
    return turns @ forward


def _repeated(matrix: np.ndarray, frames: int, cameras: int) -> torch.Tensor:
    return torch.from_numpy(matrix.astype(np.float32)).expand(frames, cameras, 4, 4)
