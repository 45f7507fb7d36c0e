"""Lifts image features to the frustum and splats them to the BEV grid (BEVDepth, arXiv
2206.10092, section 3.1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bevdepth_core.config import ModelConfig
from bevdepth_core.model.layers import conv_norm_relu
from bevdepth_core.ops import voxel_index, voxel_pooling, voxel_pooling_volume
from bevdepth_core.types import CameraMatrices


@dataclass(frozen=True)
class StereoFeatures:
    """Features of one frame that a stereo model compares with another frame. They do not depend on
    other frames or on ego poses.

    Attributes:
        features: (B, N, F, 4 h, 4 w) features of the first image stage.
        mono_logits: (B, N, D, h, w) depth logits from this frame only.
        hypotheses: (B, N, 3 R, 4 h, 4 w) raw means, spreads and scores of R depth ranges.
    """

    features: torch.Tensor
    mono_logits: torch.Tensor
    hypotheses: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the three tensors in the order of the attributes."""
        return self.features, self.mono_logits, self.hypotheses


@dataclass(frozen=True)
class ImageFeatures:
    """Features of one frame that are splatted. The image branch returns features that do not
    depend on ego poses. In stereo models, ``BEVDepth.match`` then returns features with a depth
    that depends on both frames.

    Attributes:
        depth: (B, N, D, h, w) depth distribution. It is float32, but in the buffers of
            ``GraphedNetwork`` it has the data type of the network. In a stereo model, it is
            computed from this frame only, until ``BEVDepth.match`` replaces it.
        context: (B, N, C, h, w) features that are splatted with the depth.
        volume: (B, N, C, D, h, w) refined product of depth and context; only in models with depth
            refinement.
        stereo: features that ``BEVDepth.match`` compares, only in stereo models.
    """

    depth: torch.Tensor
    context: torch.Tensor
    volume: torch.Tensor | None = None
    stereo: StereoFeatures | None = None

    def mapped(self, function: Callable[[torch.Tensor], torch.Tensor]) -> ImageFeatures:
        """Return the features with ``function`` applied to each tensor."""
        stereo = self.stereo
        return ImageFeatures(
            function(self.depth),
            function(self.context),
            None if self.volume is None else function(self.volume),
            None if stereo is None else StereoFeatures(*map(function, stereo.tensors())),
        )

    def tensors(self) -> list[torch.Tensor | None]:
        """Return all tensors in a fixed order; None for each optional tensor that is absent."""
        stereo = (None, None, None) if self.stereo is None else self.stereo.tensors()
        return [self.depth, self.context, self.volume, *stereo]


def camera_from_frustum(intrinsics: torch.Tensor, image_aug: torch.Tensor) -> torch.Tensor:
    """Return the matrices (B, N, 4, 4), float64, that convert (u d, v d, d, 1) to meters in the
    camera frame, where (u, v) is a pixel of the network input and d is its depth in meters.

    Args:
        intrinsics: (B, N, 4, 4), in pixels of the source image.
        image_aug: (B, N, 4, 4), from pixels of the source image to pixels of the network input.
    """
    undo_aug = torch.linalg.inv(image_aug.double())
    source_from_input = (
        torch.eye(4, dtype=torch.float64, device=image_aug.device).expand(undo_aug.shape).clone()
    )
    source_from_input[..., :2, :2] = undo_aug[..., :2, :2]
    source_from_input[..., :2, 2] = undo_aug[..., :2, 3]
    return torch.linalg.inv(intrinsics.double()) @ source_from_input


