"""Compares the times of a streaming step and of the official two-frame forward, with the full-size
model on a CPU.

    python -m tests.benchmarks.bench_streaming [--rounds N] [--threads N]

Each round measures one streaming step and one two-frame forward, so that other programs slow down
both equally.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import statistics
import time

import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.decode import decode
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from tests.core.frames import make_frame, make_rig, two_frame_inputs


def main() -> None:
    """Print the medians of the times and of their ratio, and the peak memory of the process."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--threads', type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(0)
    detector = Detector(BEVDepth(ModelConfig()), cpu_threads=options.threads)
    rig = make_rig(6, 1600, 900)
    frames = [
        make_frame(0.5 * index, rig, seed=index, size=(900, 1600))
        for index in range(options.rounds + 2)
    ]
    detector(frames[0])
    detector(frames[1])
    steps, forwards = [], []
    for past, key in itertools.pairwise(frames[1:]):
        steps.append(seconds(lambda key=key: detector(key)))
        forwards.append(
            seconds(lambda past=past, key=key: two_frame_forward(detector.model, past, key))
        )
    ratios = [step / forward for step, forward in zip(steps, forwards, strict=True)]
    print(
        f'R50 256x704, 2 key frames, six 1600x900 images, fp32, CPU, {options.threads} threads, '
        f'median of {options.rounds}'
    )
    print(f'streaming step     {statistics.median(steps):6.2f} s')
    print(f'two-frame forward  {statistics.median(forwards):6.2f} s')
    print(f'ratio              {statistics.median(ratios):6.2f}')
    print(f'ratio per round    {min(ratios):6.2f} to {max(ratios):.2f}')
    print(
        f'peak memory        {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:6.2f} GiB'
    )


@torch.inference_mode()
def two_frame_forward(model: BEVDepth, past, key) -> None:
    """Do what the official evaluation does per frame: preprocess both frames, run the network on
    both frames, and decode.
    """
    decode(model(two_frame_inputs(key, past, model.config)).tasks, model.config)


def seconds(work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == '__main__':
    main()
