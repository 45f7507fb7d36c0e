"""Depth from comparing the features of two frames.

Each pixel has one depth hypothesis per depth range: a mean and a spread. Three candidates around
the mean are looked up in the other frame; how well the features match there moves the mean and
changes the spread, several times. The refined hypotheses become logits that are added to those of
the single frame, weighted by a mask.

Source: BEVStereo, arXiv 2209.10248, and its official code.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import BasicBlock

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.model.layers import conv_norm_relu
from bevdepth_core.model.view_transform import StereoFeatures
from bevdepth_core.model.warping import warp

CANDIDATES = 3
CANDIDATE_REACH = 3.0
"""The candidates divide the range of this many standard deviations around the mean into parts
of equal probability."""
MIDDLE_PROBABILITY = 0.5
"""Probability of the middle candidate at which the spread does not change. With a lower one it
grows, with a higher one it shrinks."""
SPREAD_FACTOR_LIMITS = (0.1, 10.0)
SPREAD_LIMITS = (0.1, 10.0)
LEAST_SPREAD_OF_BINS = 1.0
SPREAD_EPSILON = 1e-10
"""Added to a spread before its refinement as in the official code; it has no effect in float32."""
_PROBABILITY_EPSILON = 1e-4
_DENSITY_EPSILON = 1e-6
_MASK_CHANNELS, _DOWNSAMPLE_CHANNELS = 64, 256
_HYPOTHESES_PER_PIXEL = 4
"""Rows and columns of hypotheses per row and column of the depth map: strides 4 and 16."""


@dataclass(frozen=True)
class StereoDistribution:
    """Depth distributions (B, N, D, h, w) in float32.

    Attributes:
        masked: the distribution that is splatted.
        unmasked: the distribution that the depth loss compares with the lidar, as in the official
            code.
    """

    masked: Tensor
    unmasked: Tensor


class StereoDepth(nn.Module):
    """Depth distribution of a reference frame from its features and those of a source frame.

    Args:
        config: config of a stereo model.
    """

    candidate_factors: Tensor
    bin_numbers: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.stereo is not None
        bins = config.depth_bins
        self._config, self._image = config.stereo, config.image
        self._start, self._step = bins.start, bins.step
        self._first_bins = [
            round((bound - bins.start) / bins.step) for bound in self._config.range_bounds
        ]
        self.register_buffer('candidate_factors', candidate_factors())
        self.register_buffer('bin_numbers', torch.arange(bins.count, dtype=torch.float32))
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
            reference: N cameras.
            source: another frame of the same N cameras in the same order, or ``reference`` itself.
            matrix: (B, N, 3, 4) float64, see ``warping.source_from_reference``.
            is_key_frame: whether the depth loss reads the distribution of ``reference``.
        """
        batch_and_cameras = matrix.shape[:2]
        pair = _FramePair.of(reference, source, matrix, self._image)
        depth, mask = self._depth_and_mask(pair)
        logits = self.downsample(depth)
        masked = F.softmax(pair.mono_logits + logits * mask, dim=1, dtype=torch.float32)
        if self.training and is_key_frame:
            # The official code repeats it for the loss, which moves the norms' statistics twice.
            logits = self.downsample(depth)
        unmasked = F.softmax(pair.mono_logits + logits, dim=1, dtype=torch.float32)
        return StereoDistribution(
            masked.unflatten(0, batch_and_cameras), unmasked.unflatten(0, batch_and_cameras)
        )

    def _depth_and_mask(self, pair: _FramePair) -> tuple[Tensor, Tensor]:
        """Return densities (n, D, 4 h, 4 w) and the mask (n, D, h, w) of all ranges."""
        means, spreads, scores = pair.hypotheses.chunk(3, dim=1)
        weights = F.softmax(scores, dim=1, dtype=torch.float32)
        depths_of_bins = self._start + self._step * self.bin_numbers
        depths, masks = [], []
        bounds = itertools.pairwise(self._config.range_bounds)
        bins = itertools.pairwise(self._first_bins)
        for index, ((low, high), (first, end)) in enumerate(zip(bounds, bins, strict=True)):
            mean = means[:, index : index + 1].sigmoid() * (high - low) + low
            spread = F.elu(spreads[:, index : index + 1]) + 1 + SPREAD_EPSILON
            mean, spread = self._refined(mean, spread, pair)
            if self._config.clamp_mean:
                mean = mean.clamp(low, high)
            density = bin_density(
                depths_of_bins[first:end], mean, spread.clamp(min=LEAST_SPREAD_OF_BINS)
            )
            depths.append(density * weights[:, index : index + 1])
            masks.append(self._mask_of(mean, pair).expand(-1, end - first, -1, -1))
        return torch.cat(depths, dim=1), torch.cat(masks, dim=1)

    def _refined(self, mean: Tensor, spread: Tensor, pair: _FramePair) -> tuple[Tensor, Tensor]:
        factors = self.candidate_factors[:, None, None]
        for _ in range(self._config.iterations):
            candidates = mean + spread * factors
            cost = cost_volume(pair, candidates.detach(), self._config.groups)
            mean, spread = updated(candidates, spread, self.similarity(cost)[:, 0])
        return mean, spread

    def _mask_of(self, mean: Tensor, pair: _FramePair) -> Tensor:
        """Return the (n, 1, h, w) weight of the logits in the bins of a range."""
        with torch.no_grad():
            depth = F.avg_pool2d(mean, _HYPOTHESES_PER_PIXEL)[:, 0]
            warped = warp(pair.source_mono_logits, depth, pair.matrix, pair.image)
            both = torch.cat((pair.mono_logits, warped), dim=1)
        return self.mask(both).sigmoid()