def ego_from_frustum(matrices: CameraMatrices, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Multiply the transforms of each camera into one matrix.

    The image augmentation does not change the depth. Therefore the chain (undo the augmentation,
    scale by depth, back-project, transform to ego, augment ego) is linear in (u d, v d, d, 1). The
    matrix is computed in float64, because voxel borders are sensitive to rounding.

    Args:
        matrices: matrices of one frame.
        dtype: data type of the result. Stereo models need float64, because they compute the
            transform between two frames from the matrices of both frames.

    Returns:
        (B, N, 3, 4) matrices that convert (u d, v d, d, 1) to meters in the (augmented) ego frame,
        where (u, v) is a pixel of the network input and d is its depth in meters.
    """
    ego_from_camera = matrices.bev_aug.double()[:, None] @ matrices.key_ego_from_camera.double()
    frustum = camera_from_frustum(matrices.intrinsics, matrices.image_aug)
    return (ego_from_camera @ frustum)[..., :3, :].to(dtype)


class DepthRefinement(nn.Module):
    """Convolutions over the (width, depth) plane of each feature-map row. They run in float32,
    even under autocast.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = conv_norm_relu(channels, channels, 3)
        self.residual = nn.Sequential(
            *conv_norm_relu(channels, channels, 3), *conv_norm_relu(channels, channels, 3)
        )
        self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, depth: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return the refined volume (B, N, C, D, h, w) of depth (B, N, D, h, w) and context (B, N,
        C, h, w).
        """
        batch, cameras, bins, height, width = depth.shape
        with torch.autocast(depth.device.type, enabled=False):
            # (B, N, h, C, w, D): one plane per feature-map row
            planes = torch.einsum('bndhw,bnchw->bnhcwd', depth.float(), context.float()).flatten(
                0, 2
            )
            planes = self.reduce(planes)
            planes = self.out(planes + self.residual(planes))
        planes = planes.view(batch, cameras, height, -1, width, bins)
        return planes.permute(0, 1, 3, 5, 2, 4).contiguous()


class LiftSplat(nn.Module):
    """Refines image features and splats them to the BEV grid.

    The axes of the frustum are buffers, so that they are loaded with the weights. In averaged
    official checkpoints, the axes differ slightly from the computed axes.
    """

    frustum_u: torch.Tensor
    frustum_v: torch.Tensor
    frustum_d: torch.Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        image, bins, stride = config.image, config.depth_bins, config.image_encoder.stride
        self.grid = config.grid
        # As in the official code, the axes include the first and the last pixel of the image. For
        # an axis of n points, the step is therefore (size - 1) / (n - 1) pixels, not the stride.
        self.register_buffer(
            'frustum_u', torch.linspace(0, image.width - 1, image.width // stride)
        )
        self.register_buffer(
            'frustum_v', torch.linspace(0, image.height - 1, image.height // stride)
        )
        # On the meta device, torch.arange would import the compiler of PyTorch.
        self.register_buffer(
            'frustum_d',
            torch.from_numpy(bins.start + bins.step * np.arange(bins.count, dtype=np.float32)),
        )
        self.refinement = (
            DepthRefinement(config.depth_net.context_channels)
            if config.depth_net.refinement
            else None
        )

    def refine(self, depth: torch.Tensor, context: torch.Tensor) -> ImageFeatures:
        """Return the features to splat, refined if the model has depth refinement."""
        volume = None if self.refinement is None else self.refinement(depth, context)
        return ImageFeatures(depth, context, volume)

    def forward(self, features: ImageFeatures, ego_from_frustum: torch.Tensor) -> torch.Tensor:
        """Return the BEV map (B, C, ny, nx) of one frame.

        Args:
            features: features of the frame, from the image branch or from ``BEVDepth.match``.
            ego_from_frustum: (B, N, 3, 4), see the function ``ego_from_frustum``.
        """
        frustum = (ego_from_frustum.float(), self.frustum_u, self.frustum_v, self.frustum_d)
        lower, cell, shape = self.grid.lower, self.grid.cell, self.grid.shape
        if features.volume is None:
            depth = features.depth.to(features.context.dtype)
            return voxel_pooling(depth, features.context, *frustum, lower, cell, shape)
        return voxel_pooling_volume(features.volume, voxel_index(*frustum, lower, cell), shape)
