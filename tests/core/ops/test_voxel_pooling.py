"""Voxel pooling on the CPU: indices, sums, gradients, registered ops and argument checks."""

import logging
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bevdepth_core.ops import (
    force_reference,
    voxel_index,
    voxel_pooling,
    voxel_pooling_volume,
)
from bevdepth_core.ops import voxel_pooling_reference as reference
from bevdepth_core.ops.backend import _log_once, _reference_requested
from tests.core.ops.cases import (
    Case,
    random_case,
    relative_error,
    slow_voxel_index,
    slow_voxel_pooling,
    surround_view_case,
)

SIZES = (
    {},
    {'batch': 3, 'cameras': 1, 'channels': 1},
    {'batch': 1, 'cameras': 3, 'channels': 33, 'height': 1, 'width': 9},
    {'bins': 1, 'shape': (1, 1, 1)},
    {'cameras': 6, 'bins': 9, 'channels': 80, 'height': 2, 'width': 5, 'shape': (17, 4, 1)},
)
AXES = torch.tensor([-0.9, -1.0, -1.1, 0.0, 2.99, 3.0, math.nan, math.inf, -math.inf, 1e30])


def lift(case: Case) -> torch.Tensor:
    return case.depth[:, :, None] * case.context[:, :, :, None]


def gradients(case: Case, pool=voxel_pooling) -> tuple[torch.Tensor, torch.Tensor]:
    depth, context = case.depth.clone().requires_grad_(), case.context.clone().requires_grad_()
    bev = pool(depth, context, *case.geometry, case.shape)
    grad_bev = torch.arange(bev.numel()).remainder(7) - 3  # exact in every data type
    bev.backward(grad_bev.view(bev.shape).to(bev.dtype))
    return depth.grad, context.grad


def points_along_x(x: torch.Tensor, lower=(0.0, 0.0, 0.0)) -> tuple:
    """Return the geometry of one camera whose frustum points have the x coordinates ``x`` and
    y = z = 0.5.
    """
    matrix = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0.5], [0, 0, 0, 0.5]])[None, None]
    return matrix, x, torch.ones(1), torch.ones(1), lower, (1.0, 1.0, 1.0)


@pytest.mark.parametrize('sizes', SIZES)
def test_every_index_equals_the_index_computed_point_by_point_in_float32(sizes):
    geometry = random_case(0, **sizes).geometry
    index = voxel_index(*geometry)
    assert index.dtype == torch.int32
    np.testing.assert_array_equal(index.numpy(), slow_voxel_index(*geometry))


@pytest.mark.parametrize('sizes', SIZES)
def test_the_map_equals_a_sum_over_all_points_in_float64(sizes):
    case = random_case(1, **sizes)
    expected = slow_voxel_pooling(
        case.depth, case.context, slow_voxel_index(*case.geometry), case.shape
    )
    assert np.abs(expected).sum() > 0
    assert relative_error(voxel_pooling(*case.arguments), expected) < 1e-6


@pytest.mark.parametrize('sizes', SIZES)
def test_the_op_gives_the_same_bits_as_the_reference_and_as_pooling_of_the_lifted_volume(sizes):
    case = random_case(2, **sizes)
    index = voxel_index(*case.geometry)
    bev = voxel_pooling(*case.arguments)
    assert torch.equal(reference.voxel_pooling(case.depth, case.context, index, case.shape), bev)
    assert torch.equal(voxel_pooling_volume(lift(case), index, case.shape), bev)


def test_points_less_than_one_cell_below_the_lower_limit_of_the_grid_are_in_cell_zero():
    index = voxel_index(*points_along_x(AXES))
    assert index[0, 0, 0, 0, :, 0].tolist() == [0, -1, -1, 0, 2, 3, -1, -1, -1, -1]


@pytest.mark.parametrize('axis', [0, 1, 2])
def test_truncation_and_borders_are_the_same_on_every_axis(axis):
    matrix = torch.full((3, 4), 0.0)
    matrix[:, 3] = 0.5
    matrix[axis] = torch.tensor([1.0, 0, 0, 0])
    cells = [1.0, 1.0, 1.0]
    cells[axis] = 3.0 if axis == 2 else 1.0
    shape = [1, 1, 1]
    shape[axis] = 1 if axis == 2 else 3
    x = AXES[None, :]
    ones = torch.ones(1, 1, 1, 1, len(AXES))
    frustum = (AXES, torch.ones(1), torch.ones(1))
    bev = voxel_pooling(ones, ones, matrix[None, None], *frustum, (0.0, 0.0, 0.0), cells, shape)
    kept = ((x > -cells[axis]) & (x < 3)).sum()
    assert bev.sum() == kept


