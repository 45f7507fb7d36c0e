"""Tiny networks for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import (
    BEVEncoderConfig,
    BEVGrid,
    DecodeConfig,
    DepthBins,
    DepthNetConfig,
    HeadConfig,
    ImageEncoderConfig,
    ImageSpec,
    ModelConfig,
    StereoConfig,
    load_model_config,
)
from bevdepth_core.model import BEVDepth
from tests.reference import ROOT

TINY = ModelConfig(
    image=ImageSpec(height=32, width=64),
    depth_bins=DepthBins(2.0, 18.0, 2.0),
    grid=BEVGrid(x=(-12.8, 12.8, 1.6), y=(-12.8, 12.8, 1.6)),
    image_encoder=ImageEncoderConfig(depth=18, neck_channels=4, width=8),
    depth_net=DepthNetConfig(mid_channels=8, context_channels=4),
    bev_encoder=BEVEncoderConfig(base_channels=8, neck_channels=4),
    head=HeadConfig(channels=4),
)
"""A network in the official layout with a narrow image encoder. It has 0.3 million weights. Fewer
than 8 base channels would crash the backward pass on a CPU without AVX-512, because oneDNN 3.10
writes beyond the end of the weights of a strided 1x1 convolution with fewer than 8 input
channels."""
TINY_WITH_BOXES = replace(
    TINY,
    image=ImageSpec(height=32, width=96),
    depth_net=DepthNetConfig(mid_channels=8, context_channels=4, refinement=False),
    decode=DecodeConfig(candidates=20, boxes_per_task=3),
)
"""A network for tests that run the node. It has no depth refinement and gives few boxes."""


def random_model(
    preset: str = 'small', refinement: bool = False, key_frames: int = 2, stereo: bool = False
) -> BEVDepth:
    """Return the model of a preset with a small input size, random weights and random batch norm
    statistics. Its score threshold is 0, so it gives many boxes."""
    torch.manual_seed(0)
    config = load_model_config(ROOT / 'config' / 'models' / f'{preset}.yaml')
    if stereo:
        config = replace(
            config,
            image_encoder=replace(config.image_encoder, stride=16),
            stereo=StereoConfig((2.0, 8.4, 16.4, 28.4, 58.0)),
        )
    config = replace(
        config,
        image=ImageSpec(64, 160),
        grid=BEVGrid(x=(-51.2, 51.2, 1.6), y=(-51.2, 51.2, 1.6)),
        depth_net=replace(config.depth_net, refinement=refinement),
        decode=replace(config.decode, score_threshold=0.0),
        key_frames=key_frames,
    )
    return _with_random_statistics(BEVDepth(config).eval())


def _with_random_statistics(model: BEVDepth) -> BEVDepth:
    """Set the batch norm statistics to random values, so that boxes and scores differ."""
    for name, buffer in model.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
        elif name.endswith('running_mean'):
            buffer.uniform_(-0.5, 0.5)
    return model


def write_tiny_checkpoint(path: Path) -> Path:
    """Write a checkpoint of TINY_WITH_BOXES with random weights, the same on every run. The scores
    of all boxes are nearly equal."""
    torch.manual_seed(0)
    save_checkpoint(BEVDepth(TINY_WITH_BOXES), path)
    return path


def write_varied_checkpoint(path: Path) -> Path:
    """Write a checkpoint of TINY_WITH_BOXES with random weights, the same on every run. The scores
    of the boxes differ."""
    torch.manual_seed(0)
    save_checkpoint(_with_random_statistics(BEVDepth(TINY_WITH_BOXES)), path)
    return path


def export_model(refinement: bool = False) -> BEVDepth:
    """Return the network TINY_WITH_BOXES with random weights, batch norm statistics and offsets of
    the deformable convolution, so that every layer affects the result.
    """
    torch.manual_seed(0)
    depth_net = replace(TINY_WITH_BOXES.depth_net, refinement=refinement)
    decode = DecodeConfig(candidates=60, score_threshold=0.0)
    config = replace(TINY_WITH_BOXES, depth_net=depth_net, decode=decode)
    model = _with_random_statistics(BEVDepth(config)).eval()
    torch.nn.init.normal_(model.depth_net.deform.offset.weight, std=0.1)
    torch.nn.init.normal_(model.depth_net.deform.offset.bias)
    return model.requires_grad_(False)
