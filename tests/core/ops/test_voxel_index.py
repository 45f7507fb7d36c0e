"""Compares voxel indices with those of the official code."""

from __future__ import annotations

import numpy as np
import torch

from bevdepth_core.ops import voxel_index
from tests.core.ops.cases import DATA, surround_view_geometry

MAX_FLIPS = 16
"""Most points of two frames that may lie in another cell; between float32 and float64, up to 8
points of a frame change their cell in the official code."""


def test_indices_equal_the_official_ones_except_for_a_few_that_differ_by_one_cell():
    with np.load(DATA / 'geometry_synth.npz') as arrays:
        official = torch.from_numpy(arrays['geom_int16'][0]).int()
    index = voxel_index(*surround_view_geometry())
    differing = (index != official).any(-1)
    assert differing.sum() <= MAX_FLIPS
    assert (index - official)[differing].abs().max() <= 1