def test_points_outside_the_grid_and_nan_or_infinite_points_add_nothing_to_the_map():
    outside = AXES[[2, 5, 6, 7, 8, 9]]
    ones = torch.ones(1, 1, 1, 1, len(outside))
    assert not voxel_pooling(ones, ones, *points_along_x(outside), (3, 1, 1)).any()


def test_nan_features_of_points_outside_the_grid_do_not_affect_the_map():
    geometry = points_along_x(torch.tensor([0.5, 7.0]))
    features = torch.tensor([2.0, math.nan]).view(1, 1, 1, 1, 2)
    assert voxel_pooling(features, features, *geometry, (3, 1, 1)).flatten().tolist() == [
        4.0,
        0.0,
        0.0,
    ]


@pytest.mark.parametrize('empty', ['batch', 'cameras', 'bins', 'channels', 'height', 'width'])
def test_an_empty_input_gives_a_zero_map_and_gradients_with_the_shapes_of_the_inputs(empty):
    case = random_case(3, **{empty: 0})
    depth, context = case.depth.requires_grad_(), case.context.requires_grad_()
    bev = voxel_pooling(*case.arguments)
    bev.sum().backward()
    assert bev.shape == (depth.shape[0], context.shape[2], 5, 6)
    assert not bev.any()
    assert (depth.grad.shape, context.grad.shape) == (depth.shape, context.shape)
    index = voxel_index(*case.geometry)
    assert torch.equal(voxel_pooling_volume(lift(case), index, case.shape), bev)


def test_pooling_a_batch_equals_pooling_its_samples_to_the_bit():
    case = random_case(4, batch=3)
    singles = [voxel_pooling(*case.sample(index).arguments) for index in range(3)]
    assert torch.equal(voxel_pooling(*case.arguments), torch.cat(singles))


def test_strided_inputs_give_the_same_bits_as_contiguous_inputs():
    case = random_case(5)
    depth, context = (tensor.mT.contiguous().mT for tensor in (case.depth, case.context))
    strided = Case(depth, context, case.geometry, case.shape)
    assert not strided.depth.is_contiguous()
    assert torch.equal(voxel_pooling(*strided.arguments), voxel_pooling(*case.arguments))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_summed_in_float32_and_rounded_once(dtype):
    half = random_case(6, dtype=dtype)
    full = half.to('cpu', torch.float32)
    assert torch.equal(voxel_pooling(*half.arguments), voxel_pooling(*full.arguments).to(dtype))
    index = voxel_index(*half.geometry)
    volume = lift(half)
    assert torch.equal(
        voxel_pooling_volume(volume, index, half.shape),
        voxel_pooling_volume(volume.float(), index, half.shape).to(dtype),
    )


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_gradients_of_half_precision_inputs_are_summed_in_float32_and_rounded_once(dtype):
    half, full = (
        gradients(random_case(7, dtype=dtype)),
        gradients(random_case(7, dtype=dtype).to('cpu', torch.float32)),
    )
    for value, expected in zip(half, full, strict=True):
        assert torch.equal(value, expected.to(dtype))


def test_gradients_of_features_and_of_a_volume_agree_with_finite_differences():
    case = random_case(8, batch=1, dtype=torch.float64)
    depth, context = case.depth.requires_grad_(), case.context.requires_grad_()
    index = voxel_index(*case.geometry)
    volume = lift(case).detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d, c: voxel_pooling(d, c, *case.geometry, case.shape), (depth, context)
    )
    assert torch.autograd.gradcheck(
        lambda v: voxel_pooling_volume(v, index, case.shape), (volume,)
    )


def test_gradients_equal_the_gradients_through_a_lifted_volume():
    case = random_case(9)

    def pool_lifted(depth, context, *geometry_and_shape):
        *geometry, shape = geometry_and_shape
        return voxel_pooling_volume(
            depth[:, :, None] * context[:, :, :, None], voxel_index(*geometry), shape
        )

    for value, expected in zip(gradients(case), gradients(case, pool_lifted), strict=True):
        assert relative_error(value, expected) < 1e-6


def test_full_size_results_have_the_same_bits_in_every_run_and_with_any_number_of_threads():
    case = surround_view_case().sample(0)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            results.append((voxel_pooling(*case.arguments), *gradients(case)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.elements = max(
            [
                self.elements,
                *(leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)),
            ]
        )
        return result


def test_no_temporary_tensor_is_larger_than_the_largest_input_or_output():
    """The largest allowed tensor is the voxel index, with 3 numbers per point. A lifted volume
    would have 80 numbers per point.
    """
    case = random_case(10, batch=1, bins=112, channels=80, height=4, width=8, shape=(8, 8, 1))
    with LargestTensor() as forward:
        index = reference.voxel_index(*case.geometry)
        bev = reference.voxel_pooling(case.depth, case.context, index, case.shape)
    with LargestTensor() as backward:
        reference.voxel_pooling_backward(bev, case.depth, case.context, index, case.shape)
    assert max(forward.elements, backward.elements) <= index.numel()


OPS = ('voxel_index', 'voxel_pooling', 'voxel_pooling_volume')


def op_arguments(name: str, case: Case) -> tuple:
    index = voxel_index(*case.geometry)
    return {
        'voxel_index': case.geometry,
        'voxel_pooling': case.arguments,
        'voxel_pooling_volume': (lift(case).detach().requires_grad_(), index, case.shape),
    }[name]


@pytest.mark.parametrize('name', OPS)
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16])
def test_ops_pass_opcheck(name, dtype):
    case = random_case(11, dtype=dtype)
    case.depth.requires_grad_()
    case.context.requires_grad_()
    torch.library.opcheck(getattr(torch.ops.bevdepth, name).default, op_arguments(name, case))


