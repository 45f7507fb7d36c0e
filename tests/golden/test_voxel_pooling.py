"""Compares voxel pooling of the real nuScenes sample with stored values of the official op."""

import numpy as np
import pytest
import torch

from bevdepth_core.ops import voxel_pooling_reference, voxel_pooling_volume
from tests.core.ops.cases import relative_error
from tests.reference import reference_path


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


def test_voxel_pooling_of_the_real_sample_gives_the_map_of_the_official_op(golden):
    bev = voxel_pooling_reference.voxel_pooling(*official_arguments(golden))
    assert (
        relative_error(
            bev.flatten()[golden['expected/idx'].long()], golden['expected/val_float64']
        )
        < 1e-5
    )


def test_voxel_pooling_of_the_lifted_real_sample_gives_the_map_of_the_official_op(golden):
    depth, context, index, shape = official_arguments(golden)
    bev = voxel_pooling_volume(depth[:, :, None] * context[:, :, :, None], index, shape)
    assert (
        relative_error(
            bev.flatten()[golden['expected/idx'].long()], golden['expected/val_float64']
        )
        < 1e-5
    )
