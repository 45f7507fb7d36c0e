"""Records two numbers per stage of small networks with known weights and inputs.

``python -m tests.core.model.recorded_stages`` writes the numbers to recorded_stages.json, and
test_recorded_stages.py compares the networks with this file. Write the file only if ``make
golden`` passes; this command compares the networks with the official code and needs the reference
data.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from bevdepth_core.config import ImageEncoderConfig, ImageSpec, ModelConfig, StereoConfig
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import CameraMatrices, ModelInputs
from tests.networks import TINY

RECORD = Path(__file__).with_suffix('.json')
CAMERAS = 2
OFFICIAL = replace(TINY, image_encoder=ImageEncoderConfig(depth=18, neck_channels=4))
NETWORKS: dict[str, ModelConfig] = {
    'official': replace(OFFICIAL, depth_net=replace(TINY.depth_net, refinement=True)),
    'bottleneck': replace(
        TINY,
        key_frames=1,
        image_encoder=ImageEncoderConfig(depth=50, neck_channels=4, width=8),
    ),
    'small': replace(
        TINY,
        image_encoder=ImageEncoderConfig(depth=18, neck_channels=4, width=8, stride=8),
        depth_net=replace(TINY.depth_net, camera_pixels='network'),
    ),
    'stereo': replace(
        OFFICIAL,
        image=ImageSpec(64, 96),
        stereo=StereoConfig(range_bounds=(2.0, 6.0, 10.0, 18.0), iterations=2, groups=4),
    ),
}


def recorded() -> dict[str, dict[str, list[float]]]:
    return json.loads(RECORD.read_text())


def measured(name: str) -> dict[str, list[float]]:
    """Return two numbers for every output of a network, and for the gradient of every part."""
    model = filled(BEVDepth(NETWORKS[name])).eval()
    images = pseudo_random(
        'images', (1, model.config.key_frames, CAMERAS, 3, *size_of(model.config))
    )
    images.requires_grad_()
    stages = {}
    outputs = model(ModelInputs(images, matrices(model.config.key_frames)))
    stages['depth'] = numbers(outputs.depth)
    for task, maps in enumerate(outputs.tasks):
        stages[f'task {task}'] = numbers(torch.cat((maps.box_values(), maps.heatmap), dim=1))
    loss = sum(maps.heatmap.square().mean() for maps in outputs.tasks) + outputs.depth.var()
    loss.backward()
    stages['gradient of images'] = numbers(images.grad)
    for part, module in model.named_children():
        gradients = [
            weights.grad.flatten() for weights in module.parameters() if weights.grad is not None
        ]
        stages[f'gradient of {part}'] = numbers(torch.cat(gradients)) if gradients else [0.0, 0.0]
    return stages


def size_of(config: ModelConfig) -> tuple[int, int]:
    return config.image.height, config.image.width


def numbers(values: torch.Tensor) -> list[float]:
    """Return the root mean square of ``values``, and their dot product with fixed numbers. The
    second number depends on the order of ``values``.
    """
    flat = values.detach().double().flatten()
    pattern = pseudo_random('projection', tuple(flat.shape)).double()
    return [float(flat.square().mean().sqrt()), float((flat * pattern).sum() / len(flat) ** 0.5)]


def pseudo_random(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Return irregular values between -1 and 1 that depend only on ``name`` and on their index."""
    places = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    sines = torch.sin(zlib.crc32(name.encode()) % 1000 + 12.9898 * places)
    return (2 * torch.frac(1e4 * sines).abs() - 1).float().reshape(shape)


def filled(model: BEVDepth) -> BEVDepth:
    """Set known weights and batch norm statistics in ``model``, and return ``model``."""
    with torch.no_grad():
        for name, values in named_values(model):
            pattern = pseudo_random(name, tuple(values.shape))
            if name == 'depth_net.camera_norm.running_var':
                # The variance is large, because the camera vector contains values in pixels.
                values.copy_(3e3 * (1 + 0.3 * pattern))
            elif 'deform.offset' in name:
                values.copy_(0.02 * pattern)  # keeps most sampled positions inside the image
            elif name.endswith('running_var') or (values.dim() == 1 and name.endswith('weight')):
                values.copy_(1 + 0.3 * pattern)
            elif values.dim() == 1:
                values.copy_(0.1 * pattern)
            else:
                values.copy_(pattern * (4.5 / values[0].numel()) ** 0.5)
    return model


def named_values(model: BEVDepth) -> Iterator[tuple[str, torch.Tensor]]:
    yield from model.named_parameters()
    for name, buffer in model.named_buffers():
        if name.endswith(('running_mean', 'running_var')):
            yield name, buffer


def matrices(frames: int) -> CameraMatrices:
    """Return the matrices of a camera that looks forward and of a camera that looks to the left,
    with image and BEV augmentation. Between two frames, the cameras move by half a meter.
    """
    poses, intrinsics, image_aug = (
        torch.eye(4).repeat(1, frames, CAMERAS, 1, 1) for _ in range(3)
    )
    ahead = torch.tensor([(0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0)])
    left = torch.tensor([(1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, -1.0, 0.0)])
    poses[..., :3, :3] = torch.stack((ahead, left))
    poses[..., :3, 3] = torch.tensor([(1.7, 0.1, 1.5), (1.2, 0.5, 1.6)])
    poses[0, :, :, 0, 3] -= 0.5 * torch.arange(frames)[:, None]
    intrinsics[..., :2, :3] = torch.tensor([(90.0, 0.0, 71.0), (0.0, 92.0, 40.0)])
    image_aug[..., :2, :2] = torch.tensor([(0.45, 0.02), (-0.02, 0.45)])
    image_aug[..., :2, 3] = torch.tensor([1.5, -2.5])
    bev_aug = torch.eye(4)[None].clone()
    bev_aug[0, :2, :2] = 1.02 * torch.tensor([(0.98, -0.199), (0.199, 0.98)])
    return CameraMatrices(poses, intrinsics, image_aug, bev_aug)


def main() -> None:
    torch.set_num_threads(1)
    record = {name: measured(name) for name in NETWORKS}
    lines = json.dumps(record, indent=1)
    RECORD.write_text(f'{lines}\n')


if __name__ == '__main__':
    main()
