"""Converts a network for faster inference: batch norms, residuals and ReLU become parts of
convolutions, and the head maps of all tasks are merged.

In float32, the results equal the results of the original network up to rounding. With a float16 or
bfloat16 network, the softmax over depths, the sampling points of the deformable convolution and
all geometry are still computed in float32.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bevdepth_core.engine.convolutions import FusedBlock, FusedConv, FusedNeck, StemMaxPool
from bevdepth_core.engine.fused_depth import (
    ChannelsLastSoftmax,
    FusedDeformableConv,
    FusedPyramid,
    FusedRefinement,
)
from bevdepth_core.engine.fused_stereo import FusedUpsampling, fused_stereo
from bevdepth_core.engine.merged_head import MergedHead
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.bev_encoder import BEVEncoder
from bevdepth_core.model.depth_net import (
    AtrousPyramid,
    DeformableConv,
    DepthNet,
    DepthSoftmax,
    StereoDepthNet,
)
from bevdepth_core.model.image_encoder import ImageEncoder
from bevdepth_core.model.layers import MultiScaleNeck
from bevdepth_core.model.stereo_depth import StereoDepth
from bevdepth_core.model.torchvision_parts import BasicBlock, Bottleneck
from bevdepth_core.model.view_transform import (
    DepthRefinement,
    ImageFeatures,
    LiftSplat,
    StereoFeatures,
)


@dataclass(frozen=True)
class FusedNetwork:
    """The parts of a network with folded batch norms and a merged head. They process one sample at
    a time.
    """

    image_encoder: ImageEncoder
    depth_net: DepthNet | StereoDepthNet
    stereo: StereoDepth | None
    view_transform: LiftSplat
    bev_encoder: BEVEncoder
    head: MergedHead

    def features(
        self,
        encoded: torch.Tensor,
        first_stage: torch.Tensor,
        gates: tuple[torch.Tensor, torch.Tensor],
    ) -> ImageFeatures:
        """Return the features of a frame before depth refinement.

        Args:
            encoded: features from the image encoder.
            first_stage: first stage of the image encoder; only stereo networks use it.
            gates: result of ``depth_net.gates``, factors of the depth and context features.
        """
        if not isinstance(self.depth_net, StereoDepthNet):
            depth, context = self.depth_net.gated(encoded, gates)
            return ImageFeatures(depth[None], context[None])
        logits, hypotheses, context = self.depth_net.gated(encoded, gates)
        return ImageFeatures(
            logits.softmax(dim=1, dtype=torch.float32)[None],
            context[None],
            stereo=StereoFeatures(first_stage[None], logits[None], hypotheses[None]),
        )


def folded_model(model: BEVDepth, dtype: torch.dtype) -> BEVDepth:
    """Return a copy of ``model`` for inference, in which modules are replaced by faster modules.

    Weights have the data type ``dtype`` and the layout channels_last. The weights of stereo depth
    and the frustum stay float32. The batch norm of the camera vector also stays float32, because
    the numbers of a camera vector reach thousands, and 16-bit types would round them too much.
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
    head = MergedHead(model.head)
    _cast(head, dtype)
    return FusedNetwork(
        network.image_encoder,
        network.depth_net,
        None if network.stereo is None else fused_stereo(network.stereo, dtype).eval(),
        network.view_transform,
        network.bev_encoder,
        head.to(device).eval(),
    )


def _cast(module: nn.Module, dtype: torch.dtype) -> None:
    module.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]


class Cast(nn.Module):
    """Converts a tensor to another dtype."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._dtype)


_REPLACEMENTS: dict[type, Callable[[Any], nn.Module]] = {
    BasicBlock: FusedBlock,
    Bottleneck: FusedBlock,
    DepthSoftmax: ChannelsLastSoftmax,
    MultiScaleNeck: FusedNeck,
    nn.MaxPool2d: StemMaxPool,
}
"""Maps the type of a module to its inference version."""
_CONV_NORM_REPLACEMENTS: dict[type, Callable[..., nn.Module]] = {
    nn.Conv2d: FusedConv.from_conv_norm,
    nn.ConvTranspose2d: FusedUpsampling,
}
"""Maps the type of a convolution to the inference version of convolution, batch norm and ReLU."""
_REPLACEMENTS_AFTER_CHILDREN: dict[type, Callable[[Any], nn.Module]] = {
    AtrousPyramid: FusedPyramid,
    DeformableConv: FusedDeformableConv,
    DepthRefinement: FusedRefinement,
}
"""Maps the type of a module to its inference version; the children of the module must be replaced
first."""


def _fuse_children(module: nn.Module) -> None:
    """Replace every child that has an inference version, in place."""
    if {'conv1', 'bn1', 'relu'} <= dict(module.named_children()).keys():  # the stem of a trunk
        module.conv1 = FusedConv.from_conv_norm(module.conv1, module.bn1)
        module.bn1, module.relu = nn.Identity(), nn.Identity()
    for name, child in module.named_children():
        setattr(module, name, _fused(child))


def _fused(module: nn.Module) -> nn.Module:
    """Return the inference version of ``module``; if there is none, return ``module`` with its
    children replaced.
    """
    make = _REPLACEMENTS.get(type(module))
    if make is not None:
        return make(module)
    if isinstance(module, nn.Sequential):
        module = _fused_sequence(module)
    _fuse_children(module)
    make = _REPLACEMENTS_AFTER_CHILDREN.get(type(module))
    return module if make is None else make(module)


def _fused_sequence(sequence: nn.Sequential) -> nn.Sequential:
    """Return ``sequence`` with each convolution, batch norm and ReLU replaced by one module."""
    parts = list(sequence)
    fused_parts: list[nn.Module] = []
    while parts:
        make = _CONV_NORM_REPLACEMENTS.get(type(parts[0]))
        if make is not None and [type(part) for part in parts[1:3]] == [nn.BatchNorm2d, nn.ReLU]:
            fused_parts.append(make(*parts[:2]))
            parts = parts[3:]
        else:
            fused_parts.append(parts.pop(0))
    return nn.Sequential(*fused_parts)
