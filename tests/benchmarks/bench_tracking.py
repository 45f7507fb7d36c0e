r"""Compares the scores of our tracker and of two published trackers, and measures the time that
our tracker takes.

    python training/evaluate.py --checkpoint small --data.root data/tracking \
        --data.version v1.0-synthetic --data.split synthetic_val --output out/tracking
    python -m tests.benchmarks.bench_tracking --results out/tracking/results.json \
        --root data/tracking --version v1.0-synthetic --split synthetic_val
    python -m tests.benchmarks.bench_tracking --times

With ``--sweeps`` instead of ``--results``, the detections come from ``tracking_sweeps``. The
trackers then receive the detections of all image sets, or with ``--key-frames`` only of the key
frames, and are scored at the key frames. TrackingEval of the devkit computes the scores. Times are
medians of the CPU time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.result_file import write_results
from bevdepth_core.nuscenes.tracking_evaluation import (
    SCORES,
    UpdateTracks,
    evaluate_tracking,
    new_tracker,
    track_results,
)
from bevdepth_core.tracking import Tracker
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import BoxCovariance, UncertaintyModel, default_covariance
from tests.benchmarks.tracking_baselines import CenterPointTracker, ConstantVelocityTracker
from tests.benchmarks.tracking_sweeps import read_sweeps, track_sweeps

TRACKERS: dict[str, Callable[[float, UncertaintyModel | None], UpdateTracks]] = {
    'ours': lambda _, uncertainty: new_tracker(uncertainty),
    'CenterPoint, greedy': lambda frame_s, _: CenterPointTracker(frame_s).update,
    'AB3DMOT, constant velocity': lambda frame_s, _: ConstantVelocityTracker(frame_s).update,
}
"""Maps the name of a tracker to a function that creates the tracker for one scene and returns the
``update`` method of the tracker. The arguments of the function are the time between two frames in
seconds, and the fitted covariance model or None."""
KEY_FRAME_S, SWEEP_S = 1 / 2, 1 / 12
COUNTS = (50, 200, 500)
FRAMES = 200
PERIOD_NS = 83_000_000


def compare(options: argparse.Namespace) -> str:
    """Return a Markdown table with the scores of the trackers."""
    index = load_index(options.root, options.version, options.split, options.cache_dir)
    follow = _following(options, index)
    lines = [f'| tracker | {" | ".join(SCORES.values())} |', '| --- |' + ' ---: |' * len(SCORES)]
    for name in options.only or TRACKERS:
        folder = options.output / name.split(',')[0].lower()
        path = folder / 'results.json'
        write_results(follow(TRACKERS[name]), path)
        summary = evaluate_tracking(path, options.root, options.version, options.split, folder)
        values = [summary[key] for key in SCORES]
        lines.append(f'| {name} | {" | ".join(f"{value:.3f}" for value in values)} |')
        print(lines[-1], flush=True)
    return '\n'.join(lines)


def _following(
    options: argparse.Namespace, index: SampleIndex
) -> Callable[[Callable[..., UpdateTracks]], dict[str, list[dict]]]:
    """Return a function that runs a tracker on the detections that the options select. The
    function returns the entries of the tracks.
    """
    uncertainty = None
    if options.checkpoint:
        metadata = load_checkpoint(options.checkpoint).metadata
        uncertainty = UncertaintyModel.from_metadata(metadata, index.class_names)
    if options.sweeps:
        sweeps = read_sweeps(options.sweeps, options.key_frames)
        frame_s = KEY_FRAME_S if options.key_frames else SWEEP_S
        return lambda make: track_sweeps(
            sweeps, index.class_names, lambda: make(frame_s, uncertainty)
        )
    results = json.loads(options.results.read_text())['results']
    return lambda make: track_results(results, index, lambda: make(KEY_FRAME_S, uncertainty))


def moving_objects(count: int, frame: int) -> Detections3D:
    """Return the detections of ``count`` moving cars and pedestrians in the frame number
    ``frame``. In frame 0, the objects are in a square with a side of 100 m.
    """
    random = np.random.default_rng(count)
    start, velocity = random.uniform(-50, 50, (count, 2)), random.uniform(-5, 5, (count, 2))
    noise = np.random.default_rng(frame).normal(0, 0.2, (count, 2))
    center = np.column_stack((start + velocity * frame * PERIOD_NS * 1e-9 + noise, np.ones(count)))
    labels = np.where(random.random(count) < 0.5, 0, NUSCENES_CLASSES.index('pedestrian'))
    boxes = Boxes3D(center, np.ones((count, 3)), np.zeros(count), velocity)
    stamp_ns = frame * PERIOD_NS
    scores = np.sort(random.uniform(0.1, 0.9, count))[::-1]
    return Detections3D(boxes, scores, labels, NUSCENES_CLASSES, stamp_ns, stamp_ns)


def times() -> str:
    """Return a Markdown table with the median time of an update in two cases. In one case, the
    covariance is passed with the detections. In the other case, the update computes the default
    covariance.
    """
    lines = ['| boxes | ms per update | with default covariance |', '| ---: | ---: | ---: |']
    for count in COUNTS:
        frames = [moving_objects(count, frame) for frame in range(FRAMES)]
        covariances = [default_covariance(detections) for detections in frames]
        given = _median_ms(frames, covariances)
        lines.append(f'| {count} | {given:.2f} | {_median_ms(frames, [None] * FRAMES):.2f} |')
    return '\n'.join(lines)


def _median_ms(frames: list[Detections3D], covariances: Sequence[BoxCovariance | None]) -> float:
    tracker, seconds = Tracker(), []
    for detections, covariance in zip(frames, covariances, strict=True):
        began = time.process_time()
        tracker.update(detections, np.eye(4), covariance)
        seconds.append(time.process_time() - began)
    return statistics.median(seconds[5:]) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(
        description='Compare trackers, or measure the time of our tracker.'
    )
    parser.add_argument('--times', action='store_true')
    parser.add_argument('--results', type=Path, help='results.json of training/evaluate.py')
    parser.add_argument(
        '--sweeps', type=Path, help='file that tracking_sweeps wrote, instead of --results'
    )
    parser.add_argument(
        '--key-frames', action='store_true', help='track only the key frames of --sweeps (2 Hz)'
    )
    parser.add_argument(
        '--checkpoint', help='checkpoint whose fitted covariance is used (default: none)'
    )
    parser.add_argument('--root', type=Path)
    parser.add_argument('--version', default='v1.0-trainval')
    parser.add_argument('--split', default='val')
    parser.add_argument('--cache-dir', type=Path)
    parser.add_argument('--output', type=Path, default=Path('out/bench_tracking'))
    parser.add_argument(
        '--only', nargs='*', choices=TRACKERS, help='trackers to compare (default: all)'
    )
    options = parser.parse_args()
    if options.times:
        print(times())
    elif (options.results or options.sweeps) and options.root:
        print(compare(options))
    else:
        parser.error('give --times, or --root and one of --results and --sweeps')


if __name__ == '__main__':
    main()
