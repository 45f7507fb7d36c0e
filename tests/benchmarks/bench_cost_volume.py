"""Measures the cost volume of BEVStereo: time and memory of the kernel and of unfused operators.

    python -m tests.benchmarks.bench_cost_volume [--runs N] [--out FOLDER]

One refinement step of one frame is measured. The input has six cameras at 256x704, 256 channels
at stride 4, and four depth ranges with three candidates each. The unfused operators process one
range after the other, as the official code does: they warp, multiply and average, and store the
three warped maps of a range. Writes cost_volume.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch

from bevdepth_core.engine.timing import device_seconds
from bevdepth_core.ops import force_reference
from bevdepth_core.ops.cost_volume import cost_volume
from tests.benchmarks.charts import write_json
from tests.core.ops.cost_cases import CostCase
from tests.reference import ROOT

RANGES, CANDIDATES = 4, 3


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--runs', type=int, default=20)
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'bench')
    options = parser.parse_args()
    results = {'device': torch.cuda.get_device_name(), 'torch': torch.__version__}
    for dtype in (torch.float16, torch.float32):
        name = str(dtype).removeprefix('torch.')
        results[name] = measure(dtype, options.runs)
        for variant, (milliseconds, mebibytes) in results[name].items():
            print(f'{name} {variant}: {milliseconds:.3f} ms, {mebibytes:.0f} MiB')
    write_json(results, options.out / 'cost_volume.json')


def measure(dtype: torch.dtype, runs: int) -> dict[str, tuple[float, float]]:
    """Return the time in milliseconds and the peak memory in MiB of both variants."""
    case = CostCase.random(6, 256, 64, 176, RANGES * CANDIDATES, 8, (256, 704))
    case.depths.abs_().mul_(2)
    case = case.to('cuda', dtype)
    matrix = torch.eye(4).double()[:3].repeat(6, 1, 1)
    matrix[:, :, 3] = torch.tensor([300.0, 40.0, 1.0])  # the vehicle moved forward and sideways
    case.matrix.copy_(matrix)

    def unfused() -> None:
        with force_reference():
            cost_volume(*case.arguments)

    return {
        'kernel': _time_and_memory(lambda: cost_volume(*case.arguments), runs),
        'unfused': _time_and_memory(unfused, runs),
    }


def _time_and_memory(work: Callable[[], object], runs: int) -> tuple[float, float]:
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    seconds = device_seconds(work, runs)
    return 1e3 * seconds, (torch.cuda.max_memory_allocated() - before) / 2**20


if __name__ == '__main__':
    main()
