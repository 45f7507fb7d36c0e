"""The order of the camera vector, and NaN in a deformable convolution."""

import torch

from bevdepth_core.model.depth_net import DeformableConv, camera_vector
from bevdepth_core.types import CameraMatrices


def test_the_camera_vector_contains_the_numbers_of_the_official_code_in_the_same_order():
    pose, intrinsics, image_aug, bev_aug = (
        first + torch.arange(16.0).view(4, 4) for first in (0, 100, 200, 300)
    )
    matrices = CameraMatrices(
        *(matrix[None, None] for matrix in (pose, intrinsics, image_aug)), bev_aug[None]
    )
    assert camera_vector(matrices)[0, 0].tolist() == [
        *(100, 105, 102, 106),  # fx fy cx cy
        *(200, 201, 203, 204, 205, 207),  # image augmentation
        *(300, 301, 304, 305, 310),  # BEV augmentation
        *range(12),  # pose
    ]


def test_nan_features_of_a_deformable_convolution_give_nan_outputs():
    deform = DeformableConv(4).eval()
    found = deform(torch.full((1, 4, 8, 8), torch.nan))
    assert found.shape == (1, 4, 8, 8)
    assert found.isnan().any()
