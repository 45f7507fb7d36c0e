"""Compares voxel indices with those of the official code."""

from __future__ import annotations

import numpy as np
import torch

from bevdepth_core.ops import voxel_index
from tests.core.ops.cases import DATA, surround_view_geometry

MAX_FLIPS = 16
"""Points of two frames that may change voxel; the official fp32 and fp64 geometry differ by up to
8 points of one frame."""


def test_indices_of_both_synthetic_frames_equal_the_official_ones_but_for_points_on_a_border():
    with np.load(DATA / 'geometry_synth.npz') as arrays:
        official = torch.from_numpy(arrays['geom_int16'][0]).int()
    index = voxel_index(*surround_view_geometry())
    differing = (index != official).any(-1)
    assert differing.sum() <= MAX_FLIPS
    assert (index - official)[differing].abs().max() <= 1
