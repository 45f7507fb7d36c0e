"""Measures the stages of one detector step, and one frame of the official pipeline for comparison.

    python -m tests.benchmarks.bench_engine [--device cuda] [--preset NAME] [--precision fp16]
        [--steps N] [--out FOLDER]

The official pipeline runs the whole network on the key frame and the past frame, in eager mode,
and starts from resized images on the device. The detector starts from source images. Each
measurement ends when the boxes are on the host. Writes engine_<preset>_<precision>.json and .png.
"""

from __future__ import annotations

import argparse
import io
import os
import platform
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bevdepth_core.config import load_model_config
from bevdepth_core.decode import decode
from bevdepth_core.inference import Detector
from bevdepth_core.jpeg import JpegDecoder
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import Frame
from tests.benchmarks.charts import stage_bar, two_charts, value_bars, write_json
from tests.core.frames import make_frame, make_rig, two_frame_inputs
from tests.reference import ROOT

SIZE = (900, 1600)
RATE_HZ = 12
FIRST_STEPS = 8
"""Warm-up steps before the first measurement. At 12 Hz the sixth step is the first step with a
past frame."""
WARM_UP = 2
"""Steps at the beginning of each measurement that are not counted."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    gpu = torch.cuda.is_available()
    parser.add_argument('--device', default='cuda' if gpu else 'cpu')
    parser.add_argument('--preset', default='r50_256x704_2key' if gpu else 'small')
    parser.add_argument('--precision', default='fp16' if gpu else 'fp32')
    parser.add_argument('--steps', type=int, default=200 if gpu else 3)
    parser.add_argument('--official-steps', type=int, default=20 if gpu else 1)
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'bench')
    options = parser.parse_args()
    torch.manual_seed(0)
    model = BEVDepth(
        load_model_config(ROOT / 'config' / 'models' / f'{options.preset}.yaml')
    ).eval()
    results = {
        'preset': options.preset,
        'precision': options.precision,
        'device': device_name(options.device),
        'torch': torch.__version__,
    }
    results.update(measure_detector(model, options))
    results['official_ms'] = measure_official(model, options)
    step = results['from_device']['p50']
    results['official_over_step'] = {
        name: value / step for name, value in results['official_ms'].items()
    }
    write(results, options.out / f'engine_{options.preset}_{options.precision}')


def measure_detector(model: BEVDepth, options: argparse.Namespace) -> dict:
    """Return the memory, and the times in ms of streaming steps that start from images on the
    device, from JPEG files and from arrays."""
    started = time.perf_counter()
    detector = Detector(model, options.device, options.precision, cuda_graphs=True)
    detector.prepare(6)
    prepared = time.perf_counter() - started
    rig = make_rig(6, *SIZE[::-1])
    files, jpeg = jpeg_files(), JpegDecoder(options.device)
    decoded = jpeg(files)
    arrays = tuple(
        np.ascontiguousarray(image.cpu() if isinstance(image, torch.Tensor) else image)
        for image in decoded
    )
    stamps = frame_stamps(rig)

    def frame(images) -> Frame:
        return Frame(images, rig, *next(stamps))

    results = {'prepare_s': prepared}
    for _ in range(FIRST_STEPS):
        detector(frame(decoded))
    results['from_device'] = timed(lambda: detector(frame(decoded)), options.steps)
    results['from_jpeg'] = timed(lambda: detector(frame(jpeg(files))), options.steps)
    results['from_arrays'] = timed(lambda: detector(frame(arrays)), options.steps)
    results['jpeg_alone'] = timed(
        lambda: settled(options.device, jpeg, files), max(options.steps // 4, 1)
    )
    results['memory_mib'] = memory(options.device)
    return results


def frame_stamps(rig):
    """Yield the stamps and the ego poses of one frame after the other, at ``RATE_HZ``."""
    index = 0
    while True:
        made = make_frame(index / RATE_HZ, rig, size=(2, 2))
        yield made.stamps_ns, made.world_from_ego
        index += 1


def jpeg_files() -> list[bytes]:
    """Return six JPEG files of 1600x900 pixels. Each file has about the size of a photograph."""
    rng = np.random.default_rng(0)
    files = []
    for _ in range(6):
        coarse = Image.fromarray(rng.integers(0, 255, (30, 54, 3), dtype=np.uint8)).resize(
            SIZE[::-1]
        )
        pixels = np.asarray(coarse).astype(np.int16) + rng.integers(-4, 5, (*SIZE, 1))
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, 'JPEG', quality=75)
        files.append(buffer.getvalue())
    return files


def timed(work: Callable, steps: int) -> dict:
    """Return percentiles of the wall time of ``work`` in ms, and medians of the stages if ``work``
    returns them.
    """
    walls, stages = [], []
    for index in range(steps + WARM_UP):
        start = time.perf_counter()
        found = work()
        if index >= WARM_UP:
            walls.append(1e3 * (time.perf_counter() - start))
            stages.append(
                {
                    name: 1e3 * seconds
                    for name, seconds in getattr(found, 'stage_seconds', {}).items()
                }
            )
    p50, p95, p99 = np.percentile(walls, (50, 95, 99))
    medians = {name: float(np.median([stage[name] for stage in stages])) for name in stages[0]}
    return {
        'p50': float(p50),
        'p95': float(p95),
        'p99': float(p99),
        'per_second': 1e3 / float(np.mean(walls)),
        'stages': medians,
    }


def settled(device: str, work: Callable, *arguments) -> None:
    """Run ``work`` and wait until the device has finished it."""
    work(*arguments)
    if device != 'cpu':
        torch.cuda.synchronize()


def measure_official(model: BEVDepth, options: argparse.Namespace) -> dict[str, float]:
    """Return the median time of the eager two-frame forward pass with decoding, ms, by precision.
    The key ``fp32`` is float32 with the default settings of PyTorch. On a GPU, there is also the
    key ``amp``, which is autocast to float16.
    """
    rig = make_rig(6, *SIZE[::-1])
    key, past = (make_frame(stamp, rig, size=SIZE) for stamp in (0.5, 0.0))
    inputs = two_frame_inputs(key, past, model.config)
    model = model.to(options.device)
    inputs = type(inputs)(
        *(getattr(inputs, name).to(options.device) for name in inputs.__dataclass_fields__)
    )

    def forward(half: bool) -> None:
        with torch.inference_mode(), torch.autocast('cuda', torch.float16, enabled=half):
            decode(model(inputs).tasks, model.config)

    kinds = {'fp32': False} if options.device == 'cpu' else {'fp32': False, 'amp': True}
    return {
        name: timed(lambda half=half: forward(half), options.official_steps)['p50']
        for name, half in kinds.items()
    }


def memory(device: str) -> dict[str, float]:
    """Return the memory in MiB. On a GPU, the result contains the peak that PyTorch allocated, the
    peak that PyTorch reserved, and the memory in use by all processes. On a CPU, the result
    contains the peak of this process.
    """
    if device == 'cpu':
        return {'process': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10}
    free, total = torch.cuda.mem_get_info()
    peaks = {
        'allocated': torch.cuda.max_memory_allocated(),
        'reserved': torch.cuda.max_memory_reserved(),
        'device': total - free,
    }
    return {name: value / 2**20 for name, value in peaks.items()}


def device_name(device: str) -> str:
    if device != 'cpu':
        return torch.cuda.get_device_name(device)
    model = re.search(r'^model name\s*: (.+)$', Path('/proc/cpuinfo').read_text(), re.MULTILINE)
    return f'{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores'


def write(results: dict, path: Path) -> None:
    """Print the results, and write a JSON file and a plot."""
    write_json(results, path.with_suffix('.json'))
    print(
        f'{results["preset"]} {results["precision"]} on {results["device"]}; ready after '
        f'{results["prepare_s"]:.1f} s'
    )
    for kind in ('from_device', 'from_jpeg', 'from_arrays', 'jpeg_alone'):
        times = results[kind]
        stages = ', '.join(f'{name} {value:.3f}' for name, value in times['stages'].items())
        print(
            f'{kind:12} p50 {times["p50"]:.2f} p95 {times["p95"]:.2f} p99 {times["p99"]:.2f} ms, '
            f'{times["per_second"]:.0f}/s; {stages}'
        )
    for name, value in results['official_ms'].items():
        print(
            f'official {name}: {value:.1f} ms, {results["official_over_step"][name]:.1f} times as '
            'long as a step'
        )
    print('memory MiB:', {name: round(value) for name, value in results['memory_mib'].items()})
    plot(results, path.with_suffix('.png'))


def plot(results: dict, path: Path) -> None:
    """Draw the stages of a step and the time of the official pipeline as bars."""
    step = results['from_device']
    figure, left, right = two_charts(
        f'{results["preset"]}, {results["precision"]}, {results["device"]}'
    )
    stage_bar(left, step['stages'], step['p50'], 'host, rest')
    left.set_xlabel(f'ms from images on the device to boxes, p50 {step["p50"]:.2f}')
    bars = {'step': step['p50'], 'step from JPEG': results['from_jpeg']['p50']}
    value_bars(
        right, bars | {f'official {name}': value for name, value in results['official_ms'].items()}
    )
    right.set_xlabel('ms per frame')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
