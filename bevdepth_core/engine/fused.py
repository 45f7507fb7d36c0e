"""The network in evaluation mode with fewer, larger steps: batch norms folded, sums and ReLU inside convolutions, head maps merged.

In float32 the numbers are the network's own up to rounding. In half precision convolutions run in that type; the softmax over
depths, the deformable convolution's sampling points and all geometry stay float32.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights
from torchvision.models.resnet import BasicBlock, Bottleneck

from bevdepth_core.engine.clock import device_seconds
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.depth_net import AtrousPyramid, DeformableConv, DepthNet, in_network_pixels
from bevdepth_core.model.head import BOX_MAPS, CenterHead
from bevdepth_core.model.layers import MultiScaleNeck
from bevdepth_core.model.view_transform import DepthRefinement
from bevdepth_core.ops.deformable import deformable_conv
from bevdepth_core.ops.max_pool import max_pool

BOX_VALUES = sum(BOX_MAPS.values())
"""Head channels of a box: offset 2, height 1, size 3, sine and cosine of yaw, velocity 2."""


CLEARLY_SLOWER = 1.1
"""Times are taken outside of graphs, where the second and third launch of the kernels apart weigh more; a margin against noise."""


def fused(model: BEVDepth, device: torch.device, dtype: torch.dtype) -> BEVDepth:
    """Return a copy of ``model`` for inference on ``device``, every part replaced by its faster form.

    Its ``head`` returns one tensor, see ``MergedHead``; its ``view_transform`` keeps float32 geometry.
    """
    network = copy.deepcopy(model).eval().requires_grad_(False)
    _fuse_children(network)
    for part in (network.image_encoder, network.depth_net, network.bev_encoder, network.head, network.view_transform.refinement):
        if part is not None:
            part.to(dtype=dtype, memory_format=torch.channels_last)
    network.depth_net.net.camera_norm = nn.Sequential(copy.deepcopy(model.depth_net.camera_norm).float(), Cast(dtype))
    return network.to(device).eval()


class Cast(nn.Module):
    """Round to another type."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return values.to(self._dtype)


