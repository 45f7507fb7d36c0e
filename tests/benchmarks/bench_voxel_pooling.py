"""Times voxel pooling on six nuScenes cameras, ours beside the torch reference.

    python -m tests.benchmarks.bench_voxel_pooling

On a GPU every call is replayed as a CUDA graph, so that the device's time is measured and not Python's, after a write that
flushes the L2 cache; medians. Without a GPU the reference alone is timed.
"""

import statistics
import time

import torch

from bevdepth_core.ops import force_reference, voxel_index
from tests.core.ops.cases import Case, surround_view_case

CPU_RUNS, GPU_RUNS = 10, 50
FLUSH_BYTES = 256 * 2**20


def repeat(case: Case, batch: int) -> Case:
    """The first frame of ``case``, ``batch`` times."""
    one = case.sample(0)
    depth, context, matrices = (tensor.repeat_interleave(batch, dim=0) for tensor in (one.depth, one.context, one.geometry[0]))
    return Case(depth, context, (matrices, *one.geometry[1:]), one.shape)


def calls(case: Case) -> dict:
    """What is timed; backward passes are called as autograd calls them."""
    ops = torch.ops.bevdepth
    index = voxel_index(*case.geometry)
    features = case.depth, case.context
    grad_bev = torch.randn_like(ops.voxel_pooling(*case.arguments))
    channels_last = case.context.movedim(2, -1).contiguous().movedim(-1, 2)
    volume = case.depth[:, :, None] * case.context[:, :, :, None]
    return {
        'cameras, forward': lambda: ops.voxel_pooling(*case.arguments),
        'cameras, forward, context channels_last': lambda: ops.voxel_pooling(case.depth, channels_last, *case.arguments[2:]),
        'cameras, forward, deterministic': lambda: deterministically(lambda: ops.voxel_pooling(*case.arguments)),
        'cameras, backward': lambda: ops.voxel_pooling_backward(grad_bev, *case.arguments),
        'indices, forward': lambda: ops.voxel_pooling_indexed(*features, index, case.shape),
        'indices, backward': lambda: ops.voxel_pooling_indexed_backward(grad_bev, *features, index, case.shape),
        'volume, forward': lambda: ops.voxel_pooling_volume(volume, index, case.shape),
        'volume, backward': lambda: ops.voxel_pooling_volume_backward(grad_bev, index, case.shape),
        'indices alone': lambda: ops.voxel_index(*case.geometry),
    }


def deterministically(call):
    """Return call() in PyTorch's deterministic mode, without the fills of fresh memory that it adds by default."""
    fill = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        return call()
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(False)


def extra_bytes_over_arrays(case: Case) -> float:
    """Return the peak of memory that forward and backward take beyond inputs, map and gradients, as a share of inputs and map."""
    depth, context = case.depth.requires_grad_(), case.context.requires_grad_()
    bev = torch.ops.bevdepth.voxel_pooling(*case.arguments)
    arrays = [depth, context, bev]
    own = sum(tensor.numel() * tensor.element_size() for tensor in arrays)
    del bev, arrays
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    torch.ops.bevdepth.voxel_pooling(*case.arguments).sum().backward()
    peak = torch.cuda.max_memory_allocated() - before
    depth.grad = context.grad = None
    case.depth.requires_grad_(False), case.context.requires_grad_(False)
    return (peak - own) / own  # map and gradients measure as much as inputs and map


def cpu_microseconds(call) -> float:
    """Median wall time."""
    seconds = []
    for _ in range(CPU_RUNS + 1):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:]) * 1e6


def gpu_microseconds(call) -> float:
    """Median device time of a CUDA graph of ``call``, L2 flushed before each replay."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device='cuda')
    pairs = []
    for _ in range(GPU_RUNS):
        flush.zero_()
        pair = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        pair[0].record()
        graph.replay()
        pair[1].record()
        pairs.append(pair)
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(stop) for start, stop in pairs) * 1e3


def print_gpu_table() -> None:
    """Print microseconds of every call, type and batch."""
    print(f'{torch.cuda.get_device_name()}, torch {torch.__version__}, microseconds\n')
    print('| call | type | batch | ours | torch reference |\n| --- | --- | --- | --- | --- |')
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        for batch in (1, 8):
            case = repeat(surround_view_case(dtype), batch).to('cuda', dtype)
            share = extra_bytes_over_arrays(case)
            print(f'| extra memory of forward and backward / inputs + map | {dtype} | {batch} | {share:.2f} | |')
            for name, call in calls(case).items():
                ours = gpu_microseconds(call)
                with force_reference():
                    reference = gpu_microseconds(call)
                print(f'| {name} | {str(dtype).removeprefix("torch.")} | {batch} | {ours:.1f} | {reference:.0f} |', flush=True)


def print_cpu_table() -> None:
    """Print milliseconds of every call in float32."""
    print(f'CPU, {torch.get_num_threads()} threads, torch {torch.__version__}, float32, batch 1, milliseconds\n')
    print('| call | torch reference |\n| --- | --- |')
    for name, call in calls(surround_view_case().sample(0)).items():
        print(f'| {name} | {cpu_microseconds(call) / 1e3:.1f} |', flush=True)


if __name__ == '__main__':
    print_gpu_table() if torch.cuda.is_available() else print_cpu_table()
