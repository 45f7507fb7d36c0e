"""Predicts depth distribution and context of each feature-map pixel (camera-aware depth prediction
in the paper).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bevdepth_core.config import DepthNetConfig
from bevdepth_core.model.layers import conv_norm_relu
from bevdepth_core.model.torchvision_parts import BasicBlock, deform_conv2d
from bevdepth_core.types import CameraMatrices

CAMERA_VECTOR_SIZE = 27
NETWORK_PIXELS_VECTOR_SIZE = 23
"""Length of the camera vector that ``in_network_pixels`` returns."""
_ASPP_DILATIONS = (1, 6, 12, 18)
_DEFORM_GROUPS = 4


def camera_vector(matrices: CameraMatrices) -> torch.Tensor:
    """Return the camera vector: the 27 numbers of each camera that the depth network reads, in the
    official order, unscaled.

    Args:
        matrices: matrices of the key frame.

    Returns:
        (B, N, 27): fx fy cx cy; image_aug 00 01 03 10 11 13; bev_aug 00 01 10 11 22;
        key_ego_from_camera[:3, :4] by rows.
    """
    intrinsics, image_aug = matrices.intrinsics, matrices.image_aug
    bev_aug = matrices.bev_aug[:, None].expand_as(image_aug)
    numbers = [intrinsics[..., row, column] for row, column in ((0, 0), (1, 1), (0, 2), (1, 2))]
    numbers += [
        image_aug[..., row, column]
        for row, column in ((0, 0), (0, 1), (0, 3), (1, 0), (1, 1), (1, 3))
    ]
    numbers += [
        bev_aug[..., row, column] for row, column in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 2))
    ]
    return torch.cat(
        (torch.stack(numbers, dim=-1), matrices.key_ego_from_camera[..., :3, :].flatten(-2)),
        dim=-1,
    )


def in_network_pixels(cameras: torch.Tensor) -> torch.Tensor:
    """Convert the (..., 27) camera vector to (..., 23). A 2x3 matrix, by rows, replaces intrinsics
    and image augmentation; this matrix projects to pixels of the network input.
    """
    fx, fy, cx, cy, a00, a01, a03, a10, a11, a13 = cameras[..., :10].unbind(-1)
    matrix = (
        a00 * fx,
        a01 * fy,
        a00 * cx + a01 * cy + a03,
        a10 * fx,
        a11 * fy,
        a10 * cx + a11 * cy + a13,
    )
    return torch.cat((torch.stack(matrix, dim=-1), cameras[..., 10:]), dim=-1)


class CameraGate(nn.Module):
    """Scales each feature channel by a factor that is computed from the camera vector.

    Args:
        numbers: length of the camera vector.
        channels: channels of the features.
    """

    def __init__(self, numbers: int, channels: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(numbers, channels), nn.ReLU(), nn.Linear(channels, channels)
        )
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1)
        )

    def forward(self, features: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
        return features * factors

    def factors(self, cameras: torch.Tensor) -> torch.Tensor:
        """Return (n, channels, 1, 1) factors between 0 and 1 from (n, numbers) camera vectors."""
        return self.gate(self.mlp(cameras)[..., None, None]).sigmoid()


class AtrousPyramid(nn.Module):
    """Atrous spatial pyramid pooling: four convolutions with different dilations, and a branch
    with the global mean. A 1x1 convolution reduces the five concatenated results to ``channels``.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            conv_norm_relu(channels, channels, 1 if dilation == 1 else 3, dilation=dilation)
            for dilation in _ASPP_DILATIONS
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), *conv_norm_relu(channels, channels, 1))
        self.project = conv_norm_relu(5 * channels, channels, 1)
        self.dropout = nn.Dropout(0.5)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        branches = [branch(features) for branch in self.branches]
        branches.append(self.pool(features).expand_as(branches[0]))
        return self.dropout(self.project(torch.cat(branches, dim=1)))


class DeformableConv(nn.Module):
    """3x3 deformable convolution with four groups and without modulation (version 1). A second
    convolution, ``offset``, computes the offsets of the sampling points.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels // _DEFORM_GROUPS, 3, 3))
        self.offset = nn.Conv2d(channels, 18, 3, padding=1)
        nn.init.kaiming_uniform_(self.weight, nonlinearity='relu')
        for parameter in self.offset.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # NaN is replaced, because torchvision's CPU kernel would read out of bounds for NaN.
        offsets = self.offset(features).nan_to_num()
        return deform_conv2d(features, offsets, self.weight, padding=1)


class DepthSoftmax(nn.Module):
    """Converts logits (n, D, h, w) to a float32 distribution over the D depth bins."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return F.softmax(logits, dim=1, dtype=torch.float32)


