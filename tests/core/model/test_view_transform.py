"""The axes of the frustum, the matrices of the view transform, and depth refinement."""

import dataclasses

import pytest
import torch

from bevdepth_core.config import DepthBins, ImageSpec
from bevdepth_core.model.view_transform import (
    DepthRefinement,
    ImageFeatures,
    LiftSplat,
    camera_from_frustum,
    ego_from_frustum,
)
from bevdepth_core.types import CameraMatrices
from tests.networks import TINY


def matrices() -> CameraMatrices:
    intrinsics, image_aug, pose, bev_aug = (torch.eye(4) for _ in range(4))
    intrinsics[:2, :3] = torch.tensor([(600.0, 0.0, 400.0), (0.0, 610.0, 250.0)])
    image_aug[:2, :2] = torch.tensor([(0.4, 0.1), (-0.1, 0.5)])
    image_aug[:2, 3] = torch.tensor([-30.0, -140.0])
    pose[:3, :3] = torch.tensor([(0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)])
    pose[:3, 3] = torch.tensor([1.7, 0.1, 1.5])
    bev_aug[:2, :2] = torch.tensor([(0.0, -1.1), (1.1, 0.0)])
    return CameraMatrices(
        *(matrix[None, None] for matrix in (pose, intrinsics, image_aug)), bev_aug[None]
    )


def test_the_matrices_invert_the_projection_and_the_image_augmentation_of_a_point():
    cameras = matrices()
    in_camera = torch.tensor([1.5, -0.5, 12.0, 1.0])
    source = cameras.intrinsics[0, 0] @ in_camera
    source = torch.tensor([source[0] / 12, source[1] / 12, 12.0, 1.0])
    u, v, depth, _ = cameras.image_aug[0, 0] @ source
    frustum = torch.tensor([u * depth, v * depth, depth, 1.0])
    back = camera_from_frustum(cameras.intrinsics, cameras.image_aug)
    assert back.dtype == torch.float64
    assert torch.allclose(back[0, 0] @ frustum.double(), in_camera.double(), atol=1e-3)
    ego = cameras.bev_aug[0] @ cameras.key_ego_from_camera[0, 0] @ in_camera
    matrix = ego_from_frustum(cameras)
    assert matrix.shape == (1, 1, 3, 4) and matrix.dtype == torch.float32
    assert torch.allclose(matrix[0, 0] @ frustum, ego[:3], atol=1e-3)


def test_the_frustum_covers_all_pixels_and_all_depth_bins():
    config = dataclasses.replace(
        TINY, image=ImageSpec(64, 96), depth_bins=DepthBins(2.0, 6.0, 0.5)
    )
    lift = LiftSplat(config)
    assert lift.frustum_u.tolist() == pytest.approx([0, 19, 38, 57, 76, 95])
    assert lift.frustum_v.tolist() == pytest.approx([0, 21, 42, 63])
    assert lift.frustum_d.tolist() == [2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5]


def test_only_models_with_depth_refinement_return_a_refined_volume():
    depth, context = torch.rand(1, 2, 8, 2, 4).softmax(dim=2), torch.randn(1, 2, 4, 2, 4)
    plain = LiftSplat(TINY).refine(depth, context)
    assert plain.volume is None and plain.depth is depth and plain.context is context
    config = dataclasses.replace(
        TINY, depth_net=dataclasses.replace(TINY.depth_net, refinement=True)
    )
    refined = LiftSplat(config).eval().refine(depth, context)
    assert refined.volume is not None and refined.volume.shape == (1, 2, 4, 8, 2, 4)


def test_depth_refinement_convolves_only_over_width_and_depth_within_one_row_of_one_camera():
    refinement = DepthRefinement(4).eval()
    depth, context = torch.rand(1, 2, 8, 3, 5), torch.randn(1, 2, 4, 3, 5)
    before = refinement(depth, context)
    depth[0, 1, 3, 2, 2] += 1
    changed = (refinement(depth, context) != before).any(dim=2)[0]  # camera, bin, row, column
    assert not changed[0].any() and not changed[1, :, :2].any()
    bins, columns = changed[1, :, 2].nonzero(as_tuple=True)
    assert bins.unique().numel() > 1 and columns.unique().numel() > 1


def test_pooling_a_volume_of_depth_times_context_equals_pooling_depth_and_context():
    lift = LiftSplat(TINY)
    depth, context = torch.rand(1, 1, 8, 2, 4), torch.randn(1, 1, 4, 2, 4)
    matrix = ego_from_frustum(matrices())
    plain = lift(ImageFeatures(depth, context), matrix)
    volume = depth[:, :, None] * context[:, :, :, None]
    assert plain.any()
    assert torch.allclose(lift(ImageFeatures(depth, context, volume), matrix), plain, atol=1e-6)
