"""Options of the small preset that official networks do not have: the width, the stride, and
intrinsics in pixels of the network image.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bevdepth_core.config import ImageEncoderConfig, ImageSpec
from bevdepth_core.model.depth_net import (
    CAMERA_VECTOR_SIZE,
    DepthNet,
    camera_vector,
    in_network_pixels,
)
from bevdepth_core.model.image_encoder import ImageEncoder
from bevdepth_core.model.view_transform import LiftSplat
from bevdepth_core.types import CameraMatrices
from tests.networks import TINY


@pytest.mark.parametrize('stride', [4, 8, 16])
def test_features_and_frustum_have_the_configured_stride(stride: int) -> None:
    encoder = ImageEncoderConfig(depth=18, neck_channels=4, width=8, stride=stride)
    features = ImageEncoder(encoder).eval()(torch.zeros(1, 3, 64, 96))
    assert features.shape == (1, 16, 64 // stride, 96 // stride)
    lift = LiftSplat(replace(TINY, image=ImageSpec(64, 96), image_encoder=encoder))
    assert (len(lift.frustum_v), len(lift.frustum_u)) == features.shape[2:]


def cameras_of(zoom: float) -> torch.Tensor:
    """Return a camera vector. The source image is ``zoom`` times as large as with ``zoom`` 1, and
    is resized to the same network image.
    """
    intrinsics = torch.eye(4)
    intrinsics[:2, :3] = zoom * torch.tensor([(633.0, 0.0, 408.0), (0.0, 634.0, 245.0)])
    image_aug = torch.eye(4)
    image_aug[:2, :2] = torch.tensor([(-0.67, 0.05), (0.06, 0.68)]) / zoom
    image_aug[:2, 3] = torch.tensor([540.0, -110.0])
    pose = torch.eye(4)
    pose[:3, 3] = torch.tensor([1.7, 0.0, 1.5])
    matrices = (matrix[None, None] for matrix in (pose, intrinsics, image_aug))
    return camera_vector(CameraMatrices(*matrices, torch.eye(4)[None]))


def test_the_camera_vector_in_network_pixels_is_equal_for_all_source_image_sizes() -> None:
    assert torch.allclose(
        in_network_pixels(cameras_of(2.0)), in_network_pixels(cameras_of(1.0)), rtol=1e-5
    )
    assert not torch.allclose(cameras_of(2.0), cameras_of(1.0), rtol=0.1)


def test_the_intrinsics_in_network_pixels_project_to_the_network_image() -> None:
    cameras = cameras_of(1.0)
    matrix = in_network_pixels(cameras)[0, 0, :6].view(2, 3)
    source = torch.tensor([(633.0, 0.0, 408.0), (0.0, 634.0, 245.0)]) @ torch.tensor(
        [0.3, -0.1, 1.0]
    )
    expected = torch.tensor([(-0.67, 0.05), (0.06, 0.68)]) @ source + torch.tensor([540.0, -110.0])
    assert torch.allclose(matrix @ torch.tensor([0.3, -0.1, 1.0]), expected, rtol=1e-5)


def test_the_length_of_the_camera_vector_depends_on_the_option_camera_pixels() -> None:
    for pixels, numbers in (('source', CAMERA_VECTOR_SIZE), ('network', CAMERA_VECTOR_SIZE - 4)):
        net = DepthNet(16, 8, replace(TINY.depth_net, camera_pixels=pixels)).eval()
        assert net.camera_norm.num_features == numbers
        depth, context = net(torch.zeros(1, 16, 4, 6), cameras_of(1.0)[0])
        assert depth.shape == (1, 8, 4, 6) and context.shape[2:] == (4, 6)
