"""The whole network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bevdepth_core.config import ModelConfig
from bevdepth_core.model.bev_encoder import BEVEncoder
from bevdepth_core.model.depth_net import DepthNet, camera_vector
from bevdepth_core.model.head import CenterHead
from bevdepth_core.model.image_encoder import ImageEncoder
from bevdepth_core.model.view_transform import ImageFeatures, LiftSplat, ego_from_frustum
from bevdepth_core.types import ModelInputs, ModelOutputs, TaskMaps


class BEVDepth(nn.Module):
    """Images and camera matrices in, head maps and depth out.

    ``forward`` handles a whole batch of key and earlier frames. Streaming inference calls its
    three steps one by one: ``encode_images`` once per frame, ``splat`` whenever a pose changed,
    ``head_maps`` on the maps of all frames.

    Args:
        config: every number of the model.

    Attributes:
        config: as given.
        metadata: free text saved with the weights: data, recipe, source revision.

    Source: BEVDepth, arXiv 2206.10092.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}
        bev_channels = config.key_frames * config.depth_net.context_channels
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.depth_net = DepthNet(
            self.image_encoder.out_channels, config.depth_bins.count, config.depth_net
        )
        self.view_transform = LiftSplat(config)
        self.bev_encoder = BEVEncoder(bev_channels, config.bev_encoder)
        self.head = CenterHead(self.bev_encoder.out_channels, config.head)

    def encode_images(self, images: torch.Tensor, cameras: torch.Tensor) -> ImageFeatures:
        """Return the features of one frame's images; they do not depend on the ego pose.

        Args:
            images: (B, N, 3, H, W) normalized.
            cameras: (B, N, 27) float32 camera vector of the key frame.
        """
        batch_and_cameras = images.shape[:2]
        depth, context = self.depth_net(
            self.image_encoder(images.flatten(0, 1)), cameras.flatten(0, 1)
        )
        return self.view_transform.refine(
            depth.unflatten(0, batch_and_cameras), context.unflatten(0, batch_and_cameras)
        )

    def splat(self, features: ImageFeatures, ego_from_frustum: torch.Tensor) -> torch.Tensor:
        """Return the (B, C, ny, nx) BEV map of one frame, in the ego frame of
        ``ego_from_frustum``.
        """
        return self.view_transform(features, ego_from_frustum)

    def head_maps(self, bev_maps: Sequence[torch.Tensor]) -> tuple[TaskMaps, ...]:
        """Return the head's maps from the BEV maps of all frames, key frame first."""
        bev = torch.cat(tuple(bev_maps), dim=1)
        with torch.autocast(bev.device.type, enabled=False):  # the official head runs in float32
            return self.head(self.bev_encoder(bev.float()))

    def forward(self, inputs: ModelInputs) -> ModelOutputs:
        """Return head maps and the key frame's depth for a batch.

        Earlier frames run without gradient, and the depth network encodes every frame with the
        key frame's camera vector, both as in the official code.
        """
        frames = inputs.images.shape[1]
        if frames != self.config.key_frames:
            raise ValueError(
                f'images must hold {self.config.key_frames} frames for this model, got {frames}'
            )
        cameras = camera_vector(inputs.matrices.frame(0))
        bev_maps: list[torch.Tensor] = []
        depths: list[torch.Tensor] = []
        for frame in range(frames):
            matrix = ego_from_frustum(inputs.matrices.frame(frame))
            with torch.set_grad_enabled(torch.is_grad_enabled() and frame == 0):
                features = self.encode_images(inputs.images[:, frame], cameras)
                bev_maps.append(self.splat(features, matrix))
            depths.append(features.depth)
        return ModelOutputs(self.head_maps(bev_maps), depths[0])
