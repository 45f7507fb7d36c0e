"""Voxel pooling against what the official code computed."""

import numpy as np
import pytest
import torch

from bevdepth_core.ops import voxel_index, voxel_pooling_reference, voxel_pooling_volume
from tests.core.ops.cases import DATA, relative_error, surround_view_geometry
from tests.reference import reference_path

MOST_FLIPS = 16
"""Points of two frames that may change voxel; the official fp32 and fp64 geometry differ by up to
8 points of one frame."""


@pytest.fixture(scope='module')
def golden():
    with np.load(reference_path('golden/voxel_pooling_real.npz')) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


def official_arguments(golden):
    return (
        golden['depth_float16'][None].float(),
        golden['context_float16'][None].float(),
        golden['geom_int16'].int(),
        (128, 128, 1),
    )


def test_real_sample_is_pooled_as_the_official_op_does(golden):
    bev = voxel_pooling_reference.voxel_pooling(*official_arguments(golden))
    assert (
        relative_error(
            bev.flatten()[golden['expected/idx'].long()], golden['expected/val_float64']
        )
        < 1e-5
    )


def test_lifted_volume_of_the_real_sample_is_pooled_as_the_official_op_does(golden):
    depth, context, index, shape = official_arguments(golden)
    bev = voxel_pooling_volume(depth[:, :, None] * context[:, :, :, None], index, shape)
    assert (
        relative_error(
            bev.flatten()[golden['expected/idx'].long()], golden['expected/val_float64']
        )
        < 1e-5
    )


def test_indices_of_both_synthetic_frames_equal_the_official_ones_but_for_points_on_a_border():
    with np.load(DATA / 'geometry_synth.npz') as arrays:
        official = torch.from_numpy(arrays['geom_int16'][0]).int()
    index = voxel_index(*surround_view_geometry())
    differing = (index != official).any(-1)
    assert differing.sum() <= MOST_FLIPS
    assert (index - official)[differing].abs().max() <= 1
