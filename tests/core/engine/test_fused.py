"""A network with folded batch norms gives the results of the original network, up to rounding."""

import copy

import pytest
import torch
from torch import nn

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.decode import NO_CLASS
from bevdepth_core.engine.fused import folded_model, fused
from bevdepth_core.engine.fused_stereo import FusedUpsampling
from bevdepth_core.types import BOX_VALUES
from tests.networks import random_model

CPU = torch.device('cpu')


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))


@pytest.mark.parametrize(('preset', 'refinement'), [('small', True), ('r50_256x704_2key', False)])
@torch.inference_mode()
def test_every_stage_of_the_folded_model_agrees_with_the_original_model(preset, refinement):
    model = random_model(preset, refinement)
    network = folded_model(model, torch.float32)
    torch.manual_seed(1)
    images, cameras = torch.randn(1, 2, 3, 64, 160), torch.randn(1, 2, 27)
    plain, folded = model.encode_images(images, cameras), network.encode_images(images, cameras)
    assert difference(folded.depth, plain.depth) < 1e-5
    assert difference(folded.context, plain.context) < 1e-5
    if refinement:
        assert difference(folded.volume, plain.volume) < 1e-5
    nx, ny, _ = model.config.grid.shape
    bev = torch.randn(1, 2 * model.config.depth_net.context_channels, ny, nx)
    for ours, theirs in zip(network.head_maps([bev]), model.head_maps([bev]), strict=True):
        assert difference(ours.box_values(), theirs.box_values()) < 1e-5
        assert difference(ours.heatmap, theirs.heatmap) < 1e-5


@torch.inference_mode()
def test_the_merged_head_agrees_with_the_separate_heads_of_the_tasks():
    model = random_model()
    network = fused(model, CPU, torch.float32)
    nx, ny, _ = model.config.grid.shape
    bev = torch.randn(1, 2 * model.config.depth_net.context_channels, ny, nx)
    maps, tasks = network.head(network.bev_encoder(bev))[0], model.head_maps([bev])
    labels = 0
    for ours, theirs in zip(maps, tasks, strict=True):
        classes = theirs.heatmap.shape[1]
        assert difference(ours[:BOX_VALUES], theirs.box_values()[0]) < 1e-5
        assert difference(ours[BOX_VALUES : BOX_VALUES + classes], theirs.heatmap[0]) < 1e-5
        assert (ours[BOX_VALUES + classes :] == NO_CLASS).all()
        labels += classes
    assert labels == len(NUSCENES_CLASSES)


@torch.inference_mode()
def test_the_depth_net_methods_gates_and_gated_together_equal_its_forward_pass():
    net = random_model().depth_net
    features, cameras = torch.randn(2, 4 * 32, 8, 20), torch.randn(2, 27)
    depth, context = net(features, cameras)
    halves = net.gated(features, net.gates(cameras))
    assert torch.equal(halves[0], depth) and torch.equal(halves[1], context)
    assert not torch.equal(net(features, cameras + 1)[1], context)
    assert torch.allclose(depth.sum(dim=1), torch.ones(2, 8, 20))


def test_in_half_precision_the_frustum_and_the_batch_norm_of_the_camera_vector_stay_float32():
    network = fused(random_model(), CPU, torch.float16)
    assert network.view_transform.frustum_u.dtype == torch.float32
    assert network.depth_net.camera_norm[0].running_mean.dtype == torch.float32
    assert {parameter.dtype for parameter in network.image_encoder.parameters()} == {torch.float16}
    assert {parameter.dtype for parameter in network.head.parameters()} == {torch.float16}


def test_folding_does_not_change_the_model():
    model = random_model()
    before = copy.deepcopy(model.state_dict())
    fused(model, CPU, torch.float16)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_fused_upsampling_keeps_dilation_and_output_padding() -> None:
    conv = nn.ConvTranspose2d(
        8, 6, 3, stride=2, padding=1, output_padding=1, dilation=2, bias=False
    )
    norm = nn.BatchNorm2d(6).eval()
    features = torch.randn(2, 8, 5, 7)
    with torch.inference_mode():
        expected = norm(conv(features)).relu()
        result = FusedUpsampling(conv, norm)(features)
    torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_with_groups_is_rejected() -> None:
    with pytest.raises(ValueError, match='groups of a transposed convolution'):
        FusedUpsampling(nn.ConvTranspose2d(6, 6, 3, groups=6, bias=False), nn.BatchNorm2d(6))
