"""Measures the times of four implementations of voxel pooling for six nuScenes cameras, and
compares the times with the memory floor.

The implementations are the CUDA kernels, the PyTorch reference, the cumsum trick and, on a GPU,
sorted intervals. The arrays of the intervals are computed in each call (moving cameras) or only
once (fixed cameras).

    python -m tests.benchmarks.bench_voxel_pooling [--out FOLDER]

On a GPU, every call except the cumsum trick is replayed as a CUDA graph, so that the measured time
does not include Python. The cumsum trick cannot be captured in a CUDA graph; its time includes
Python. Before each call, the benchmark flushes the L2 cache. All times are medians. The memory
floor is the time to read every input and write every output once, at the speed of a large copy in
the same run. Without a GPU, the kernels are not measured. Writes voxel_pooling_<device>.json and
.png.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from matplotlib import pyplot
from matplotlib.patches import Patch
from torch import Tensor

from bevdepth_core.ops import force_reference, kernels_in_use, voxel_index
from tests.benchmarks.bench_engine import device_name
from tests.benchmarks.charts import grouped_bars, write_json
from tests.benchmarks.cumsum_trick import pool_by_cumsum
from tests.core.ops.cases import Case, relative_error, surround_view_case
from tests.reference import ROOT

RUNS = {'cpu': 10, 'cuda': 50}
MIN_RUNS, MAX_DURATION_S = 5, 1.0
"""Smallest number of repetitions of a call, and approximate limit of their total time, seconds."""
FLUSH_BYTES = 256 * 2**20
COPY_BYTES = {'cpu': 128 * 2**20, 'cuda': 2**30}
SIZES = {
    'cpu': ((torch.float32,), (1,)),
    'cuda': ((torch.float32, torch.float16, torch.bfloat16), (1, 8)),
}
"""Data types and batch sizes for each device."""
COLORS = {
    'ours': 'tab:blue',
    'torch reference': 'tab:orange',
    'cumsum trick': 'tab:red',
    'intervals, moving': 'tab:purple',
    'intervals, fixed': 'tab:pink',
    'floor': 'gray',
}
FORWARD = 'cameras, forward'
FORWARD_CHANNELS_LAST = 'cameras, forward, context channels_last'
CUMSUM_ERROR = {
    torch.float64: 1e-11,
    torch.float32: 1e-3,
    torch.float16: 2e-3,
    torch.bfloat16: 1e-2,
}
"""Largest accepted relative L2 distance between the results of the cumsum trick and of our op. The
cumsum trick rounds the products to the type of the features. It rounds the running sums to float64
if the features are float64, otherwise to float32."""

INTERVALS_ERROR = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1e-2}
"""Largest accepted relative L2 distance between the results of sorted intervals and of our op.
The results differ because the order of the additions differs."""


def main() -> None:
    """Measure, print and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'bench')
    options = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    speed = copy_speed(device)
    results = {
        'device': device_name(device),
        'torch': torch.__version__,
        'threads': torch.get_num_threads(),
        'copy_gb_per_s': speed / 1e9,
    }
    print(
        f'{results["device"]}, torch {torch.__version__}, copies at {speed / 1e9:,.0f} GB/s; '
        'microseconds',
        flush=True,
    )
    results['cumsum_relative_error_float64'] = compare_with_cumsum(
        surround_view_case().sample(0).to(device, torch.float64)
    )
    results['rows'] = []
    for row in measure(device, speed):
        results['rows'].append(row)
        times = ', '.join(f'{name} {value:,.1f}' for name, value in row['microseconds'].items())
        print(f'{row["dtype"]}, batch {row["batch"]}, {row["call"]}: {times}', flush=True)
    path = options.out / f'voxel_pooling_{device}'
    write_json(results, path.with_suffix('.json'))
    plot(results, path.with_suffix('.png'))


def measure(device: str, speed: float) -> Iterator[dict]:
    """Yield a row per data type, batch size and call, with the microseconds of each
    implementation.
    """
    for dtype, batch in itertools.product(*SIZES[device]):
        case = repeat(surround_view_case(), batch).to(device, dtype)
        for name, call in calls(case).items():
            row = {
                'dtype': str(dtype).removeprefix('torch.'),
                'batch': batch,
                'call': name,
                'microseconds': implementations(call, device),
            }
            if name == FORWARD:
                row['microseconds']['cumsum trick'] = microseconds(
                    partial(from_cameras_by_cumsum, case), device, replayed=False
                )
                row['cumsum_relative_error'] = compare_with_cumsum(case)
            if name == FORWARD_CHANNELS_LAST and device == 'cuda':
                row['microseconds'] |= times_of_intervals(case)
            if name == FORWARD and device == 'cuda':
                row['extra_memory_of_forward_and_backward_over_inputs_and_map'] = (
                    extra_memory_share(case)
                )
            row['microseconds']['floor'] = 1e6 * bytes_of(call) / speed
            yield row


