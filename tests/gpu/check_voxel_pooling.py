"""Compares the CUDA kernels of voxel pooling with the float64 reference."""

import numpy as np
import pytest
import torch

from bevdepth_core.ops import (
    force_reference,
    voxel_index,
    voxel_pooling,
    voxel_pooling_volume,
)
from bevdepth_core.ops import voxel_pooling_reference as reference
from bevdepth_core.ops.compiled import kernels
from tests.core.ops.cases import (
    DATA,
    Case,
    random_case,
    relative_error,
    surround_view_case,
    surround_view_geometry,
)

TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 5e-4, torch.bfloat16: 4e-3}
"""Relative L2 tolerance by type. For float16 and bfloat16, it is the rounding error of the
result."""

SIZES = {
    'small': {},
    'one_channel': {'batch': 3, 'cameras': 1, 'channels': 1},
    'two_channel_slices': {'batch': 1, 'channels': 131, 'width': 9},
    'tall': {'batch': 1, 'height': 70, 'width': 2, 'bins': 3},
    'many_bins': {'cameras': 3, 'bins': 67, 'height': 5, 'width': 3, 'channels': 33},
    'one_cell': {'bins': 1, 'shape': (1, 1, 1)},
    'wide_grid': {'cameras': 6, 'bins': 9, 'channels': 80, 'shape': (257, 3, 1)},
}
every_size = pytest.mark.parametrize('sizes', SIZES.values(), ids=SIZES.keys())
every_dtype = pytest.mark.parametrize('dtype', TOLERANCE, ids=str)


def test_kernels_are_built():
    assert kernels is not None, (
        'build the kernels: BEVDEPTH_CUDA=1 python3 setup.py build_ext --inplace'
    )


@pytest.fixture(params=['clean', 'poisoned'])
def memory(request, monkeypatch):
    """With 'poisoned', fill every output tensor before a kernel writes it: floating-point tensors
    with NaN, integer tensors with 7."""
    if request.param == 'poisoned':
        for owner, name in ((torch.Tensor, 'new_empty'), (torch, 'empty_like')):
            monkeypatch.setattr(owner, name, poisoned(getattr(owner, name)))


def poisoned(allocate):
    def allocate_poisoned(*args, **kwargs):
        tensor = allocate(*args, **kwargs)
        return tensor.fill_(float('nan') if tensor.is_floating_point() else 7)

    return allocate_poisoned


def expected_results(case: Case) -> tuple[torch.Tensor, ...]:
    """Return the BEV map and the gradients of depth, context and volume, computed in float64 on
    the CPU."""
    case = case.to('cpu', torch.float64)
    index = reference.voxel_index(*case.geometry)
    bev = reference.voxel_pooling(case.depth, case.context, index, case.shape)
    gradient = grad_bev(bev)
    grad_depth, grad_context = reference.voxel_pooling_backward(
        gradient, case.depth, case.context, index, case.shape
    )
    return (
        bev,
        grad_depth,
        grad_context,
        reference.voxel_pooling_volume_backward(gradient, index, case.shape),
    )


def grad_bev(bev: torch.Tensor) -> torch.Tensor:
    """Return a gradient with respect to the BEV map. Its values are integers from -3 to 3, which
    every data type represents exactly."""
    return (
        (torch.arange(bev.numel(), device=bev.device).remainder(7) - 3)
        .view(bev.shape)
        .to(bev.dtype)
    )


def results(case: Case, pool) -> tuple[torch.Tensor, ...]:
    """Return the BEV map and the gradients of depth and context."""
    depth, context = case.depth.clone().requires_grad_(), case.context.clone().requires_grad_()
    bev = pool(depth, context)
    bev.backward(grad_bev(bev))
    return bev.detach(), depth.grad, context.grad


def main_form(case: Case):
    """Return voxel pooling with the geometry of ``case``, as a function of depth and context."""
    return lambda depth, context: voxel_pooling(depth, context, *case.geometry, case.shape)


def assert_close(values, expected, dtype):
    for value, target in zip(values, expected, strict=True):
        assert value.dtype == dtype
        assert value.shape == target.shape
        assert relative_error(value, target) < TOLERANCE[dtype]


@every_size
@every_dtype
def test_map_and_gradients_equal_the_float64_reference(sizes, dtype, memory):
    case = random_case(1, **sizes).to('cuda', dtype)
    assert_close(results(case, main_form(case)), expected_results(case)[:3], dtype)


@every_size
@every_dtype
def test_map_and_gradient_of_a_volume_equal_the_float64_reference(sizes, dtype, memory):
    case = random_case(2, **sizes).to('cuda', dtype)
    ones = Case(torch.ones_like(case.depth), case.context, case.geometry, case.shape)
    volume = (ones.depth[:, :, None] * ones.context[:, :, :, None]).requires_grad_()
    bev = voxel_pooling_volume(volume, voxel_index(*case.geometry), case.shape)
    bev.backward(grad_bev(bev))
    expected_bev, _, _, expected_grad = expected_results(ones)
    assert_close((bev.detach(), volume.grad), (expected_bev, expected_grad), dtype)


