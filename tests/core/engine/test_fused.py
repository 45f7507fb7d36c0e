"""The folded network is the network, up to rounding."""

import copy

import pytest
import torch

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.engine.fused import fused
from bevdepth_core.engine.merged_head import BOX_VALUES
from bevdepth_core.model.head import BOX_MAPS
from tests.core.engine.test_graphs import make_model

CPU = torch.device('cpu')


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float(torch.linalg.norm(ours - theirs) / torch.linalg.norm(theirs))


@pytest.mark.parametrize(('preset', 'refinement'), [('small', True), ('r50_256x704_2key', False)])
@torch.inference_mode()
def test_every_stage_agrees_with_the_network(preset, refinement):
    model = make_model(preset, refinement)
    network = fused(model, CPU, torch.float32)
    torch.manual_seed(1)
    images, cameras = torch.randn(1, 2, 3, 64, 160), torch.randn(1, 2, 27)
    plain, folded = model.encode_images(images, cameras), network.encode_images(images, cameras)
    assert (
        difference(folded.depth, plain.depth) < 1e-5
        and difference(folded.context, plain.context) < 1e-5
    )
    if refinement:
        assert difference(folded.volume, plain.volume) < 1e-5
    nx, ny, _ = model.config.grid.shape
    bev = torch.randn(1, 2 * model.config.depth_net.context_channels, ny, nx)
    maps = network.head(network.bev_encoder(bev))
    label = 0
    for task, theirs in zip(maps, model.detect([bev]), strict=True):
        classes = theirs.heatmap.shape[1]
        values = torch.cat([getattr(theirs, name)[0] for name in BOX_MAPS])
        assert difference(task[:BOX_VALUES], values) < 1e-5
        assert difference(task[BOX_VALUES : BOX_VALUES + classes], theirs.heatmap[0]) < 1e-5
        assert (task[BOX_VALUES + classes :] < -1e4).all()
        label += classes
    assert label == len(NUSCENES_CLASSES)


def test_half_precision_keeps_geometry_and_camera_numbers_in_float32():
    network = fused(make_model(), CPU, torch.float16)
    assert network.view_transform.frustum_u.dtype == torch.float32
    assert network.depth_net.net.camera_norm[0].running_mean.dtype == torch.float32
    assert {parameter.dtype for parameter in network.image_encoder.parameters()} == {torch.float16}
    assert {parameter.dtype for parameter in network.head.parameters()} == {torch.float16}


def test_the_model_itself_is_left_alone():
    model = make_model()
    before = copy.deepcopy(model.state_dict())
    fused(model, CPU, torch.float16)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
