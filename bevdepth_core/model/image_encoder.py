"""Image to feature map at stride 16."""

from __future__ import annotations

import torch
from torch import nn
from torchvision.models import resnet

from bevdepth_core.config import ImageEncoderConfig
from bevdepth_core.model.layers import MultiScaleNeck

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_NECK_SCALES = (0.25, 0.5, 1, 2)


class ResNetStages(resnet.ResNet):
    """torchvision's ResNet that returns its four stages, strides 4, 8, 16 and 32, and has no classifier."""

    def __init__(self, depth: int) -> None:
        block = resnet.Bottleneck if depth >= 50 else resnet.BasicBlock
        super().__init__(block, _LAYERS[depth])
        del self.avgpool, self.fc
        self.stage_channels = tuple(width * block.expansion for width in (64, 128, 256, 512))

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
        config: ResNet depth and neck width.
    """

    def __init__(self, config: ImageEncoderConfig) -> None:
        super().__init__()
        self.backbone = ResNetStages(config.depth)
        self.neck = MultiScaleNeck(self.backbone.stage_channels, config.neck_channels, _NECK_SCALES)
        self.out_channels = 4 * config.neck_channels

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return (n, out_channels, H/16, W/16) features of (n, 3, H, W) normalised images."""
        return self.neck(self.backbone(images))