@every_dtype
def test_map_and_gradients_of_a_full_size_case_equal_the_float64_reference(dtype):
    case = surround_view_case().to('cuda', dtype)
    assert_close(results(case, main_form(case)), expected_results(case)[:3], dtype)


@every_size
def test_indices_equal_the_reference_to_the_bit_on_random_geometry(sizes):
    case = random_case(3, **sizes)
    assert torch.equal(
        voxel_index(*case.to('cuda', torch.float32).geometry).cpu(),
        reference.voxel_index(*case.geometry),
    )


def test_on_real_cameras_gpu_indices_equal_cpu_indices_to_the_bit_with_and_without_kernel():
    geometry = surround_view_geometry()
    on_gpu = tuple(item.cuda() if isinstance(item, torch.Tensor) else item for item in geometry)
    expected = voxel_index(*geometry)
    assert torch.equal(voxel_index(*on_gpu).cpu(), expected)
    with force_reference():
        assert torch.equal(voxel_index(*on_gpu).cpu(), expected)


def test_at_most_16_points_differ_from_the_official_indices():
    official = torch.from_numpy(np.load(DATA / 'geometry_synth.npz')['geom_int16'][0]).int()
    geometry = tuple(
        item.cuda() if isinstance(item, torch.Tensor) else item
        for item in surround_view_geometry()
    )
    assert (voxel_index(*geometry).cpu() != official).any(-1).sum() <= 16


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf'), 1e30, -1e30])
def test_points_at_nan_infinite_or_huge_coordinates_add_nothing_and_have_zero_gradients(
    value, memory
):
    case = random_case(4).to('cuda', torch.float32)
    case.geometry[0][..., 3] = value
    assert not any(result.any() for result in results(case, main_form(case)))
    assert torch.equal(
        voxel_index(*case.geometry).cpu(),
        reference.voxel_index(*case.to('cpu', torch.float32).geometry),
    )


def test_points_less_than_one_cell_below_the_grid_are_added_to_cell_zero():
    u = torch.tensor([-0.9, -1.0, 0.0, 2.99, 3.0], device='cuda')
    matrix = torch.tensor([[1.0, 0, 0, 0], [0, 0, 0, 0.5], [0, 0, 0, 0.5]], device='cuda')[
        None, None
    ]
    one, ones = torch.ones(1, device='cuda'), torch.ones(1, 1, 1, 1, 5, device='cuda')
    bev = voxel_pooling(
        ones, ones, matrix, u, one, one, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), (3, 1, 1)
    )
    assert bev.flatten().tolist() == [2.0, 0.0, 1.0]


@pytest.mark.parametrize('empty', ['batch', 'cameras', 'bins', 'channels', 'height', 'width'])
def test_empty_input_gives_zeros_and_empty_gradients(empty, memory):
    case = random_case(5, **{empty: 0}).to('cuda', torch.float32)
    for value, expected in zip(
        results(case, main_form(case)), expected_results(case)[:3], strict=True
    ):
        assert value.shape == expected.shape
        assert not value.any()
    volume = case.depth[:, :, None] * case.context[:, :, :, None]
    assert not voxel_pooling_volume(volume, voxel_index(*case.geometry), case.shape).any()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize('channels', [7, 8])
def test_strided_and_contiguous_inputs_give_equal_results(dtype, channels):
    case = random_case(6, channels=channels).to('cuda', dtype)
    strided = Case(
        case.depth.mT.contiguous().mT, case.context.mT.contiguous().mT, case.geometry, case.shape
    )
    assert_close(results(strided, main_form(strided)), expected_results(case)[:3], dtype)


def test_gradients_agree_with_finite_differences():
    case = random_case(7, batch=1).to('cuda', torch.float64)
    inputs = case.depth.requires_grad_(), case.context.requires_grad_()
    volume = torch.randn(1, 2, 7, 5, 3, 4, dtype=torch.float64, device='cuda', requires_grad=True)
    index = voxel_index(*case.geometry)
    assert torch.autograd.gradcheck(main_form(case), inputs, nondet_tol=1e-12)
    assert torch.autograd.gradcheck(
        lambda v: voxel_pooling_volume(v, index, case.shape), (volume,), nondet_tol=1e-12
    )


@pytest.mark.parametrize('name', ['voxel_index', 'voxel_pooling', 'voxel_pooling_volume'])
def test_ops_pass_opcheck(name):
    case = random_case(8).to('cuda', torch.float32)
    index = voxel_index(*case.geometry)
    features = case.depth.requires_grad_(), case.context.requires_grad_()
    volume = torch.randn(2, 2, 7, 5, 3, 4, device='cuda', requires_grad=True)
    arguments = {
        'voxel_index': case.geometry,
        'voxel_pooling': (*features, *case.geometry, case.shape),
        'voxel_pooling_volume': (volume, index, case.shape),
    }
    torch.library.opcheck(getattr(torch.ops.bevdepth, name).default, arguments[name])


