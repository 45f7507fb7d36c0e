"""Layers, output shapes and initial weights have the values of the official code."""

import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock

from bevdepth_core.model import BEVDepth
from bevdepth_core.model.depth_net import AtrousPyramid, DeformableConv
from bevdepth_core.model.layers import MultiScaleNeck, conv_norm_relu, residual_stage
from tests.networks import TINY


@pytest.fixture(scope='module')
def model() -> BEVDepth:
    return BEVDepth(TINY)


def test_residual_blocks_of_the_bev_encoder_start_as_identities(model):
    blocks = [part for part in model.bev_encoder.modules() if isinstance(part, BasicBlock)]
    assert len(blocks) == 6
    assert all(not block.bn2.weight.any() for block in blocks)
    assert all(block.bn1.weight.eq(1).all() for block in blocks)
    images = [part for part in model.image_encoder.modules() if isinstance(part, BasicBlock)]
    assert all(block.bn2.weight.eq(1).all() for block in images)


def test_the_bev_encoder_halves_the_map_three_times(model):
    stages = model.bev_encoder.trunk(torch.zeros(1, 8, 16, 16))
    assert [tuple(stage.shape[1:]) for stage in stages] == [(8, 8, 8), (16, 4, 4), (32, 2, 2)]
    assert model.bev_encoder(torch.zeros(1, 8, 16, 16)).shape == (1, 16, 16, 16)


def test_the_pyramid_has_the_official_dropout_dilations_and_kernels():
    pyramid = AtrousPyramid(8)
    assert pyramid.dropout.p == 0.5
    dilations = [branch[0].dilation for branch in pyramid.branches]
    assert dilations == [(1, 1), (6, 6), (12, 12), (18, 18)]
    assert [branch[0].kernel_size for branch in pyramid.branches] == [(1, 1)] + [(3, 3)] * 3


def test_a_deformable_convolution_starts_without_offsets():
    conv = DeformableConv(8)
    assert not conv.offset.weight.any() and not conv.offset.bias.any()
    features = torch.randn(1, 8, 5, 6)
    plain = nn.functional.conv2d(features, conv.weight, padding=1, groups=4)
    assert torch.allclose(conv(features), plain, atol=1e-5)


def test_a_nan_offset_is_treated_as_zero():
    conv = DeformableConv(8)
    features = torch.randn(1, 8, 5, 6)
    expected = conv(features)
    conv.offset.bias.data.fill_(float('nan'))
    assert torch.equal(conv(features), expected)


def test_batch_norms_have_official_settings_in_both_necks_and_pytorch_defaults_elsewhere(model):
    necks = [part for part in model.modules() if isinstance(part, MultiScaleNeck)]
    assert len(necks) == 2
    branches = {branch[1] for neck in necks for branch in neck.branches}
    assert {(norm.eps, norm.momentum) for norm in branches} == {(1e-3, 0.01)}
    others = {part for part in model.modules() if isinstance(part, nn.BatchNorm2d)} - branches
    assert {(norm.eps, norm.momentum) for norm in others} == {(1e-5, 0.1)}


def test_a_neck_resizes_the_maps_of_all_scales_to_one_size():
    neck = MultiScaleNeck((3, 4, 5), 2, (0.5, 1, 2))
    maps = [torch.zeros(1, 3, 8, 12), torch.zeros(1, 4, 4, 6), torch.zeros(1, 5, 2, 3)]
    assert neck(maps).shape == (1, 6, 4, 6)
    kinds = [type(branch[0]) for branch in neck.branches]
    assert kinds == [nn.Conv2d, nn.ConvTranspose2d, nn.ConvTranspose2d]


def test_only_the_first_block_of_a_stage_changes_channels_and_resolution():
    stage = residual_stage(4, 8, blocks=3, stride=2)
    assert len(stage) == 3
    assert stage[0].downsample is not None
    assert all(block.downsample is None for block in stage[1:])
    assert stage(torch.zeros(1, 4, 8, 8)).shape == (1, 8, 4, 4)
    assert residual_stage(8, 8, blocks=1, stride=1)[0].downsample is None
    assert residual_stage(8, 8, blocks=1, stride=2)[0].downsample is not None


def test_conv_norm_relu_keeps_the_size_and_has_a_bias_on_request():
    for kernel, dilation in ((1, 1), (3, 1), (3, 6)):
        layer = conv_norm_relu(2, 3, kernel, dilation=dilation)
        assert layer(torch.randn(1, 2, 14, 15)).shape == (1, 3, 14, 15)
        assert (layer(torch.randn(1, 2, 14, 15)) >= 0).all()
        assert layer[0].bias is None
    assert conv_norm_relu(2, 3, 3, bias=True)[0].bias is not None


def test_image_stages_have_the_strides_and_channels_of_a_resnet(model):
    stages = model.image_encoder.backbone(torch.zeros(1, 3, 64, 96))
    shapes = [tuple(stage.shape[1:]) for stage in stages]
    assert shapes == [(8, 16, 24), (16, 8, 12), (32, 4, 6), (64, 2, 3)]
