"""Fixed buffers, which CUDA graphs need, for the features of the current and the past frame."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.model.view_transform import ImageFeatures, StereoFeatures


class FrameBuffers:
    """Buffers for the features of all frames of a model, for up to ``cameras`` cameras. Frame 0 is
    the current frame.

    Args:
        config: config of the model, which gives the sizes of the buffers.
        cameras: number of cameras.
        device: device of the buffers.
        dtype: data type.

    Attributes:
        frames: the features of all frames and cameras; the first dimension is the frame.
    """

    def __init__(
        self, config: ModelConfig, cameras: int, device: torch.device, dtype: torch.dtype
    ) -> None:
        frames, channels = config.key_frames, config.depth_net.context_channels
        bins, stride = config.depth_bins.count, config.image_encoder.stride
        height, width = config.image.height // stride, config.image.width // stride
        new = partial(torch.zeros, device=device, dtype=dtype)
        has_refinement = config.depth_net.refinement
        self.frames = ImageFeatures(
            new(frames, cameras, bins, height, width),
            new(frames, cameras, height, width, channels).permute(0, 1, 4, 2, 3),
            new(frames, cameras, channels, bins, height, width) if has_refinement else None,
        )
        if config.stereo is not None:
            first = config.image_encoder.first_stage_channels
            fine = 4 * height, 4 * width  # the first image stage has stride 4
            hypotheses = 3 * (len(config.stereo.range_bounds) - 1)
            stereo = StereoFeatures(
                new(frames, cameras, *fine, first).permute(0, 1, 4, 2, 3),
                new(frames, cameras, bins, height, width),
                new(frames, cameras, hypotheses, *fine),
            )
            self.frames = replace(self.frames, stereo=stereo)

    def features(self, frame: int, count: int) -> ImageFeatures:
        """Return views of the buffers: the features of the first ``count`` cameras of a frame."""
        return self.frames.mapped(lambda buffer: buffer[frame : frame + 1, :count])

    def set(self, frame: int, features: ImageFeatures) -> None:
        """Copy the features (1, N, ...) of a frame to the buffers. If an optional tensor of
        ``features`` is None, its buffer stays unchanged.
        """
        buffers = self.features(frame, features.depth.shape[1])
        for buffer, tensor in zip(buffers.tensors(), features.tensors(), strict=True):
            if buffer is not None and tensor is not None:
                buffer.copy_(tensor)