@dataclass(frozen=True)
class _FramePair:
    """Two frames with the cameras of all samples as a batch, in float32.

    Features and the source frame get no gradient, as in the official code.
    """

    features: Tensor
    mono_logits: Tensor
    hypotheses: Tensor
    source_features: Tensor
    source_mono_logits: Tensor
    matrix: Tensor
    image: ImageSpec

    @classmethod
    def of(
        cls, reference: StereoFeatures, source: StereoFeatures, matrix: Tensor, image: ImageSpec
    ) -> _FramePair:
        return cls(
            reference.features.detach().flatten(0, 1).float(),
            reference.mono_logits.flatten(0, 1).float(),
            reference.hypotheses.flatten(0, 1).float(),
            source.features.detach().flatten(0, 1).float(),
            source.mono_logits.detach().flatten(0, 1).float(),
            matrix.detach().flatten(0, 1),
            image,
        )


def candidate_factors() -> Tensor:
    """Return (CANDIDATES,) float32: the distance of each candidate from the mean, in spreads.

    The normal distribution within CANDIDATE_REACH is divided into parts of equal probability; a
    candidate lies in the middle between the borders of its part.
    """
    within = math.erf(CANDIDATE_REACH / math.sqrt(2))
    shares = [(1 - within) / 2 + within * part / CANDIDATES for part in range(CANDIDATES + 1)]
    borders = [NormalDist().inv_cdf(share) for share in shares]
    return torch.tensor([(low + high) / 2 for low, high in itertools.pairwise(borders)])


@torch.no_grad()
def cost_volume(pair: _FramePair, candidates: Tensor, groups: int) -> Tensor:
    """Return the cost volume (n, groups, K, 4 h, 4 w): the mean product of the features of both
    frames in each group of channels, at the depths ``candidates`` (n, K, 4 h, 4 w).
    """
    costs = []
    for depth in candidates.unbind(1):  # one by one, because all warped maps together are large
        warped = warp(pair.source_features, depth, pair.matrix, pair.image)
        costs.append((pair.features * warped).unflatten(1, (groups, -1)).mean(dim=2))
    return torch.stack(costs, dim=2)


def updated(candidates: Tensor, spread: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Return the next mean and spread (n, 1, h, w) from candidates and scores (n, CANDIDATES, h,
    w) and the current spread.
    """
    probability = F.softmax(scores, dim=1, dtype=torch.float32)
    middle = CANDIDATES // 2
    factor = MIDDLE_PROBABILITY / (_PROBABILITY_EPSILON + probability[:, middle : middle + 1])
    spread = (spread * factor.clamp(*SPREAD_FACTOR_LIMITS)).clamp(*SPREAD_LIMITS)
    return (candidates * probability).sum(dim=1, keepdim=True), spread


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
