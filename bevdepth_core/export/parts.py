"""Cuts the network into the parts that a streaming runtime runs one by one.

A runtime stores depth and context of past frames, which do not depend on the pose of the vehicle.
For each new frame, the runtime runs these parts:

* The image branch processes the images of the new frame.
* The splat runs for the new frame, and then for the past frame with the ego motion between the two
  frames.
* The detection processes the BEV maps of both frames.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bevdepth_core.decode import BoxDecoder, stack_maps
from bevdepth_core.export.pooling import PlainPooling
from bevdepth_core.export.scatter_pooling import ScatterPooling, WholePooling
from bevdepth_core.export.volume_pooling import VolumePooling
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.depth_net import DeformableConv, DepthNet
from bevdepth_core.model.view_transform import LiftSplat

CAMERAS = 'cameras'
"""Name of the dynamic dimension, the number of cameras."""


class SampledDeformableConv(nn.Module):
    """``DeformableConv`` from standard operators. One GridSample reads the nine sampling points of
    each pixel as a 3x3 block, and one convolution of stride 3 computes their weighted sum.

    Args:
        conv: module whose weights are used.
        height: height of the feature map.
        width: width of the feature map.
    """

    places: Tensor
    scale: Tensor

    def __init__(self, conv: DeformableConv, height: int, width: int) -> None:
        super().__init__()
        self.offset, self.weight = conv.offset, conv.weight
        tap = torch.arange(3) - 1
        v = (torch.arange(height)[:, None] + tap).view(height, 3, 1, 1).expand(-1, -1, width, 3)
        u = (torch.arange(width)[:, None] + tap).view(1, 1, width, 3).expand(height, 3, -1, -1)
        self.register_buffer('places', torch.stack((u, v), dim=-1).float())
        sizes = torch.tensor((width, height))
        self.register_buffer('scale', 2 / (sizes - 1).clamp(min=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return the convolution of (N, C, h, w) features."""
        offsets = self.offset(features).unflatten(1, (3, 3, 2))  # (N, row, column, vu, h, w)
        offsets = offsets.permute(0, 4, 1, 5, 2, 3).flip(-1)  # (N, h, row, w, column, uv)
        # For GridSample, -1 is the center of the first pixel, and 1 the center of the last pixel.
        grid = (self.places + offsets) * self.scale - 1
        read = F.grid_sample(
            features, grid.flatten(3, 4).flatten(1, 2), padding_mode='zeros', align_corners=True
        )
        groups = features.shape[1] // self.weight.shape[1]
        return F.conv2d(read, self.weight, stride=3, groups=groups)


class ImageBranch(nn.Module):
    """Computes depth and context from images.

    Args:
        model: a model without stereo.
        sample_deformable: replace the deformable convolution by ``SampledDeformableConv``.
    """

    def __init__(self, model: BEVDepth, sample_deformable: bool) -> None:
        super().__init__()
        assert isinstance(model.depth_net, DepthNet)
        self.image_encoder = model.image_encoder
        self.depth_net = copy.deepcopy(model.depth_net)
        if sample_deformable:
            view = model.view_transform
            self.depth_net.deform = SampledDeformableConv(  # type: ignore[assignment]
                model.depth_net.deform, len(view.frustum_v), len(view.frustum_u)
            )

    def forward(self, images: Tensor, cameras: Tensor) -> tuple[Tensor, Tensor]:
        """Return depth (N, D, h, w) and context (N, C, h, w) of normalized images (N, 3, H, W) and
        camera vectors (N, 27).
        """
        depth, context = self.depth_net(self.image_encoder(images), cameras)
        return depth, context


class CustomPooling(nn.Module):
    """Depth refinement, if the model has it, and then pooling. The pooling is exported as nodes of
    the ONNX domain ``bevdepth``.
    """

    def __init__(self, view: LiftSplat) -> None:
        super().__init__()
        self.view = view

    def forward(self, depth: Tensor, context: Tensor, ego_from_frustum: Tensor) -> Tensor:
        """Return the map (1, C, ny, nx); the arguments are the same as for ``PlainPooling``."""
        features = self.view.refine(depth[None], context[None])
        bev: Tensor = self.view(features, ego_from_frustum[None])
        return bev


def _plain(view: LiftSplat) -> nn.Module:
    return PlainPooling(view) if view.refinement is None else VolumePooling(view)


POOLINGS: dict[str, Callable[[LiftSplat], nn.Module]] = {
    'plain': _plain,
    'scatter': ScatterPooling,
    'custom': CustomPooling,
    'whole': WholePooling,
}
ONNX_POOLINGS = ('plain', 'scatter', 'custom')


class Detection(nn.Module):
    """Computes the head maps and the scored boxes before NMS from the BEV maps of all frames.

    Args:
        model: model whose BEV encoder, head and decoding are used.
    """

    def __init__(self, model: BEVDepth) -> None:
        super().__init__()
        self.bev_encoder, self.head = model.bev_encoder, model.head
        self.decoder = BoxDecoder(model.config)

    def forward(self, *bev: Tensor) -> tuple[Tensor, Tensor]:
        """Return head maps (1, T, BOX_VALUES + classes, ny, nx) in the layout of
        ``decode.stack_maps``, and the result of ``BoxDecoder.candidates`` for these maps.

        Args:
            bev: the BEV map (1, C, ny, nx) of each frame, beginning with the key frame.
        """
        maps = stack_maps(self.head(self.bev_encoder(torch.cat(bev, dim=1))))
        return maps, self.decoder.candidates(maps)


@dataclass(frozen=True)
class Part:
    """A part of the network with example inputs.

    Attributes:
        name: name of the graph, and of its file without the ending.
        module: module that computes the part, in evaluation mode.
        inputs: an example of each input, by name.
        outputs: names of the outputs.
        per_camera: names of the inputs and outputs whose first dimension is the number of cameras.
    """

    name: str
    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]
    per_camera: tuple[str, ...]


def network_parts(model: BEVDepth, pooling: str, sample_deformable: bool) -> tuple[Part, ...]:
    """Return image branch, splat and detection of ``model``.

    Args:
        model: the network, on the CPU.
        pooling: one of POOLINGS.
        sample_deformable: see ``ImageBranch``.
    """
    config, view = model.config, model.view_transform
    images = torch.zeros(2, 3, config.image.height, config.image.width)
    depth = torch.zeros(2, config.depth_bins.count, len(view.frustum_v), len(view.frustum_u))
    context = torch.zeros(2, config.depth_net.context_channels, *depth.shape[2:])
    columns, rows, _ = config.grid.shape
    bev = torch.zeros(1, config.depth_net.context_channels, rows, columns)
    features = {'depth': depth, 'context': context}
    return (
        Part(
            'image_branch',
            ImageBranch(model, sample_deformable).eval(),
            {'images': images, 'cameras': torch.zeros(2, 27)},
            tuple(features),
            ('images', 'cameras', *features),
        ),
        Part(
            'splat',
            POOLINGS[pooling](view).eval(),
            {**features, 'ego_from_frustum': torch.zeros(2, 3, 4)},
            ('bev',),
            (*features, 'ego_from_frustum'),
        ),
        Part(
            'detection',
            Detection(model).eval(),
            dict.fromkeys(('bev_key', 'bev_past')[: config.key_frames], bev),
            ('maps', 'candidates'),
            (),
        ),
    )
