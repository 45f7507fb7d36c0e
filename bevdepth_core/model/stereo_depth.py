"""Estimates depth from a comparison of the features of two frames.

The terms of this module, in the order in which they are built on each other:

* Reference frame: the frame whose depth is estimated.
* Source frame: the frame with which the reference frame is compared.
* Mono logits: logits of the D depth bins that the depth net computes from a single frame, on the
  grid (h, w) of stride 16.
* Range: the depth is divided into R consecutive ranges (``StereoConfig.range_bounds``). A range
  consists of several depth bins.
* Hypothesis: mean, spread and score of the depth of one pixel in one range, on the grid (4 h, 4 w)
  of stride 4. The depth net computes the first hypotheses.
* Candidate: one of three depths around the mean. It gives a point in the source frame. The cost
  volume compares the features at the pixel and at this point, and contains one number per group of
  channels. The network ``similarity`` computes the score of the candidate from these numbers.
* Refinement: the scores of the candidates give the next mean and spread of the hypothesis. This is
  repeated ``iterations`` times.
* Density: value of a hypothesis at a depth bin of its range, weighted by the softmax of the
  scores of the hypotheses over the ranges.
* Stereo logits: logits that the network ``downsample`` computes from the densities, on the grid of
  stride 16.
* Mask: a number from 0 to 1 per range and pixel of the grid of stride 16, computed from the mono
  logits of both frames. Where the mask is small, the stereo logits have little effect.

The depth distribution is the softmax of mono logits + stereo logits * mask.

Source: BEVStereo, arXiv 2209.10248, and its official code.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bevdepth_core.config import ModelConfig
from bevdepth_core.model.layers import conv_norm_relu
from bevdepth_core.model.torchvision_parts import BasicBlock
from bevdepth_core.model.view_transform import StereoFeatures
from bevdepth_core.ops.cost_volume import cost_volume
from bevdepth_core.ops.warping import warp

CANDIDATES = 3
CANDIDATE_REACH = 3.0
"""The candidates lie within this many standard deviations of the mean. This range is divided into
``CANDIDATES`` parts of equal probability, and each candidate is the middle of a part."""
MIDDLE_PROBABILITY = 0.5
"""Probability of the middle candidate at which the spread does not change. If the probability is
lower, the spread grows; if it is higher, the spread shrinks."""
SPREAD_FACTOR_LIMITS = (0.1, 10.0)
"""Limits of the factor by which one iteration of the refinement multiplies a spread."""
SPREAD_LIMITS = (0.1, 10.0)
"""Limits of the spread after each iteration, meters."""
LEAST_SPREAD_OF_BINS = 1.0
"""Lower limit of the refined spread for the densities at the depth bins."""
SPREAD_EPSILON = 1e-10
"""This number is added to each spread before the refinement, as in the official code. In float32,
its effect on the result is at most a rounding error."""
_PROBABILITY_EPSILON = 1e-4
_DENSITY_EPSILON = 1e-6
_MASK_CHANNELS, _DOWNSAMPLE_CHANNELS = 64, 256
_HYPOTHESIS_GRID_SCALE = 4
"""The grid of hypotheses (stride 4) has this many times the rows and columns of the depth map
(stride 16)."""


@dataclass(frozen=True)
class StereoDistribution:
    """Depth distributions (B, N, D, h, w) in float32.

    Attributes:
        masked: the distribution that is splatted.
        unmasked: the distribution without the mask. The depth loss compares it with the lidar, as
            in the official code.
    """

    masked: Tensor
    unmasked: Tensor


class StereoDepth(nn.Module):
    """Computes the depth distribution of a reference frame from the features of the reference
    frame and of a source frame.

    Args:
        config: config of a stereo model.
    """

    candidate_factors: Tensor
    bin_numbers: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.stereo is not None
        bins = config.depth_bins
        self._config = config.stereo
        self._image_size = (config.image.height, config.image.width)
        self._start, self._step = bins.start, bins.step
        self._ranges = list(itertools.pairwise(self._config.range_bounds))
        self._bins_of_ranges = [round((high - low) / bins.step) for low, high in self._ranges]
        self.register_buffer('candidate_factors', candidate_factors())
        # On the meta device, torch.arange would import the compiler of PyTorch.
        bin_numbers = torch.from_numpy(np.arange(bins.count, dtype=np.float32))
        self.register_buffer('bin_numbers', bin_numbers)
        groups = self._config.groups
        self.similarity = nn.Sequential(
            _pointwise_norm_relu(groups, 16), _pointwise_norm_relu(16, 8), nn.Conv3d(8, 1, 1)
        )
        self.mask = nn.Sequential(
            *conv_norm_relu(2 * bins.count, _MASK_CHANNELS, 3, bias=True),
            BasicBlock(_MASK_CHANNELS, _MASK_CHANNELS),
            BasicBlock(_MASK_CHANNELS, _MASK_CHANNELS),
            nn.Conv2d(_MASK_CHANNELS, 1, 1),
        )
        self.downsample = nn.Sequential(
            *_halved(bins.count, _DOWNSAMPLE_CHANNELS),
            *_halved(_DOWNSAMPLE_CHANNELS, _DOWNSAMPLE_CHANNELS),
            nn.Conv2d(_DOWNSAMPLE_CHANNELS, bins.count, 1),
        )

    def forward(
        self,
        reference: StereoFeatures,
        source: StereoFeatures,
        matrix: Tensor,
        is_key_frame: bool = True,
    ) -> StereoDistribution:
        """Return the depth distributions of ``reference``.

        Args:
            reference: features of the reference frame, with N cameras.
            source: features of a source frame with the same N cameras in the same order, or
                ``reference`` itself.
            matrix: (B, N, 3, 4) float64, see ``ops.warping.source_from_reference``.
            is_key_frame: whether the depth loss reads the distribution of ``reference``.
        """
        batch_and_cameras = matrix.shape[:2]
        pair = _FramePair.of(reference, source, matrix)
        depth, mask = self._depth_and_mask(pair)
        logits = self.downsample(depth)
        masked = F.softmax(pair.mono_logits + logits * mask, dim=1, dtype=torch.float32)
        if self.training and is_key_frame:
            # The official code calls ``downsample`` again for the loss. This is repeated here,
            # because each call updates the running statistics of batch norms.
            logits = self.downsample(depth)
        unmasked = F.softmax(pair.mono_logits + logits, dim=1, dtype=torch.float32)
        return StereoDistribution(
            masked.unflatten(0, batch_and_cameras), unmasked.unflatten(0, batch_and_cameras)
        )

    def _depth_and_mask(self, pair: _FramePair) -> tuple[Tensor, Tensor]:
        """Return the densities (n, D, 4 h, 4 w) at all depth bins, and the mask (n, D, h, w), in
        which each bin has the value of its range.
        """
        means, spreads, scores = pair.hypotheses.chunk(3, dim=1)
        means = self._in_ranges(means, lambda mean, low, high: mean.sigmoid() * (high - low) + low)
        means, spreads = self._refined_ranges(means, F.elu(spreads) + 1 + SPREAD_EPSILON, pair)
        if self._config.clamp_mean:
            means = self._in_ranges(means, torch.clamp)
        weights = F.softmax(scores, dim=1, dtype=torch.float32)
        densities = self._densities(means, spreads.clamp(min=LEAST_SPREAD_OF_BINS), weights)
        masks = zip(self._masks(means, pair).split(1, 1), self._bins_of_ranges, strict=True)
        mask = torch.cat([part.expand(-1, count, -1, -1) for part, count in masks], dim=1)
        return densities, mask

    def _in_ranges(self, means: Tensor, function: Callable[..., Tensor]) -> Tensor:
        """Call ``function(means, start, end)`` for each range, with the means (n, 1, 4 h, 4 w) of
        the hypotheses in this range, and concatenate the results.
        """
        parts = zip(means.split(1, 1), self._ranges, strict=True)
        return torch.cat([function(part, low, high) for part, (low, high) in parts], dim=1)

    def _densities(self, means: Tensor, spreads: Tensor, weights: Tensor) -> Tensor:
        """Return the densities (n, D, 4 h, 4 w) at all depth bins. Means, spreads and weights of
        the hypotheses of all ranges are (n, R, 4 h, 4 w).
        """
        depths = (self._start + self._step * self.bin_numbers).split(self._bins_of_ranges)
        ranges = zip(
            depths, *(part.split(1, 1) for part in (means, spreads, weights)), strict=True
        )
        return torch.cat(
            [bin_density(depth, mean, spread) * weight for depth, mean, spread, weight in ranges],
            dim=1,
        )

    def _refined_ranges(
        self, means: Tensor, spreads: Tensor, pair: _FramePair
    ) -> tuple[Tensor, Tensor]:
        """Refine the (n, R, 4 h, 4 w) hypotheses of all ranges.

        In training, the ranges are refined one after the other as in the official code, because
        each call of a batch norm uses the statistics of its own input.
        """
        if not self.training:
            return self._refined(means, spreads, pair)
        ranges = zip(means.split(1, 1), spreads.split(1, 1), strict=True)
        refined = [self._refined(mean, spread, pair) for mean, spread in ranges]
        means, spreads = (torch.cat(parts, dim=1) for parts in zip(*refined, strict=True))
        return means, spreads

    def _refined(self, means: Tensor, spreads: Tensor, pair: _FramePair) -> tuple[Tensor, Tensor]:
        """Return means and spreads after all iterations of the refinement. The arguments can have
        any number of ranges.
        """
        factors = self.candidate_factors[:, None, None]
        means, spreads = means[:, :, None], spreads[:, :, None]
        for _ in range(self._config.iterations):
            candidates = means + spreads * factors  # (n, R, CANDIDATES, 4 h, 4 w)
            cost = self._cost_volume(candidates.flatten(1, 2), pair)
            scores = self.similarity(cost)[:, 0].unflatten(1, candidates.shape[1:3])
            means, spreads = updated(candidates, spreads, scores)
        return means[:, :, 0], spreads[:, :, 0]

    @torch.no_grad()
    def _cost_volume(self, candidates: Tensor, pair: _FramePair) -> Tensor:
        """Return the cost volume (n, groups, K, 4 h, 4 w) for the depths (n, K, 4 h, 4 w)."""
        features, source = pair.features, pair.source_features
        groups = self._config.groups
        return cost_volume(features, source, candidates, pair.matrix, self._image_size, groups)

    def _masks(self, means: Tensor, pair: _FramePair) -> Tensor:
        """Return the mask of each range, (n, R, h, w)."""
        inputs = self._mask_inputs(means, pair)
        if not self.training:
            return self.mask(inputs.flatten(0, 1)).sigmoid()[:, 0].unflatten(0, means.shape[:2])
        return torch.cat([self.mask(part) for part in inputs.unbind(1)], dim=1).sigmoid()

    @torch.no_grad()
    def _mask_inputs(self, means: Tensor, pair: _FramePair) -> Tensor:
        """Return (n, R, 2 D, h, w): the mono logits of the reference frame, followed by the mono
        logits of the source frame, which are warped to the reference frame with the mean depths
        of each range.
        """
        depths = F.avg_pool2d(means, _HYPOTHESIS_GRID_SCALE)
        source, matrix = (
            tensor[:, None].expand(-1, depths.shape[1], *tensor.shape[1:]).flatten(0, 1)
            for tensor in (pair.source_mono_logits, pair.matrix)
        )
        warped = warp(source, depths.flatten(0, 1), matrix, self._image_size)
        warped = warped.unflatten(0, depths.shape[:2])
        return torch.cat((pair.mono_logits[:, None].expand_as(warped), warped), dim=2)


@dataclass(frozen=True)
class _FramePair:
    """Two frames. The first dimension of each tensor contains the cameras of all samples. Logits
    and hypotheses are float32, the features have the data type of the network, and the matrix is
    float64.

    The features of both frames and the logits of the source frame get no gradient, as in the
    official code.
    """

    features: Tensor
    mono_logits: Tensor
    hypotheses: Tensor
    source_features: Tensor
    source_mono_logits: Tensor
    matrix: Tensor

    @classmethod
    def of(cls, reference: StereoFeatures, source: StereoFeatures, matrix: Tensor) -> _FramePair:
        return cls(
            reference.features.detach().flatten(0, 1),
            reference.mono_logits.flatten(0, 1).float(),
            reference.hypotheses.flatten(0, 1).float(),
            source.features.detach().flatten(0, 1),
            source.mono_logits.detach().flatten(0, 1).float(),
            matrix.detach().flatten(0, 1),
        )


def candidate_factors() -> Tensor:
    """Return (CANDIDATES,) float32: the signed distance of each candidate from the mean, in units
    of the spread.

    The normal distribution within CANDIDATE_REACH is divided into parts of equal probability. A
    candidate lies in the middle between the borders of its part.
    """
    within = math.erf(CANDIDATE_REACH / math.sqrt(2))
    shares = [(1 - within) / 2 + within * part / CANDIDATES for part in range(CANDIDATES + 1)]
    borders = [NormalDist().inv_cdf(share) for share in shares]
    return torch.tensor([(low + high) / 2 for low, high in itertools.pairwise(borders)])


def updated(candidates: Tensor, spread: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next mean and spread (..., 1, h, w) from candidates and scores (..., CANDIDATES,
    h, w) and the current spread.
    """
    probability = F.softmax(scores, dim=-3, dtype=torch.float32)
    middle = CANDIDATES // 2
    factor = MIDDLE_PROBABILITY / (
        _PROBABILITY_EPSILON + probability[..., middle : middle + 1, :, :]
    )
    spread = (spread * factor.clamp(*SPREAD_FACTOR_LIMITS)).clamp(*SPREAD_LIMITS)
    return (candidates * probability).sum(dim=-3, keepdim=True), spread


def bin_density(depths: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
    """Return the density (n, k, h, w) of hypotheses (n, 1, h, w) at the (k,) depths of the bins.

    The spread is a variance in the exponent and a standard deviation in the divisor, as in the
    official code.
    """
    distance = depths[:, None, None] - mean
    return torch.exp(-(distance**2) / (2 * spread)) / (
        spread * math.sqrt(2 * math.pi) + _DENSITY_EPSILON
    )


def _pointwise_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(in_channels, out_channels, 1, bias=False),
        nn.BatchNorm3d(out_channels),
        nn.ReLU(inplace=True),
    )


def _halved(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )
