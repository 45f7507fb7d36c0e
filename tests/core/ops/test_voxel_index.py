"""Compares voxel indices with the indices of the official code."""

from __future__ import annotations

import numpy as np
import torch

from bevdepth_core.ops import voxel_index
from tests.core.ops.cases import DATA, surround_view_geometry

MAX_FLIPS = 16
"""Largest number of points of two frames whose cell may differ from the official cell. A float32
run and a float64 run of the official code differ in the cells of up to 8 points per frame."""


def test_at_most_16_points_differ_from_the_official_indices_and_they_differ_by_one_cell():
    with np.load(DATA / 'geometry_synth.npz') as arrays:
        official = torch.from_numpy(arrays['geom_int16'][0]).int()
    index = voxel_index(*surround_view_geometry())
    differing = (index != official).any(-1)
    assert differing.sum() <= MAX_FLIPS
    assert (index - official)[differing].abs().max() <= 1