def repeat(case: Case, batch: int) -> Case:
    """Return inputs that contain the first frame of ``case`` ``batch`` times."""
    sample = case.sample(0)
    depth, context, matrices = (
        tensor.repeat_interleave(batch, dim=0)
        for tensor in (sample.depth, sample.context, sample.geometry[0])
    )
    return Case(depth, context, (matrices, *sample.geometry[1:]), sample.shape)


def calls(case: Case) -> dict[str, partial]:
    """Return the calls that are timed, by name. Backward passes get the arguments that autograd
    passes to them.
    """
    ops = torch.ops.bevdepth
    index = voxel_index(*case.geometry)
    grad_bev = torch.randn_like(ops.voxel_pooling(*case.arguments))
    channels_last = (
        case.depth,
        case.context.movedim(2, -1).contiguous().movedim(-1, 2),
        *case.arguments[2:],
    )
    volume = case.depth[:, :, None] * case.context[:, :, :, None]
    return {
        FORWARD: partial(ops.voxel_pooling, *case.arguments),
        FORWARD_CHANNELS_LAST: partial(ops.voxel_pooling, *channels_last),
        'cameras, forward, deterministic': partial(deterministically, *case.arguments),
        'cameras, forward, deterministic, context channels_last': partial(
            deterministically, *channels_last
        ),
        'cameras, backward': partial(ops.voxel_pooling_backward, grad_bev, *case.arguments),
        'volume, forward': partial(ops.voxel_pooling_volume, volume, index, case.shape),
        'volume, backward': partial(
            ops.voxel_pooling_volume_backward, grad_bev, index, case.shape
        ),
        'indices alone': partial(ops.voxel_index, *case.geometry),
    }


def deterministically(*arguments) -> Tensor:
    """Run voxel pooling in the deterministic mode of PyTorch. By default, this mode also fills new
    tensors with a fixed value. This function switches the filling off.
    """
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        return torch.ops.bevdepth.voxel_pooling(*arguments)
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(False)


def from_cameras_by_cumsum(case: Case) -> Tensor:
    return pool_by_cumsum(case.depth, case.context, voxel_index(*case.geometry), case.shape)


def compare_with_cumsum(case: Case) -> float:
    """Return the relative distance between the maps of the cumsum trick and of our op.

    Raises:
        ArithmeticError: the distance is larger than ``CUMSUM_ERROR``.
    """
    error = relative_error(
        from_cameras_by_cumsum(case), torch.ops.bevdepth.voxel_pooling(*case.arguments)
    )
    if not error < CUMSUM_ERROR[case.depth.dtype]:
        raise ArithmeticError(
            f'the cumsum trick and our op give different maps in {case.depth.dtype}: '
            f'relative error {error:.1e}'
        )
    return error


def times_of_intervals(case: Case) -> dict[str, float]:
    """Return the times of sorted intervals, microseconds. The context has its channels last.

    Raises:
        ArithmeticError: the map differs from the map of our op by more than ``INTERVALS_ERROR``.
    """
    from tests.benchmarks import interval_pooling  # needs Triton, which torch has for GPUs only

    rows = case.context.movedim(2, -1).contiguous()
    fixed = interval_pooling.sorted_intervals(voxel_index(*case.geometry), case.shape)

    def pool(intervals: interval_pooling.Intervals) -> Tensor:
        return interval_pooling.pool_intervals(case.depth, rows, intervals, case.shape)

    def pool_moving() -> Tensor:
        index = voxel_index(*case.geometry)
        return pool(interval_pooling.sorted_intervals(index, case.shape))

    error = relative_error(pool_moving(), torch.ops.bevdepth.voxel_pooling(*case.arguments))
    if not error < INTERVALS_ERROR[case.depth.dtype]:
        raise ArithmeticError(
            f'sorted intervals and our op give different maps: error {error:.1e}'
        )
    return {
        'intervals, moving': microseconds(pool_moving, 'cuda'),
        'intervals, fixed': microseconds(partial(pool, fixed), 'cuda'),
    }


