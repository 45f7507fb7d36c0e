"""The complete network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from bevdepth_core.config import ModelConfig
from bevdepth_core.model.bev_encoder import BEVEncoder
from bevdepth_core.model.depth_net import DepthNet, StereoDepthNet, camera_vector
from bevdepth_core.model.head import CenterHead
from bevdepth_core.model.image_encoder import ImageEncoder
from bevdepth_core.model.stereo_depth import StereoDepth, StereoDistribution
from bevdepth_core.model.view_transform import (
    ImageFeatures,
    LiftSplat,
    StereoFeatures,
    ego_from_frustum,
)
from bevdepth_core.ops.warping import source_from_reference
from bevdepth_core.types import ModelInputs, ModelOutputs, TaskMaps


class BEVDepth(nn.Module):
    """Computes head maps and depth from images and camera matrices.

    ``forward`` processes a whole batch of key and past frames. Streaming inference calls the steps
    of ``forward`` separately: ``encode_images`` once per frame; then, for each new key frame,
    ``match`` (only in stereo models), ``splat`` for each frame, and ``head_maps`` with the BEV
    maps of all frames.

    Args:
        config: architecture and settings of the model.

    Attributes:
        config: see the argument.
        metadata: maps keys to texts, which are saved with the weights. For example, the text of
            the key ``training`` is JSON with the configuration and the source revision of the
            training.

    Source: BEVDepth, arXiv 2206.10092; with ``config.stereo`` BEVStereo, arXiv 2209.10248.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.metadata: dict[str, str] = {}
        bev_channels = config.key_frames * config.depth_net.context_channels
        self.image_encoder = ImageEncoder(config.image_encoder)
        self.depth_net, self.stereo = _depth_networks(config, self.image_encoder.out_channels)
        self.view_transform = LiftSplat(config)
        self.bev_encoder = BEVEncoder(bev_channels, config.bev_encoder)
        self.head = CenterHead(self.bev_encoder.out_channels, config.head)

    def encode_images(self, images: torch.Tensor, cameras: torch.Tensor) -> ImageFeatures:
        """Return the features of the images of one frame. They do not depend on the ego pose.

        Args:
            images: (B, N, 3, H, W) normalized images.
            cameras: (B, N, 27) float32, see ``depth_net.camera_vector``.
        """
        batch_and_cameras = images.shape[:2]
        images, cameras = images.flatten(0, 1), cameras.flatten(0, 1)
        if isinstance(self.depth_net, StereoDepthNet):
            return self._stereo_features(images, cameras, batch_and_cameras)
        depth, context = self.depth_net(self.image_encoder(images), cameras)
        return self.view_transform.refine(
            depth.unflatten(0, batch_and_cameras), context.unflatten(0, batch_and_cameras)
        )

    def _stereo_features(
        self, images: torch.Tensor, cameras: torch.Tensor, batch_and_cameras: torch.Size
    ) -> ImageFeatures:
        encoded, first_stage = self.image_encoder.with_first_stage(images)
        logits, hypotheses, context = (
            tensor.unflatten(0, batch_and_cameras) for tensor in self.depth_net(encoded, cameras)
        )
        return ImageFeatures(
            logits.softmax(dim=2, dtype=torch.float32),
            context,
            stereo=StereoFeatures(
                first_stage.detach().unflatten(0, batch_and_cameras), logits, hypotheses
            ),
        )

    def match(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]]
    ) -> tuple[list[ImageFeatures], torch.Tensor]:
        """Compare the two frames of a stereo model with each other.

        Only the first frame gets a gradient, as in the official code.

        Args:
            frames: features of the key frame and of the past frame, each with its (B, N, 3, 4)
                float64 ``ego_from_frustum`` in the same ego frame; a single frame is compared
                with itself.

        Returns:
            The features of all frames, with the depth that the comparison gives; and the depth
            (B, N, D, h, w) of the first frame for the depth loss.
        """
        matched, loss_depths = [], []
        for place, (reference, matrix) in enumerate(frames):
            source, source_matrix = frames[-1 - place]
            with _gradient_of_key_frame(place):
                depth = self._compared(
                    reference,
                    source,
                    source_from_reference(matrix, source_matrix),
                    is_key_frame=place == 0,
                )
                matched.append(self.view_transform.refine(depth.masked, reference.context))
            loss_depths.append(depth.unmasked)
        return matched, loss_depths[0]

    def _compared(
        self,
        reference: ImageFeatures,
        source: ImageFeatures,
        matrix: torch.Tensor,
        is_key_frame: bool,
    ) -> StereoDistribution:
        assert self.stereo is not None, 'the model is not a stereo model'
        assert reference.stereo is not None and source.stereo is not None
        return self.stereo(reference.stereo, source.stereo, matrix, is_key_frame)

    def splat(self, features: ImageFeatures, ego_from_frustum: torch.Tensor) -> torch.Tensor:
        """Return the (B, C, ny, nx) BEV map of one frame, in the ego frame to which
        ``ego_from_frustum`` transforms.
        """
        return self.view_transform(features, ego_from_frustum)

    def head_maps(self, bev_maps: Sequence[torch.Tensor]) -> tuple[TaskMaps, ...]:
        """Return the maps of the head. ``bev_maps`` contains the BEV map of the key frame, and
        then the BEV map of the past frame if the model uses two frames.
        """
        bev = torch.cat(tuple(bev_maps), dim=1)
        # The official head, which contains the BEV encoder, runs in float32.
        with torch.autocast(bev.device.type, enabled=False):
            return self.head(self.bev_encoder(bev.float()))

    def forward(self, inputs: ModelInputs) -> ModelOutputs:
        """Return head maps and the key frame's depth for a batch.

        Past frames run without gradient, and the depth network encodes every frame with the
        key frame's camera vector, both as in the official code.
        """
        frames = inputs.images.shape[1]
        if frames != self.config.key_frames:
            raise ValueError(
                f'images must contain {self.config.key_frames} frame(s) for this model, '
                f'the key frame first; got {frames}'
            )
        features, matrices, depth = self._lifted(inputs, frames)
        bev_maps = []
        for frame in range(frames):
            with _gradient_of_key_frame(frame):
                bev_maps.append(self.splat(features[frame], matrices[frame]))
        return ModelOutputs(self.head_maps(bev_maps), depth)

    def key_frame_depth(self, inputs: ModelInputs) -> torch.Tensor:
        """Return the key frame's depth (B, N, D, h, w) for the depth loss, without detection."""
        return self._lifted(inputs, 1 if self.stereo is None else self.config.key_frames)[2]

    def _lifted(
        self, inputs: ModelInputs, frames: int
    ) -> tuple[list[ImageFeatures], list[torch.Tensor], torch.Tensor]:
        """Return features and ``ego_from_frustum`` of the first ``frames`` frames, and the key
        frame's depth for the depth loss.
        """
        cameras = camera_vector(inputs.matrices.frame(0))
        matrices = [
            ego_from_frustum(inputs.matrices.frame(frame), torch.float64)
            for frame in range(frames)
        ]
        features = []
        for frame in range(frames):
            with _gradient_of_key_frame(frame):
                features.append(self.encode_images(inputs.images[:, frame], cameras))
        if self.stereo is None:
            return features, matrices, features[0].depth
        matched, depth = self.match(list(zip(features, matrices, strict=True)))
        return matched, matrices, depth


def _gradient_of_key_frame(frame: int) -> torch.set_grad_enabled:
    return torch.set_grad_enabled(torch.is_grad_enabled() and frame == 0)


def _depth_networks(
    config: ModelConfig, in_channels: int
) -> tuple[DepthNet | StereoDepthNet, StereoDepth | None]:
    bins = config.depth_bins.count
    if config.stereo is None:
        return DepthNet(in_channels, bins, config.depth_net), None
    ranges = len(config.stereo.range_bounds) - 1
    return StereoDepthNet(in_channels, bins, ranges, config.depth_net), StereoDepth(config)