def test_torch_compile_keeps_the_op_in_one_graph_and_gives_the_same_bits():
    case = random_case(12)
    compiled = torch.compile(voxel_pooling, backend='aot_eager', fullgraph=True)
    assert torch.equal(compiled(*case.arguments), voxel_pooling(*case.arguments))
    for value, expected in zip(gradients(case, compiled), gradients(case), strict=True):
        assert torch.equal(value, expected)


def test_the_variable_bevdepth_voxel_pooling_accepts_only_the_value_reference(monkeypatch):
    monkeypatch.delenv('BEVDEPTH_VOXEL_POOLING', raising=False)
    assert not _reference_requested()
    monkeypatch.setenv('BEVDEPTH_VOXEL_POOLING', 'reference')
    assert _reference_requested()
    monkeypatch.setenv('BEVDEPTH_VOXEL_POOLING', 'fast')
    with pytest.raises(ValueError, match='BEVDEPTH_VOXEL_POOLING'):
        _reference_requested()


def test_the_selected_implementation_is_logged_once(caplog):
    _log_once.cache_clear()
    case = random_case(13)
    with caplog.at_level(logging.INFO, logger='bevdepth_core.ops.backend'):
        voxel_pooling(*case.arguments)
        voxel_pooling(*case.arguments)
        with force_reference():
            voxel_pooling(*case.arguments)
    assert [record.getMessage() for record in caplog.records] == [
        'voxel pooling on cpu: torch reference',
        'voxel pooling on cpu: torch reference, as requested',
    ]


def arguments_with(name: str, value) -> dict:
    case = random_case(14)
    names = (
        'depth',
        'context',
        'ego_from_frustum',
        'frustum_u',
        'frustum_v',
        'frustum_d',
        'lower',
        'cell',
        'shape',
    )
    arguments = dict(zip(names, case.arguments, strict=True))
    return arguments | {name: value(arguments[name])}


@pytest.mark.parametrize(
    ('name', 'value', 'error'),
    [
        ('depth', lambda tensor: tensor[0], ValueError),
        ('depth', lambda tensor: tensor[:, :1], ValueError),
        ('depth', lambda tensor: tensor.half(), TypeError),
        ('depth', lambda tensor: tensor.to('meta'), ValueError),
        ('context', lambda tensor: tensor[..., :1], ValueError),
        ('context', lambda tensor: tensor.int(), TypeError),
        ('ego_from_frustum', lambda tensor: tensor[:, :, :2], ValueError),
        ('ego_from_frustum', lambda tensor: tensor.half(), TypeError),
        ('frustum_u', lambda tensor: tensor[None], ValueError),
        ('frustum_v', lambda tensor: tensor.double(), TypeError),
        ('frustum_d', lambda tensor: tensor[1:], ValueError),
        ('lower', lambda numbers: numbers[:2], ValueError),
        ('cell', lambda numbers: (0.0, 1.0, 1.0), ValueError),
        ('shape', lambda numbers: (4, 4, 2), ValueError),
        ('shape', lambda numbers: (4, 4), ValueError),
    ],
)
def test_an_invalid_argument_is_reported_by_name(name, value, error):
    with pytest.raises(error, match=name):
        voxel_pooling(**arguments_with(name, value))


@pytest.mark.parametrize(
    ('index', 'error'),
    [
        (lambda i: i.long(), TypeError),
        (lambda i: i[..., :2], ValueError),
        (lambda i: i[:1], ValueError),
    ],
)
def test_an_invalid_voxel_index_is_reported_by_name(index, error):
    case = random_case(15)
    bad = index(voxel_index(*case.geometry))
    with pytest.raises(error, match='voxel_index'):
        voxel_pooling_volume(lift(case), bad, case.shape)


def test_an_invalid_volume_is_reported_by_name():
    case = random_case(16)
    with pytest.raises(ValueError, match='volume'):
        voxel_pooling_volume(case.context, voxel_index(*case.geometry), case.shape)
    with pytest.raises(TypeError, match='volume'):
        voxel_pooling_volume(lift(case).int(), voxel_index(*case.geometry), case.shape)
