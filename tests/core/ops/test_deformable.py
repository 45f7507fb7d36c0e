"""Compares deformable convolution with torchvision, and max pooling with PyTorch."""

import pytest
import torch
from torchvision.ops import deform_conv2d

from bevdepth_core.ops.deformable import deformable_conv
from bevdepth_core.ops.max_pool import max_pool


@pytest.mark.parametrize('groups', [1, 4])
def test_deformable_convolution_equals_torchvision_also_for_sampling_points_outside_the_map(
    groups,
):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 16, 6, 9, generator=generator)
    offsets = 4 * torch.randn(2, 18, 6, 9, generator=generator)
    weight = torch.randn(12, 16 // groups, 3, 3, generator=generator)
    expected = deform_conv2d(features, offsets, weight, padding=1)
    torch.testing.assert_close(
        deformable_conv(features, offsets, weight), expected, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize('size', [(8, 6), (7, 5), (1, 1)])
def test_max_pooling_equals_pytorch(size):
    features = torch.randn(2, 3, *size).contiguous(memory_format=torch.channels_last)
    assert torch.equal(max_pool(features), torch.nn.functional.max_pool2d(features, 3, 2, 1))
