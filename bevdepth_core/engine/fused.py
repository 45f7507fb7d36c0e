"""Converts a network for faster inference: batch norms, sums and ReLU become parts of
convolutions, and the head maps of all tasks are merged.

In float32 the results equal those of the original network up to rounding. In half precision the
convolutions run in that type; the softmax over depths, the sampling points of the deformable
convolution and all geometry stay float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from bevdepth_core.engine.convolutions import FusedBlock, FusedConv, FusedMaxPool, FusedNeck
from bevdepth_core.engine.fused_depth import (
    ChannelsLastSoftmax,
    FusedDeformableConv,
    FusedPyramid,
    FusedRefinement,
)
from bevdepth_core.engine.merged_head import MergedHead
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.bev_encoder import BEVEncoder
from bevdepth_core.model.depth_net import (
    AtrousPyramid,
    DeformableConv,
    DepthNet,
    DepthSoftmax,
)
from bevdepth_core.model.image_encoder import ImageEncoder
from bevdepth_core.model.layers import MultiScaleNeck
from bevdepth_core.model.view_transform import DepthRefinement, LiftSplat


@dataclass(frozen=True)
class FusedNetwork:
    """The parts of a folded network whose head is merged, for one sample at a time."""

    image_encoder: ImageEncoder
    depth_net: DepthNet
    view_transform: LiftSplat
    bev_encoder: BEVEncoder
    head: MergedHead


def folded_model(model: BEVDepth, dtype: torch.dtype) -> BEVDepth:
    """Return a copy of ``model`` for inference in which faster modules replace the original ones.

    Weights are ``dtype`` and channels_last; the frustum and the norm of the camera vector, whose
    numbers reach thousands, stay float32.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    _fuse_children(network)
    for part in (
        network.image_encoder,
        network.depth_net,
        network.bev_encoder,
        network.head,
        network.view_transform.refinement,
    ):
        if part is not None:
            _cast(part, dtype)
    network.depth_net.camera_norm = nn.Sequential(
        copy.deepcopy(model.depth_net.camera_norm).float(), Cast(dtype)
    )
    return network.eval()


@torch.no_grad()
def fused(model: BEVDepth, device: torch.device, dtype: torch.dtype) -> FusedNetwork:
    """Return the parts of ``folded_model`` on ``device``, with all head tasks merged."""
    network = folded_model(model, dtype).to(device)
    if not isinstance(network.depth_net, DepthNet):
        raise TypeError('stereo models have no folded form')
    head = MergedHead(model.head)
    _cast(head, dtype)
    return FusedNetwork(
        network.image_encoder,
        network.depth_net,
        network.view_transform,
        network.bev_encoder,
        head.to(device).eval(),
    )


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    module.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


class Cast(nn.Module):
    """Round to another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._dtype)


_OF_PLAIN_PARTS: dict[type, Callable[[Any], nn.Module]] = {
    BasicBlock: FusedBlock,
    Bottleneck: FusedBlock,
    DepthSoftmax: ChannelsLastSoftmax,
    MultiScaleNeck: FusedNeck,
    nn.MaxPool2d: FusedMaxPool,
}
_OF_FUSED_PARTS: dict[type, Callable[[Any], nn.Module]] = {
    AtrousPyramid: FusedPyramid,
    DeformableConv: FusedDeformableConv,
    DepthRefinement: FusedRefinement,
}


def _fuse_children(module: nn.Module) -> None:
    """Replace every child that has a faster form, in place."""
    if {'conv1', 'bn1', 'relu'} <= dict(module.named_children()).keys():  # the stem of a trunk
        module.conv1 = FusedConv.folded(module.conv1, module.bn1)
        module.bn1, module.relu = nn.Identity(), nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, _fused(child))


def _fused(module: nn.Module) -> nn.Module:
    """Return the faster form of ``module``; if there is none, replace its children and return
    it.
    """
    make = _OF_PLAIN_PARTS.get(type(module))
    if make is not None:
        return make(module)
    if isinstance(module, nn.Sequential):
        module = _fused_sequence(module)
    _fuse_children(module)
    make = _OF_FUSED_PARTS.get(type(module))
    return module if make is None else make(module)


def _fused_sequence(sequence: nn.Sequential) -> nn.Sequential:
    """Return ``sequence`` with each convolution, batch norm and ReLU replaced by one
    ``FusedConv``.
    """
    parts = list(sequence)
    fused_parts: list[nn.Module] = []
    while parts:
        if len(parts) >= 3 and [type(part) for part in parts[:3]] == [
            nn.Conv2d,
            nn.BatchNorm2d,
            nn.ReLU,
        ]:
            fused_parts.append(FusedConv.folded(*parts[:2]))
            parts = parts[3:]
        else:
            fused_parts.append(parts.pop(0))
    return nn.Sequential(*fused_parts)
