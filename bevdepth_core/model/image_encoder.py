"""ResNet and neck: compute one feature map from an image."""

from __future__ import annotations

import torch
from torch import nn

from bevdepth_core.config import ImageEncoderConfig
from bevdepth_core.model.layers import MultiScaleNeck, residual_stage
from bevdepth_core.model.torchvision_parts import BasicBlock, Bottleneck

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_STAGE_STRIDES = (4, 8, 16, 32)


class ResNetStages(nn.Module):
    """torchvision's ResNet without classifier and with any width. It returns the outputs of its
    four stages, which have the strides 4, 8, 16 and 32.

    Parameters have the same names and the same initialization as in torchvision.

    Args:
        depth: 18, 34, 50 or 101.
        width: number of channels of the stem; the standard ResNet has 64.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(self, depth: int, width: int = 64) -> None:
        super().__init__()
        block = Bottleneck if depth >= 50 else BasicBlock
        self.stage_channels = tuple(width * factor * block.expansion for factor in (1, 2, 4, 8))
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        channels = (width, *self.stage_channels)
        for index, blocks in enumerate(_LAYERS[depth]):
            stride = 1 if index == 0 else 2
            setattr(
                self,
                f'layer{index + 1}',
                residual_stage(channels[index], channels[index + 1], blocks, stride, block),
            )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode='fan_out', nonlinearity='relu')

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            features = layer(features)
            stages.append(features)
        return tuple(stages)


class ImageEncoder(nn.Module):
    """ResNet and neck.

    Args:
        config: depth and widths.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.backbone = ResNetStages(config.depth, config.width)
        scales = [stage_stride / config.stride for stage_stride in _STAGE_STRIDES]
        self.neck = MultiScaleNeck(self.backbone.stage_channels, config.neck_channels, scales)
        self.out_channels = 4 * config.neck_channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, out_channels, H / stride, W / stride) features of (n, 3, H, W) normalized
        images.
        """
        return self.with_first_stage(images)[0]

    def with_first_stage(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the result of ``forward`` and the output of the first ResNet stage (stride 4)."""
        stages = self.backbone(images)
        return self.neck(stages), stages[0]
