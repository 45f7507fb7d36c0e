"""Measures a detector step on the CPU in PyTorch and in exported networks, in one run.

    python -m tests.benchmarks.bench_export [--checkpoint small | --preset NAME] [--threads 2]
        [--steps 10] [--precisions fp32 int8] [--poolings scatter plain] [--exported FOLDER ...]

The runtimes alternate after each step, so that other processes slow down all runtimes equally. The
detector starts from six source images; a past frame is available. INT8 is calibrated on noise.
Therefore, only the speed of INT8 is meaningful, not its boxes. With --preset, the weights are
random. Writes export_<name>.json.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.config import load_model_config
from bevdepth_core.export.check import random_frames
from bevdepth_core.export.quantization import Samples
from bevdepth_core.export.writing import PRECISIONS, export_onnx
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from tests.benchmarks.bench_engine import device_name
from tests.benchmarks.charts import write_json
from tests.core.frames import make_frame, make_rig
from tests.reference import ROOT

SIZE = (450, 800)
PERIOD_S = 0.5
WARM_UP = 2
"""Steps before the measurement. The second step is the first step with a past frame."""


def main() -> None:
    """Measure, print, write."""
    options = arguments()
    model = network(options)
    with tempfile.TemporaryDirectory() as folder:
        detectors = {'torch': Detector(model, cpu_threads=options.threads)}
        for precision in options.precisions:
            for pooling in options.poolings if precision == 'fp32' else options.poolings[:1]:
                name = f'onnx {precision} {pooling}'
                exported = export(model, Path(folder) / name, precision, pooling)
                detectors[name] = Detector(
                    model, onnx_folder=exported, cpu_threads=options.threads
                )
        for exported in options.exported:
            detectors[exported.name] = Detector(
                model, onnx_folder=exported, cpu_threads=options.threads
            )
        times = measure(detectors, options.steps)
    report(times, options)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--checkpoint', default='small')
    parser.add_argument('--preset', help='model preset, with random weights')
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--steps', type=int, default=10)
    parser.add_argument('--precisions', nargs='*', choices=PRECISIONS, default=['fp32', 'int8'])
    parser.add_argument('--poolings', nargs='+', default=['scatter', 'plain'])
    parser.add_argument(
        '--exported', type=Path, nargs='+', default=[], help='folders of more exports, such as pt2'
    )
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'bench')
    return parser.parse_args()


def network(options: argparse.Namespace) -> BEVDepth:
    if options.preset is None:
        return load_checkpoint(options.checkpoint).requires_grad_(False)
    torch.manual_seed(0)
    config = load_model_config(ROOT / 'config' / 'models' / f'{options.preset}.yaml')
    return BEVDepth(config).eval().requires_grad_(False)


def export(model: BEVDepth, folder: Path, precision: str, pooling: str) -> Path:
    samples = None
    if precision == 'int8':
        samples = Samples.of(model, random_frames(6, np.random.default_rng(0)))
    export_onnx(model, folder, pooling=pooling, precision=precision, samples=samples)
    return folder


def measure(detectors: dict[str, Detector], steps: int) -> dict[str, list[dict[str, float]]]:
    """Return the seconds of each stage, for each runtime and step."""
    rig = make_rig(6, *SIZE[::-1])
    times: dict[str, list[dict[str, float]]] = {name: [] for name in detectors}
    for step in range(WARM_UP + steps):
        frame = make_frame(PERIOD_S * step, rig, seed=step % 2, size=SIZE)
        for name, detector in detectors.items():
            stages = detector(frame).stage_seconds
            if step >= WARM_UP:
                times[name].append(stages)
    return times


def report(times: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    """Print and write medians in ms, and how many times as fast as PyTorch each runtime is."""
    medians = {name: {'step': 1e3 * total(steps)} for name, steps in times.items()}
    for name, steps in times.items():
        for stage in steps[0]:
            medians[name][stage] = 1e3 * float(np.median([step[stage] for step in steps]))
        stages = ', '.join(f'{stage} {value:.0f}' for stage, value in medians[name].items())
        ratio = medians['torch']['step'] / medians[name]['step']
        print(f'{name:22} {ratio:.2f} times as fast as torch; ms: {stages}')
    name = options.preset or Path(options.checkpoint).stem
    settings = {'network': name, 'threads': options.threads, 'device': device_name('cpu')}
    write_json({**settings, 'ms': medians}, options.out / f'export_{name}.json')


def total(steps: list[dict[str, float]]) -> float:
    return float(np.median([sum(step.values()) for step in steps]))


if __name__ == '__main__':
    main()