def implementations(call: partial, device: str) -> dict[str, float]:
    """Return the times of our kernels, if they are built, and of the PyTorch reference,
    microseconds.
    """
    times = {'ours': microseconds(call, device)} if device == 'cuda' and kernels_in_use() else {}
    with force_reference():
        return times | {'torch reference': microseconds(call, device)}


def bytes_of(call: partial) -> int:
    """Return the number of bytes that ``call`` must read and write."""
    results = call()
    results = results if isinstance(results, tuple) else (results,)
    return sum(
        item.numel() * item.element_size()
        for item in (*call.args, *results)
        if isinstance(item, Tensor)
    )


def copy_speed(device: str) -> float:
    """Return how many bytes per second a large copy reads and writes. The copy is a multiplication
    by 2, which on a GPU is faster than the copy engine."""
    source = torch.ones(COPY_BYTES[device] // 4, device=device)
    target = torch.zeros_like(source)
    return (
        2e6
        * source.numel()
        * 4
        / microseconds(partial(torch.mul, source, 2.0, out=target), device)
    )


def extra_memory_share(case: Case) -> float:
    """Return the peak memory that forward and backward need in addition to inputs, map and
    gradients, divided by the size of inputs and map."""
    depth, context = case.depth.requires_grad_(), case.context.requires_grad_()
    bev = torch.ops.bevdepth.voxel_pooling(*case.arguments)
    arrays = [depth, context, bev]
    array_bytes = sum(tensor.numel() * tensor.element_size() for tensor in arrays)
    del bev, arrays
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.ops.bevdepth.voxel_pooling(*case.arguments).sum().backward()
    peak = torch.cuda.max_memory_allocated() - before
    depth.grad = context.grad = None
    case.depth.requires_grad_(False), case.context.requires_grad_(False)
    # The map and the gradients together are as large as the inputs and the map together.
    return (peak - array_bytes) / array_bytes


def microseconds(call: Callable, device: str, replayed: bool = True) -> float:
    """Return the median time of ``call``, microseconds. On a GPU, if ``replayed``, a CUDA graph
    of ``call`` is timed.
    """
    if device == 'cuda' and replayed:
        call = captured(call)
    median = flushed_median if device == 'cuda' else wall_median
    first = median(call, 1)
    return median(call, min(max(int(MAX_DURATION_S * 1e6 / first), MIN_RUNS), RUNS[device]))


def wall_median(call: Callable, runs: int) -> float:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e6 * statistics.median(seconds)


def captured(call: Callable) -> Callable:
    """Return a function that replays a CUDA graph of ``call``."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def flushed_median(call: Callable, runs: int) -> float:
    """Return the median time of ``call`` on the GPU, microseconds. The L2 cache is flushed before
    each run.
    """
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device='cuda')
    pairs = []
    for _ in range(runs):
        flush.zero_()
        pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        pair[0].record()
        call()
        pair[1].record()
        pairs.append(pair)
    torch.cuda.synchronize()
    return 1e3 * statistics.median(start.elapsed_time(stop) for start, stop in pairs)


def plot(results: dict, path: Path) -> None:
    """Draw one chart per data type and batch size, with one group of bars per call."""
    charts: dict[tuple, dict] = {}
    for row in results['rows']:
        charts.setdefault((row['dtype'], row['batch']), {})[row['call']] = row['microseconds']
    dtypes, batches = ({key[part]: None for key in charts} for part in (0, 1))
    size = 7.5 * len(batches), 0.8 + 5 * len(dtypes)
    figure, axes = pyplot.subplots(
        len(dtypes),
        len(batches),
        figsize=size,
        sharex=True,
        sharey=True,
        squeeze=False,
        layout='constrained',
    )
    figure.suptitle(f'Voxel pooling, six cameras\n{results["device"]}, torch {results["torch"]}')
    for chart, ((dtype, batch), times) in zip(axes.flat, charts.items(), strict=True):
        grouped_bars(chart, times, COLORS)
        chart.set_title(f'{dtype}, batch {batch}')
    for chart in axes[-1]:
        chart.set_xlabel('microseconds, median')
    used = {name for row in results['rows'] for name in row['microseconds']}
    handles = [Patch(color=color, label=name) for name, color in COLORS.items() if name in used]
    figure.legend(handles=handles, loc='outside lower center', ncols=len(handles))
    figure.savefig(path, dpi=100)


if __name__ == '__main__':
    main()
