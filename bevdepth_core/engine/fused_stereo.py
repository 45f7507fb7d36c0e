"""Inference versions of the networks of stereo depth."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from bevdepth_core.engine.convolutions import fold_batch_norm, require_type
from bevdepth_core.model.stereo_depth import StereoDepth


class ChannelsLastCast(nn.Module):
    """Converts maps to another dtype and to channels_last in one copy."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.to(self._dtype, memory_format=torch.channels_last)


class FusedUpsampling(nn.Module):
    """Transposed convolution with the batch norm folded in, followed by ReLU."""

    def __init__(self, conv: nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        weight, bias = fold_batch_norm(conv, norm)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)
        assert not isinstance(conv.padding, str)
        self._conv_args = (
            conv.stride,
            conv.padding,
            conv.output_padding,
            conv.groups,
            conv.dilation,
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return F.conv_transpose2d(features, self.weight, self.bias, *self._conv_args).relu_()


class FusedSimilarity(nn.Module):
    """The similarity network of ``StereoDepth``, computed as three matrix products over all pixels
    and depths.
    """

    def __init__(self, similarity: nn.Sequential) -> None:
        super().__init__()
        first, second, last = similarity
        weights = [
            _folded_pointwise(require_type(layer, nn.Sequential)) for layer in (first, second)
        ]
        last = require_type(last, nn.Conv3d)
        assert last.bias is not None
        weights.append((last.weight.detach().flatten(1), last.bias.detach()))
        self.weights = nn.ParameterList(
            nn.Parameter(weight.t().contiguous(), requires_grad=False) for weight, _ in weights
        )
        self.biases = nn.ParameterList(
            nn.Parameter(bias.clone(), requires_grad=False) for _, bias in weights
        )

    def forward(self, costs: torch.Tensor) -> torch.Tensor:
        """Return scores (n, 1, K, h, w) of costs (n, groups, K, h, w)."""
        rows = costs.permute(0, 2, 3, 4, 1)
        values = rows.reshape(-1, rows.shape[-1])
        *inner, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for inner_weight, inner_bias in inner:
            values = torch.addmm(inner_bias, values, inner_weight).relu_()
        return torch.addmm(bias, values, weight).view(rows.shape[:-1])[:, None]


def fused_stereo(stereo: StereoDepth, dtype: torch.dtype) -> StereoDepth:
    """Convert the networks of ``stereo`` to ``dtype`` in place and return ``stereo``. The 3D
    convolutions of the similarity network become matrix products. The 2D convolutions of
    ``stereo`` must be fused already. Depths, hypotheses and pixel coordinates stay float32.
    """
    stereo.similarity = nn.Sequential(FusedSimilarity(stereo.similarity).to(dtype))
    for name in ('mask', 'downsample'):
        network = require_type(getattr(stereo, name), nn.Sequential)
        network.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
        setattr(stereo, name, nn.Sequential(ChannelsLastCast(dtype), *network))
    return stereo


def _folded_pointwise(layer: nn.Sequential) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (out, in) weight and the bias of a 1x1x1 convolution with its batch norm."""
    weight, bias = fold_batch_norm(
        require_type(layer[0], nn.Conv3d), require_type(layer[1], nn.BatchNorm3d)
    )
    return weight.flatten(1), bias