class CameraAwareBranches(nn.Module):
    """Computes context and depth features from image features and the camera vector.

    Args:
        in_channels: number of channels of the image features.
        depth_blocks: number of residual blocks in the depth branch.
        config: widths, and the setting ``camera_pixels``, which selects the numbers of the camera
            vector.
    """

    def __init__(self, in_channels: int, depth_blocks: int, config: DepthNetConfig) -> None:
        super().__init__()
        mid = config.mid_channels
        self.reduce = conv_norm_relu(in_channels, mid, 3, bias=True)
        self._intrinsics_in_network_pixels = config.camera_pixels == 'network'
        numbers = CAMERA_VECTOR_SIZE
        if self._intrinsics_in_network_pixels:
            numbers = NETWORK_PIXELS_VECTOR_SIZE
        self.camera_norm: nn.Module = nn.BatchNorm1d(numbers)
        self.context_gate = CameraGate(numbers, mid)
        self.context_head = nn.Conv2d(mid, config.context_channels, 1)
        self.depth_gate = CameraGate(numbers, mid)
        self.depth_blocks = nn.Sequential(*(BasicBlock(mid, mid) for _ in range(depth_blocks)))
        self.pyramid = AtrousPyramid(mid)
        self.deform = DeformableConv(mid)

    def gates(self, cameras: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors for the context features and for the depth features, each (n, mid, 1,
        1). The factors do not depend on the images.

        Args:
            cameras: (n, 27) float32, see ``camera_vector``.
        """
        if self._intrinsics_in_network_pixels:
            cameras = in_network_pixels(cameras)
        cameras = self.camera_norm(cameras)
        return self.context_gate.factors(cameras), self.depth_gate.factors(cameras)

    def branches(
        self, features: torch.Tensor, gates: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return depth features (n, mid, h, w) and context (n, C, h, w) from image features
        (n, in_channels, h, w) and the two factors of ``gates``.
        """
        context_factors, depth_factors = gates
        features = self.reduce(features)
        context = self.context_head(self.context_gate(features, context_factors))
        depth = self.depth_blocks(self.depth_gate(features, depth_factors))
        return self.deform(self.pyramid(depth)), context


class DepthNet(CameraAwareBranches):
    """Computes depth distribution and context from image features and the camera vector.

    Args:
        in_channels: number of channels of the image features.
        depth_count: number of depth bins D.
        config: see ``CameraAwareBranches``.
    """

    def __init__(self, in_channels: int, depth_count: int, config: DepthNetConfig) -> None:
        super().__init__(in_channels, depth_blocks=3, config=config)
        self.depth_head = nn.Conv2d(config.mid_channels, depth_count, 1)
        self.softmax = DepthSoftmax()

    def forward(
        self, features: torch.Tensor, cameras: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return depth distribution (n, D, h, w) in float32 and context (n, C, h, w).

        Args:
            features: (n, in_channels, h, w).
            cameras: (n, 27) float32, see ``camera_vector``.
        """
        return self.gated(features, self.gates(cameras))

    def gated(
        self, features: torch.Tensor, gates: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the result of ``forward`` from image features and the two factors of
        ``gates``.
        """
        depth, context = self.branches(features, gates)
        return self.softmax(self.depth_head(depth)), context


class StereoDepthNet(CameraAwareBranches):
    """Predicts depth logits, depth hypotheses and context of one frame, for ``StereoDepth``.

    Args:
        in_channels: number of channels of the image features.
        depth_count: number of depth bins D.
        range_count: number of depth ranges R; each range has one hypothesis per pixel.
        config: see ``CameraAwareBranches``.

    Source: BEVStereo, arXiv 2209.10248.
    """

    def __init__(
        self, in_channels: int, depth_count: int, range_count: int, config: DepthNetConfig
    ) -> None:
        super().__init__(in_channels, depth_blocks=2, config=config)
        mid = config.mid_channels
        self.mono_head = nn.Sequential(BasicBlock(mid, mid), nn.Conv2d(mid, depth_count, 1))
        self.hypothesis_head = nn.Sequential(
            BasicBlock(mid, mid),
            *_upsampled_by_2(mid),
            *_upsampled_by_2(mid),
            nn.Conv2d(mid, 3 * range_count, 1),
        )

    def forward(
        self, features: torch.Tensor, cameras: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits (n, D, h, w), raw hypotheses (n, 3 R, 4 h, 4 w) and context (n, C, h, w).

        The channels of the hypotheses are R means, R spreads and R scores, see ``StereoDepth``.

        Args:
            features: (n, in_channels, h, w).
            cameras: (n, 27) float32, see ``camera_vector``.
        """
        return self.gated(features, self.gates(cameras))

    def gated(
        self, features: torch.Tensor, gates: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the result of ``forward`` from image features and the two factors of
        ``gates``.
        """
        depth, context = self.branches(features, gates)
        return self.mono_head(depth), self.hypothesis_head(depth), context


def _upsampled_by_2(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels, channels, 3, stride=2, padding=1, output_padding=1),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
