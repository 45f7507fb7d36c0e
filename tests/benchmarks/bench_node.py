"""Measures the latency of the running node from the last image of a set to its detections.

    python -m tests.benchmarks.bench_node [--device cuda] [--preset NAME] [--precision fp16]
        [--kind jpeg|raw] [--rate HZ] [--seconds S] [--ramp HZ,HZ,...] [--out FOLDER]

The node, the publisher of six 1600x900 images and the subscriber to the detections are three
processes on one clock (node_traffic). The latency is the time from the publication of the last
image of a set to the arrival of its detections. The parts of the latency are the stages that the
node publishes on ~/latency, and ``delivery``, which is the time from the end of the last stage to
the arrival at the subscriber. The sets of the first three seconds are not counted, because the
node determines the trigger cycle in this time. Weights are random and give about 100 boxes. Writes
node_<preset>_<kind>.json and .png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import rclpy
import torch
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import ModelConfig, load_model_config
from bevdepth_core.model import BEVDepth
from bevdepth_ros.launching import isolate
from tests.benchmarks.charts import stage_bar, two_charts, value_bars, write_json
from tests.benchmarks.node_traffic import NODE, TOPIC, WARM_UP_S
from tests.reference import ROOT
from tests.ros.graph import Graph, wait_until

BOXES = 100
"""Approximate limit of the number of boxes in one result."""
SLOP_S = 0.006
PROFILE = ROOT / 'config' / 'middleware' / 'fastdds_large_images.xml'
"""Middleware profile that docs/NODE.md recommends for raw images."""
PERCENTILES = (50, 99, 99.9)


def main() -> None:
    """Start the node, measure, print, write."""
    options = parse()
    isolate()
    results: dict[str, Any] = {
        name: getattr(options, name) for name in ('preset', 'precision', 'device', 'kind')
    }
    is_gpu = options.device.startswith('cuda')
    used_before = gpu_memory_mib() if is_gpu else 0
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        checkpoint = Path(folder) / 'weights.safetensors'
        save_checkpoint(BEVDepth(model_config(options.preset)), checkpoint)
        if options.kind == 'raw':  # the publisher inherits the variable, too
            os.environ['FASTRTPS_DEFAULT_PROFILES_FILE'] = str(PROFILE)
        process = subprocess.Popen(node_command(options, checkpoint))
        try:
            results |= measure(options, psutil.Process(process.pid), Path(folder))
            if is_gpu:
                results['gpu_memory_mib'] = gpu_memory_mib() - used_before
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
    path = options.out / f'node_{options.preset}_{options.kind}.json'
    write_json(results, path)
    show(results)
    plot(results, path.with_suffix('.png'))


def parse() -> argparse.Namespace:
    """Return the options of the command line."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if gpu else 'cpu')
    parser.add_argument('--preset', default='r50_256x704_2key' if gpu else 'small')
    parser.add_argument('--precision', default='fp16' if gpu else 'fp32')
    parser.add_argument('--kind', choices=tuple(TOPIC), default='jpeg')
    parser.add_argument('--rate', type=float, default=12.0 if gpu else 0.5)
    parser.add_argument('--seconds', type=float, default=60.0 if gpu else 12.0)
    parser.add_argument(
        '--ramp', default='24,36,48,60' if gpu else '1,2', help='further rates, Hz'
    )
    parser.add_argument('--ramp-seconds', type=float, default=10.0)
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'bench')
    return parser.parse_args()


def gpu_memory_mib() -> int:
    """Return the memory in use on the GPU by all processes, MiB."""
    command = ['nvidia-smi', '--query-gpu=memory.used', '--format=csv,noheader,nounits']
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return int(output.splitlines()[0])


def model_config(preset: str) -> ModelConfig:
    """Return the config of the preset, with a limit of about ``BOXES`` boxes per result."""
    config = load_model_config(ROOT / 'config' / 'models' / f'{preset}.yaml')
    most = round(BOXES / len(config.head.tasks))
    return replace(config, decode=replace(config.decode, boxes_per_task=most))


def node_command(options: argparse.Namespace, checkpoint: Path) -> list[str]:
    """Return the command line of the node."""
    values = {
        'checkpoint': checkpoint,
        'device': options.device,
        'precision': options.precision,
        'image_transport': 'raw' if options.kind == 'raw' else 'compressed',
        'image_topics': f'["{TOPIC[options.kind]}"]',
        'sync_slop_s': SLOP_S,
        'camera_timeout_s': 10.0,
    }
    pairs = (('-p', f'{name}:={value}') for name, value in values.items())
    start = [sys.executable, '-m', 'bevdepth_ros.detector', '--ros-args']
    return [*start, *itertools.chain.from_iterable(pairs)]


def measure(options: argparse.Namespace, node: psutil.Process, folder: Path) -> dict[str, Any]:
    """Return the results at the rate of ``--rate`` and at the rates of ``--ramp``."""
    rclpy.init()
    graph, started = Graph(), time.perf_counter()
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        change_state(graph, transition)
    ready_s = time.perf_counter() - started
    graph.close()
    rclpy.shutdown()
    traffic = Traffic(options.kind, node, folder)
    results = {'ready_s': ready_s, 'steady': traffic.run(options.rate, options.seconds)}
    rates = [float(rate) for rate in options.ramp.split(',') if rate]
    results['ramp'] = [traffic.run(rate, options.ramp_seconds) for rate in rates]
    return results