class FusedConv(nn.Module):
    """Convolution, optional sum, ReLU; in half precision on CUDA one kernel, unless several turn out to be faster.

    Args:
        conv: for stride, padding and dilation.
        weight: folded, (out, in / groups, kh, kw).
        bias: folded, (out,).
    """

    def __init__(self, conv: nn.Conv2d, weight: torch.Tensor, bias: torch.Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        self._how = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self._in_one: bool | None = None

    @classmethod
    def folded(cls, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> FusedConv:
        """Return ``conv`` with ``norm`` folded in."""
        return cls(conv, *_folded(conv, norm))

    def forward(self, features: torch.Tensor, summand: torch.Tensor | None = None) -> torch.Tensor:
        if not features.is_cuda or features.dtype not in (torch.float16, torch.bfloat16):
            return self._apart(features, summand)
        if self._in_one is None:
            self._in_one = self._is_faster_in_one(features, summand)
        return self._together(features, summand) if self._in_one else self._apart(features, summand)

    def _together(self, features: torch.Tensor, summand: torch.Tensor | None) -> torch.Tensor:
        if summand is None:
            return torch.cudnn_convolution_relu(features, self.weight, self.bias, *self._how)
        return torch.cudnn_convolution_add_relu(features, self.weight, summand, 1.0, self.bias, *self._how)

    def _apart(self, features: torch.Tensor, summand: torch.Tensor | None) -> torch.Tensor:
        result = F.conv2d(features, self.weight, self.bias, *self._how)
        return (result if summand is None else result.add_(summand)).relu_()

    def _is_faster_in_one(self, features: torch.Tensor, summand: torch.Tensor | None) -> bool:
        """Time both: cuDNN chooses the single kernel unseen, for some sizes one that takes ten times as long."""
        together, apart = (device_seconds(lambda run=run: run(features, summand)) for run in (self._together, self._apart))
        return together < CLEARLY_SLOWER * apart


class FusedBlock(nn.Module):
    """A residual block of torchvision: the sum is taken inside its last convolution."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        count = 3 if isinstance(block, Bottleneck) else 2
        parts = [(getattr(block, f'conv{n}'), getattr(block, f'bn{n}')) for n in range(1, count + 1)]
        self.first = nn.Sequential(*(FusedConv.folded(*part) for part in parts[:-1]))
        self.last = FusedConv.folded(*parts[-1])
        self.shortcut = nn.Identity()
        if block.downsample is not None:
            conv, norm = block.downsample
            weight, bias = _folded(conv, norm)
            self.shortcut = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, bias=False)
            self.shortcut.weight = nn.Parameter(weight, requires_grad=False)
            self.last.bias += bias

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.last(self.first(features), self.shortcut(features))


class FusedNeck(nn.Module):
    """The neck's branches, each one convolution.

    A transposed convolution whose stride is its kernel is a 1x1 convolution to all pixels of its squares.
    """

    def __init__(self, neck: MultiScaleNeck) -> None:
        super().__init__()
        self.branches = nn.ModuleList()
        self._upsampling = []
        for resample, norm, _ in neck.branches:
            up = resample.stride[0] if isinstance(resample, nn.ConvTranspose2d) else 1
            self.branches.append(_squares(resample, norm) if isinstance(resample, nn.ConvTranspose2d) else FusedConv.folded(resample, norm))
            self._upsampling.append(up)

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        parts = [branch(features) for branch, features in zip(self.branches, maps, strict=True)]
        return torch.cat([_spread(part, up) for part, up in zip(parts, self._upsampling, strict=True)], dim=1)


def _spread(squares: torch.Tensor, up: int) -> torch.Tensor:
    """Return (n, C, up * h, up * w), channels_last, from (n, up * up * C, h, w)."""
    if up == 1:
        return squares
    rows = squares.permute(0, 2, 3, 1).unflatten(3, (up, up, -1)).transpose(2, 3)  # (n, h, row, w, column, C)
    return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _squares(conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> FusedConv:
    """Return a 1x1 convolution whose channels are (row in the square, column in the square, channel)."""
    weight, bias = fuse_conv_bn_weights(
        conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias, transpose=True
    )
    pixels = weight.shape[2] * weight.shape[3]
    weight = weight.detach().permute(2, 3, 1, 0).flatten(0, 2)[:, :, None, None]
    return FusedConv(nn.Conv2d(weight.shape[1], weight.shape[0], 1), weight, bias.detach().repeat(pixels))


class MergedHead(nn.Module):
    """All tasks of the centre head in three convolutions.

    Tasks have different numbers of classes; maps of classes that a task lacks are filled up with the lowest number.
    """

    def __init__(self, head: CenterHead) -> None:
        super().__init__()
        self.shared = FusedConv.folded(*head.shared[:2])
        self.task_count = len(head.tasks)
        self.classes = max(task['heatmap'][1].out_channels for task in head.tasks)
        nets = [net for task in head.tasks for net in task.values()]
        folded = [_folded(*net[0][:2]) for net in nets]
        self.first = FusedConv(nets[0][0][0], *(torch.cat(part) for part in zip(*folded, strict=True)))
        self.last = self._merged(head.tasks)

    def _merged(self, tasks: nn.ModuleList) -> nn.Conv2d:
        """Return the convolution that makes all maps at once.

        Each map has a net of its own, so that most weights are 0; cuDNN's grouped convolutions take eight times as long.
        """
        width = next(iter(tasks[0].values()))[1].in_channels
        channels = BOX_VALUES + self.classes
        last = nn.Conv2d(width * sum(len(task) for task in tasks), channels * len(tasks), 3, padding=1).requires_grad_(False)
        last.weight.zero_()
        last.bias.fill_(torch.finfo(torch.float16).min)
        net_number = 0
        for number, task in enumerate(tasks):
            first = number * channels
            for net in task.values():
                rows = slice(first, first + net[1].out_channels)
                last.weight[rows, net_number * width : (net_number + 1) * width] = net[1].weight
                last.bias[rows] = net[1].bias
                first, net_number = rows.stop, net_number + 1
        return last

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (tasks, BOX_VALUES + most classes, ny, nx) from (1, in_channels, ny, nx)."""
        return self.last(self.first(self.shared(features))).unflatten(1, (self.task_count, -1))[0]


class FusedDeformableConv(nn.Module):
    """Deformable convolution whose sampling points are float32: half precision would misplace them by a hundredth of the map."""

    def __init__(self, conv: DeformableConv) -> None:
        super().__init__()
        self.offset, self.weight = conv.offset, conv.weight

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return deformable_conv(features, self.offset(features), self.weight)


class FusedMaxPool(nn.Module):
    """The stem's pooling."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return max_pool(features)


class FusedPyramid(nn.Module):
    """Atrous pyramid that adds what the global mean contributes to the projection instead of spreading it over the map first."""

    def __init__(self, pyramid: AtrousPyramid) -> None:
        super().__init__()
        self.branches = nn.ModuleList(_fused_sequence(branch) for branch in pyramid.branches)
        self.pool = _fused_sequence(pyramid.pool)
        conv, norm = pyramid.project[:2]
        weight, bias = _folded(conv, norm)
        mean_channels = pyramid.pool[1].out_channels
        weight, mean_weight = weight.split((weight.shape[1] - mean_channels, mean_channels), dim=1)
        self.project = FusedConv(conv, weight, bias)
        self.project_mean = nn.Parameter(mean_weight, requires_grad=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        branches = torch.cat([branch(features) for branch in self.branches], dim=1)
        mean = F.conv2d(self.pool(features), self.project_mean)
        mean = mean.expand(-1, -1, *features.shape[2:]).contiguous(memory_format=torch.channels_last)
        return self.project(branches, mean)


class FusedDepthNet(nn.Module):
    """Depth net whose gates can be computed before the image features are there, and whose softmax runs along memory."""

    def __init__(self, net: DepthNet) -> None:
        super().__init__()
        _fuse_children(net)
        self.net = net

    def gates(self, cameras: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the factors (n, C, 1, 1) of context and depth features from (n, 27) camera vectors."""
        net = self.net
        cameras = net.camera_norm(in_network_pixels(cameras) if net.told_network_pixels else cameras)
        return net.context_gate.factors(cameras), net.depth_gate.factors(cameras)

    def forward(self, features: torch.Tensor, cameras: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """As ``DepthNet``."""
        return self.gated(features, self.gates(cameras))

    def gated(self, features: torch.Tensor, gates: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return depth (n, D, h, w) float32 and context (n, C, h, w) from image features and the gates."""
        net = self.net
        context_gate, depth_gate = gates
        features = net.reduce(features)
        context = net.context_head(features * context_gate)
        logits = net.depth_head(net.deform(net.pyramid(net.depth_blocks(features * depth_gate))))
        return F.softmax(logits.permute(0, 2, 3, 1), dim=-1, dtype=torch.float32).permute(0, 3, 1, 2), context


class FusedRefinement(nn.Module):
    """Depth refinement whose planes are made channels_last at once, and whose result is copied and given its bias in one."""

    def __init__(self, refinement: DepthRefinement) -> None:
        super().__init__()
        self.reduce, self.residual, self.out = refinement.reduce, refinement.residual, refinement.out
        _fuse_children(self)

    def forward(self, depth: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Return the refined volume (B, N, C, D, h, w) of depth (B, N, D, h, w) and context (B, N, C, h, w)."""
        batch, cameras, bins, height, width = depth.shape
        volume = context.new_empty(batch, cameras, height, width, bins, context.shape[2])
        torch.mul(depth.permute(0, 1, 3, 4, 2)[..., None], context.permute(0, 1, 3, 4, 2)[..., None, :], out=volume)
        planes = volume.flatten(0, 2).permute(0, 3, 1, 2)  # one (w, D) plane per feature-map row
        planes = self.reduce(planes)
        planes = F.conv2d(planes + self.residual(planes), self.out.weight, padding=1)
        refined = planes.unflatten(0, (batch, cameras, height)).permute(0, 1, 3, 5, 2, 4)
        return torch.add(refined, self.out.bias[:, None, None, None], out=refined.new_empty(refined.shape))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[torch.Tensor, torch.Tensor]:
    weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
    return weight.detach(), bias.detach()


_FUSED = {
    AtrousPyramid: FusedPyramid,
    BasicBlock: FusedBlock,
    Bottleneck: FusedBlock,
    MultiScaleNeck: FusedNeck,
    nn.MaxPool2d: lambda _: FusedMaxPool(),
    DepthNet: FusedDepthNet,
    CenterHead: MergedHead,
    DeformableConv: FusedDeformableConv,
    DepthRefinement: FusedRefinement,
}


def _fuse_children(module: nn.Module) -> None:
    """Replace every part that has a faster form, in place."""
    if {'conv1', 'bn1', 'relu'} <= dict(module.named_children()).keys():  # the stem of a trunk
        module.conv1 = FusedConv.folded(module.conv1, module.bn1)
        module.bn1, module.relu = nn.Identity(), nn.Identity()
    for name, child in module.named_children():
        make = next((fast for slow, fast in _FUSED.items() if isinstance(child, slow)), None)
        if make is not None:
            setattr(module, name, make(child))
        elif isinstance(child, nn.Sequential):
            setattr(module, name, _fused_sequence(child))
        else:
            _fuse_children(child)


def _fused_sequence(sequence: nn.Sequential) -> nn.Sequential:
    """Return ``sequence`` with every convolution, batch norm, ReLU in one."""
    parts = list(sequence)
    fused_parts = []
    while parts:
        if len(parts) >= 3 and [type(part) for part in parts[:3]] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU]:
            fused_parts.append(FusedConv.folded(*parts[:2]))
            parts = parts[3:]
        else:
            fused_parts.append(parts.pop(0))
    result = nn.Sequential(*fused_parts)
    _fuse_children(result)
    return result