def test_backward_gives_the_same_bits_on_every_run():
    case = surround_view_case().to('cuda', torch.float16)
    first, second = (results(case, main_form(case))[1:] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.fixture
def deterministic():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@every_dtype
def test_deterministic_algorithms_give_the_same_bits_on_every_run(dtype, deterministic):
    case = surround_view_case().to('cuda', dtype)
    first, *others = (results(case, main_form(case)) for _ in range(4))
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert_close(first, expected_results(case)[:3], dtype)


@every_size
@every_dtype
def test_deterministic_sums_equal_the_float64_reference(sizes, dtype, deterministic, memory):
    case = random_case(10, **sizes).to('cuda', dtype)
    assert_close(results(case, main_form(case)), expected_results(case)[:3], dtype)
    ones = Case(torch.ones_like(case.depth), case.context, case.geometry, case.shape)
    volume = ones.depth[:, :, None] * ones.context[:, :, :, None]
    bev = voxel_pooling_volume(volume, voxel_index(*case.geometry), case.shape)
    assert_close((bev,), expected_results(ones)[:1], dtype)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('exact', [False, True])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_features_that_are_not_finite_change_only_the_cells_of_their_points(value, exact, dtype):
    case = random_case(11, cameras=3, bins=9, channels=8, height=17).to('cuda', dtype)
    case.context[0, 1, 3, 2, 1] = value
    torch.use_deterministic_algorithms(exact)
    bev = voxel_pooling(*case.arguments).cpu()
    torch.use_deterministic_algorithms(False)
    expected = voxel_pooling(*case.to('cpu', torch.float32).arguments)
    assert not expected.isfinite().all()
    tolerance = 1e-4 if dtype == torch.float32 else 5e-3  # float16 and bfloat16 round the result
    torch.testing.assert_close(
        bev.float(), expected, equal_nan=True, rtol=tolerance, atol=tolerance
    )


def test_channels_last_and_contiguous_inputs_give_equal_results_and_maps_are_channels_last():
    case = random_case(12, channels=8).to('cuda', torch.float16)
    depth, context = (
        tensor.movedim(2, -1).contiguous().movedim(-1, 2) for tensor in (case.depth, case.context)
    )
    last = Case(depth, context, case.geometry, case.shape)
    assert_close(results(last, main_form(last)), expected_results(case)[:3], torch.float16)
    assert voxel_pooling(*case.arguments).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_the_tensor_core_path_does_not_copy_context_planes(dtype):
    case = random_case(13, bins=2, channels=80, height=16, width=44).to('cuda', dtype)
    context_bytes = case.context.numel() * case.context.element_size()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    voxel_pooling(*case.arguments)
    assert torch.cuda.max_memory_allocated() - before < context_bytes / 2


def test_a_replayed_graph_uses_the_current_matrices_and_depths():
    case = surround_view_case().to('cuda', torch.float16)
    pool = main_form(case)
    pool(case.depth, case.context)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        bev = pool(case.depth, case.context)
    case.geometry[0][..., 0, 3] += 3.0
    case.depth.mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert relative_error(bev, expected_results(case)[0]) < TOLERANCE[torch.float16]


def test_kernels_run_in_order_on_the_callers_stream():
    case = surround_view_case().to('cuda', torch.float32)
    depth, context = torch.zeros_like(case.depth), torch.zeros_like(case.context)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)
        depth.copy_(case.depth)
        context.copy_(case.context)
        bev = main_form(case)(depth, context)
    stream.synchronize()
    assert relative_error(bev, expected_results(case)[0]) < TOLERANCE[torch.float32]


def test_a_rejected_launch_raises_a_runtime_error_and_leaves_the_device_usable():
    launch = kernels.Launch(kernels.Dtype.float32, 99, 0)
    with pytest.raises(RuntimeError, match='invalid device ordinal'):
        kernels.voxel_index(
            launch,
            kernels.Sizes(1, 1, 1, 1, 1, 1, 1, 1),
            kernels.Geometry(0, 0, 0, 0, (0, 0, 0), (1, 1, 1)),
            0,
        )
    assert voxel_index(*random_case(9).to('cuda', torch.float32).geometry).is_cuda


@pytest.mark.parametrize(
    'sizes',
    [
        (-1, 1, 1, 1, 1, 1, 1, 1),
        (2**31, 2**31, 1, 1, 2, 1, 1, 1),
        (2**20, 2**20, 1, 1, 1, 1, 1, 1),
    ],
)
def test_impossible_sizes_raise_a_value_error(sizes):
    launch = kernels.Launch(kernels.Dtype.float32, 0, 0)
    with pytest.raises(ValueError, match='voxel pooling'):
        kernels.voxel_index(
            launch, kernels.Sizes(*sizes), kernels.Geometry(0, 0, 0, 0, (0, 0, 0), (1, 1, 1)), 0
        )
