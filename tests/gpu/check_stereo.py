"""Compares stereo models on a GPU with references: the cost volume kernel with its reference
implementation, training with and without the kernels, and the engine with the official numbers and
with the CPU."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from bevdepth_core.engine.graphs import GraphedNetwork
from bevdepth_core.inference import PRECISIONS, Detector
from bevdepth_core.model.depth_net import camera_vector
from bevdepth_core.model.view_transform import ego_from_frustum
from bevdepth_core.ops import force_reference, kernels_in_use
from bevdepth_core.ops.circle_nms import size_aware_nms
from bevdepth_core.ops.cost_volume import cost_volume
from bevdepth_core.types import BOX_MAPS
from tests.core.frames import make_frame, make_rig, two_frame_inputs
from tests.core.ops.cost_cases import CostCase
from tests.core.parity import match_boxes
from tests.core.stereo_parity import case_model, golden_inputs, official_pair_matrices
from tests.networks import random_model
from tests.reference import stereo_golden

TOLERANCE = {torch.float32: 5e-5, torch.float16: 5e-4, torch.bfloat16: 4e-3}
"""Largest accepted relative L2 error by type. For float16 and bfloat16, it is the rounding error
of the result. In float32, positions in the feature map are up to 176 cells, so each operation
rounds them by up to 8e-6 cells. Kernel and reference compute a position in about six operations,
but in a different order. The features are random, so neighboring cells have unrelated values, and
a small error of the position changes the result."""
SIZES = {
    'official': {
        'images': 6, 'channels': 256, 'height': 64, 'width': 176, 'depths': 3, 'groups': 8,
        'image_size': (256, 704),
    },
    'small': {},
    'odd': {'images': 3, 'channels': 24, 'height': 7, 'width': 13, 'depths': 5, 'groups': 3},
    'five_channels': {'channels': 20, 'groups': 4},
    'one_group': {'channels': 64, 'groups': 1},
    'many_depths': {'depths': 29},
    'large_groups': {'channels': 1024, 'groups': 2, 'height': 3, 'width': 5},
    'one_column': {'width': 1},
}  # fmt: skip
LARGEST_ERROR = {'fp32': 1e-2, 'fp16': 5e-2}
"""Largest accepted relative L2 error of depth, BEV map and head maps, by precision. The official
values are float32. Points that rounding moves to another BEV cell cause errors of up to 1e-2
(docs/PARITY.md)."""


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    found, expected = found.double().cpu(), expected.double().cpu()
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES.keys())
@pytest.mark.parametrize('dtype', TOLERANCE, ids=str)
def test_the_cost_volume_kernel_equals_the_reference(dtype, sizes):
    assert kernels_in_use()
    case = CostCase.random(**sizes).to('cuda', dtype)
    found = cost_volume(*case.arguments)
    with force_reference():
        expected = cost_volume(*case.to('cuda', torch.float32).arguments)
    assert found.dtype == dtype and found.shape == expected.shape
    error = relative_error(found, expected)
    print(f'\n{tuple(found.shape)} {dtype}: {error:.1e}')
    assert error < TOLERANCE[dtype]


def test_the_kernel_does_not_read_memory_outside_the_map():
    case = CostCase.random().to('cuda', torch.float32)
    case.depths.abs_()
    case.source[:] = torch.inf
    case.matrix[:, :2, 2] = 1e6  # every pixel is projected outside the map
    assert (cost_volume(*case.arguments) == 0).all()


def test_a_nan_depth_gives_nan_only_in_its_own_costs():
    case = CostCase.random().to('cuda', torch.float16)
    case.depths[0, 0, 0, 0] = torch.nan
    costs = cost_volume(*case.arguments)
    assert costs[0, :, 0, 0, 0].isnan().all() and costs.isnan().sum() == case.groups


def test_size_aware_nms_on_the_gpu_equals_size_aware_nms_on_the_cpu():
    generator = torch.Generator().manual_seed(0)
    for boxes in (1, 37, 500, 1500):
        centers = 60 * torch.rand(6, boxes, 2, generator=generator)
        extents = 0.2 + 3 * torch.rand(6, boxes, 2, generator=generator)
        valid = torch.rand(6, boxes, generator=generator) > 0.2
        factors = torch.tensor([0.6, 0.4, 0.4, 0.7, 0.8, 0.9])
        arguments = centers, extents, valid, factors
        expected = size_aware_nms(*arguments, 83)
        found = size_aware_nms(*(tensor.cuda() for tensor in arguments), 83)
        assert torch.equal(found.cpu(), expected)


def test_the_cost_volume_op_passes_opcheck():
    case = CostCase.random().to('cuda', torch.float16)
    arguments = (*case.arguments[:4], list(case.image_size), case.groups)
    torch.library.opcheck(torch.ops.bevdepth.cost_volume.default, arguments)


def test_training_with_the_kernels_gives_the_gradients_of_the_reference():
    model = random_model(stereo=True).cuda().train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.eval()
    frames = [make_frame(stamp, make_rig(2), seed=seed) for seed, stamp in enumerate((0.5, 0.0))]
    inputs = two_frame_inputs(*frames, model.config)
    inputs = type(inputs)(inputs.images.cuda(), inputs.matrices.to('cuda'))
    gradients = []
    for use_reference in (False, True):
        network = copy.deepcopy(model)
        with torch.backends.cudnn.flags(deterministic=True, allow_tf32=False):
            if use_reference:
                with force_reference():
                    backward(network, inputs)
            else:
                backward(network, inputs)
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    ours, theirs = gradients
    assert {name for name, gradient in ours.items() if gradient is None} == {
        name for name, gradient in theirs.items() if gradient is None
    }
    joined = [
        torch.cat([g.flatten() for g in named.values() if g is not None]) for named in gradients
    ]
    stereo = [
        torch.cat([g.flatten() for name, g in named.items() if g is not None and 'stereo' in name])
        for named in gradients
    ]
    errors = relative_error(*joined), relative_error(*stereo)
    print(f'\ngradients: all {errors[0]:.1e}, stereo networks {errors[1]:.1e}')
    assert errors[0] < 1e-3 and errors[1] < 2e-2


def backward(network, inputs) -> None:
    outputs = network(inputs)
    loss = sum(maps.heatmap.square().mean() for maps in outputs.tasks) + outputs.depth.var()
    loss.backward()


@pytest.mark.parametrize('case', ['stereo_real_2key', 'stereo_real_2key_da'])
@pytest.mark.parametrize('precision', LARGEST_ERROR)
def test_cuda_graphs_give_the_official_depth_and_head_maps(case, precision):
    arrays = stereo_golden(case)[1]
    network = GraphedNetwork(case_model(case), torch.device('cuda:0'), PRECISIONS[precision])
    inputs = golden_inputs(arrays)
    steps = run_official_inputs(network, inputs, official_pair_matrices(arrays))
    errors = {
        f'depth {frame}': stored_error(
            steps.buffers.frames.depth[frame], arrays, f's{frame}.depth_softmax'
        )
        for frame in (0, 1)
    }
    errors['bev'] = stored_error(steps._bev, arrays, 'backbone_bev')
    for number, task in enumerate(network.config.head.tasks):
        widths = {**BOX_MAPS, 'heatmap': len(task.classes)}
        maps = steps.maps[0, number, : sum(widths.values())].split(list(widths.values()))
        for name, values in zip(widths, maps, strict=True):
            error = stored_error(values, arrays, f'task{number}.{name}')
            errors[name] = max(errors.get(name, 0), error)
    boxes = network._decoder.boxes(steps.boxes_host.numpy(), network.config.decode.score_threshold)
    official = [arrays[f'out/b0/{name}'] for name in ('boxes', 'scores', 'labels')]
    pairs, unmatched = match_boxes(boxes, *official)
    figures = ', '.join(f'{name} {error:.1e}' for name, error in errors.items())
    print(f'\n{case} {precision}: {figures}; boxes {len(pairs)} of {len(official[0])}, '
          f'{unmatched} unmatched')  # fmt: skip
    assert max(errors.values()) < LARGEST_ERROR[precision]


def run_official_inputs(network, inputs, pairs):
    """Run both frames with the camera parameters of the key frame. ``pairs`` are the official
    stereo matrices between the two frames."""
    cameras, count = camera_vector(inputs.matrices.frame(0)), inputs.images.shape[2]
    network.prepare(count)
    steps = network._steps_for(count)
    with torch.inference_mode():
        for frame in (1, 0):
            steps.images[:, :3] = inputs.images[0, frame].cuda()
            steps.cameras_host.copy_(cameras[0])
            for name in steps.of_images:
                steps.run(name)
            torch.cuda.synchronize()
            steps.set_matrices(frame, ego_from_frustum(inputs.matrices.frame(frame))[0])
            if frame == 1:
                steps.buffers.set(1, steps.buffers.features(0, count))
        for target, matrix in zip(steps.motion_host, pairs, strict=True):
            target.copy_(matrix[0])
        for name in ('stereo', 'view_transform', 'bev_head', 'decode'):
            steps.run(name)
    torch.cuda.synchronize()
    return steps


def stored_error(values, arrays, stage) -> float:
    if f'{stage}/val' not in arrays:
        return 0.0  # the case does not store a stage that equals the stage of another case
    expected = arrays[f'{stage}/val']
    ours = values.float().cpu().reshape(-1).numpy()[arrays[f'{stage}/idx']]
    return float(np.linalg.norm(ours - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize(('precision', 'left_over'), [('fp32', 0.01), ('fp16', 0.1)])
@pytest.mark.parametrize('refinement', [False, True])
def test_streaming_on_the_gpu_gives_the_boxes_of_the_cpu(refinement, precision, left_over):
    model = random_model(stereo=True, refinement=refinement)
    on_cpu, on_gpu = Detector(model), Detector(model, 'cuda', precision)
    assert isinstance(on_gpu._network, GraphedNetwork)
    for step, count in enumerate((6, 6, 4, 4, 6, 6)):
        frame = make_frame(0.5 * step, make_rig(count), seed=step)
        found, wanted = on_gpu(frame), on_cpu(frame)
        assert found.past_stamp_ns == wanted.past_stamp_ns
        boxes = np.hstack((wanted.boxes.center, wanted.boxes.size))
        pairs, unmatched = match_boxes(found, boxes, wanted.scores, wanted.labels)
        print(f'\n{precision} step {step}: {len(pairs)} of {len(wanted)}, {unmatched} unmatched')
        assert len(pairs) > 50 and unmatched <= left_over * len(wanted)
