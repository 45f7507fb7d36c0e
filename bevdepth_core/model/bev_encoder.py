"""Computes BEV features from the BEV maps of all frames."""

from __future__ import annotations

import torch
from torch import nn

from bevdepth_core.config import BEVEncoderConfig
from bevdepth_core.model.layers import MultiScaleNeck, residual_stage
from bevdepth_core.model.torchvision_parts import BasicBlock

_NECK_SCALES = (1, 2, 4, 8)


class ResidualTrunk(nn.Module):
    """A strided stem without pooling, followed by three residual stages. It returns the outputs of
    the stages, which have the strides 2, 4 and 8.
    """

    def __init__(self, in_channels: int, base_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, base_channels, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(base_channels)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = residual_stage(base_channels, base_channels, blocks=2, stride=1)
        self.layer2 = residual_stage(base_channels, 2 * base_channels, blocks=2, stride=2)
        self.layer3 = residual_stage(2 * base_channels, 4 * base_channels, blocks=2, stride=2)
        self._initialize()

    def _initialize(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')
            elif isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)

    def forward(self, bev: torch.Tensor) -> tuple[torch.Tensor, ...]:
        stage1 = self.layer1(self.relu(self.bn1(self.conv1(bev))))
        stage2 = self.layer2(stage1)
        return stage1, stage2, self.layer3(stage2)


class BEVEncoder(nn.Module):
    """Trunk and neck, which compute features from BEV maps.

    Args:
        in_channels: sum of the channels of the BEV maps of all frames.
        config: widths of trunk and neck.
    """

    def __init__(self, in_channels: int, config: BEVEncoderConfig) -> None:
        super().__init__()
        base = config.base_channels
        self.trunk = ResidualTrunk(in_channels, base)
        self.neck = MultiScaleNeck(
            (in_channels, base, 2 * base, 4 * base), config.neck_channels, _NECK_SCALES
        )
        self.out_channels = 4 * config.neck_channels

    def forward(self, bev: torch.Tensor) -> torch.Tensor:
        """Return (B, out_channels, ny, nx) features of the (B, in_channels, ny, nx) BEV map."""
        return self.neck((bev, *self.trunk(bev)))