def change_state(graph: Graph, transition: int) -> None:
    """Request a transition of the node and wait for the response."""
    client = graph.node.create_client(ChangeState, f'{NODE}/change_state')
    wait_until(client.service_is_ready, 'the node')
    request = ChangeState.Request()
    request.transition.id = transition
    future = client.call_async(request)
    wait_until(future.done, 'the transition')
    if not future.result().success:
        raise SystemExit(f'{NODE} rejected the transition {transition}; see the log of the node')


class Traffic:
    """Runs the publisher and the subscriber once per rate. The stamps of a run are later than the
    stamps of the run before, so that the node does not detect a jump back in time.
    """

    def __init__(self, kind: str, node: psutil.Process, folder: Path) -> None:
        self._kind, self._node, self._folder, self._begin_s = kind, node, folder, 0.0

    def run(self, rate: float, seconds: float) -> dict[str, Any]:
        """Publish image sets at ``rate`` Hz for ``seconds``; return latency, losses, CPU time."""
        command = [sys.executable, '-m', 'tests.benchmarks.node_traffic']
        sent_file, received_file = self._folder / 'sent.json', self._folder / 'received.json'
        receiver = subprocess.Popen([*command, 'receive', '--out', str(received_file)], cwd=ROOT)
        time.sleep(2.0)
        before = sum(self._node.cpu_times()[:2])
        values = {'kind': self._kind, 'rate': rate, 'seconds': seconds, 'begin': self._begin_s}
        pairs = itertools.chain.from_iterable((f'--{k}', str(v)) for k, v in values.items())
        publisher = [*command, 'publish', *pairs, '--out', str(sent_file)]
        subprocess.run(publisher, cwd=ROOT, check=True)
        cpu_s = sum(self._node.cpu_times()[:2]) - before
        receiver.send_signal(signal.SIGINT)
        receiver.wait(20)
        self._begin_s += WARM_UP_S + seconds + 1
        result = summary(json.loads(sent_file.read_text()), json.loads(received_file.read_text()))
        row = {'rate': rate, **result, 'node_cpu_ms_per_set': 1e3 * cpu_s / result['sent']}
        show_row(row)
        return row


def summary(sent: dict[str, Any], received: dict[str, Any]) -> dict[str, Any]:
    """Return losses, percentiles of the latency, and medians of the parts of the latency, ms."""
    published = dict(list(sent['published'].items())[sent['warm_up_sets'] :])
    stamps = [stamp for stamp in published if stamp in received['arrived']]
    latency = {s: 1e3 * (received['arrived'][s] - sent['published'][s]) for s in stamps}
    timed = [stamp for stamp in stamps if stamp in received['stages']]
    parts: dict[str, list[float]] = {}
    for stamp in timed:
        stages = dict(received['stages'][stamp])
        total = stages.pop('total')
        stages.pop('tracking', None)  # the detections are published before they are tracked
        for name, value in {**stages, 'delivery': latency[stamp] - total}.items():
            parts.setdefault(name, []).append(value)
    medians = {name: round(float(np.median(values)), 3) for name, values in parts.items()}
    return {
        'sent': len(published),
        'results': len(stamps),
        'reached_rate': sent['reached_rate'],
        'bytes_per_set': sent['bytes_per_set'],
        'latency_ms': percentiles(list(latency.values())),
        'parts_ms': medians,
    }


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the percentiles by name."""
    if not values:
        return {}
    names = [f'p{percentile:g}' for percentile in PERCENTILES]
    return dict(zip(names, np.percentile(values, PERCENTILES).round(2).tolist(), strict=True))


def show(results: dict[str, Any]) -> None:
    """Print the results that do not depend on the rate."""
    print(
        f'{results["preset"]} {results["precision"]} on {results["device"]}, {results["kind"]}: '
        f'ready after {results["ready_s"]:.1f} s, GPU memory {results.get("gpu_memory_mib")} MiB'
    )


def show_row(row: dict[str, Any]) -> None:
    """Print the results at one rate."""
    print(
        f'{row["rate"]:g} Hz ({row["reached_rate"]:.1f} reached): {row["results"]} of '
        f'{row["sent"]} sets, latency {row["latency_ms"]} ms, node CPU '
        f'{row["node_cpu_ms_per_set"]:.1f} ms per set'
    )
    total = sum(row['parts_ms'].values())
    print(f'  parts, median ms, sum {total:.2f}: {row["parts_ms"]}', flush=True)


def plot(results: dict[str, Any], path: Path) -> None:
    """Plot the parts of the latency, and the latency at each rate at which no set was lost."""
    steady = results['steady']
    if not steady['parts_ms']:
        return
    figure, left, right = two_charts(
        f'{results["preset"]}, {results["precision"]} on {results["device"]} through ROS'
    )
    median = steady['latency_ms']['p50']
    stage_bar(left, steady['parts_ms'], median, 'rest')
    left.set_xlabel(
        f'ms from the last image published to the detections received at {steady["rate"]:g} Hz, '
        f'median {median:.1f}'
    )
    rows = [row for row in (steady, *results['ramp']) if row['results'] == row['sent']]
    value_bars(right, {f'{row["rate"]:g} Hz': row['latency_ms']['p50'] for row in rows})
    right.set_xlabel('median ms, at rates without a loss')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
