"""The running node through DDS: latency at 12 Hz by stage, and the highest rate at which no set is
dropped.

python -m tests.benchmarks.bench_node [--device cuda] [--preset NAME] [--precision fp16] [--rate
HZ] [--seconds S] [--out FOLDER]

Six 1600x900 JPEG topics with tf and CameraInfo are published by this process on localhost. "total"
and the stages are the node's
own times, from ~/latency: from the last image of a set received to detections published. "round
    trip" is measured here, from before
the last image is published to after the detections are received. The weights are random and give
about 100 boxes, a busy street. Writes node_<preset>.json and .png.
"""

from __future__ import annotations

import argparse
import itertools
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from vision_msgs.msg import Detection3DArray

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import ModelConfig, load_model_config
from bevdepth_core.model import BEVDepth
from bevdepth_ros.launching import isolate
from tests.benchmarks.bench_engine import SIZE, jpeg_files
from tests.benchmarks.charts import stage_bar, two_charts, value_bars, write_json
from tests.reference import ROOT
from tests.ros.camera_rig import START_NS, Rig
from tests.ros.graph import Graph, wait_until

NODE = '/bevdepth_detector'
CAMERAS = (
    'CAM_FRONT_LEFT',
    'CAM_FRONT',
    'CAM_FRONT_RIGHT',
    'CAM_BACK_LEFT',
    'CAM_BACK',
    'CAM_BACK_RIGHT',
)
BOXES = 100
"""Most boxes of an answer."""
EXPOSURE_STEP_NS = 500_000
"""Between cameras: short, so that rounds at high rates do not overlap."""
ROTATION_PART = 0.5
"""Part of the period in which the images of a set come, one after the other as from a rig whose
cameras take turns."""
SLOP_S = 0.006
WARM_UP_S = 3.0
RAMP_S = 5.0
SETTLE_PERIODS = 4
"""Wait for the last answers of a run, periods of the images."""
RAMP = (1.5, 2, 3, 4, 5, 6, 8, 10)
"""Rates after the first one, as multiples of it."""


class FastRig(Rig):
    """Cameras that expose nearly at once and send the same large pictures again and again."""

    def __init__(self, node) -> None:
        super().__init__(node, CAMERAS, image_topic='/{camera}/image_rect_compressed')
        self.data = dict(zip(CAMERAS, jpeg_files(), strict=True))

    def stamps_ns(self, time_s: float) -> list[int]:
        return [
            START_NS + round(time_s * 1e9) + EXPOSURE_STEP_NS * index
            for index in range(len(self.cameras))
        ]


def main() -> None:
    """Start the node, measure, print, write."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--device', default='cuda' if gpu else 'cpu')
    parser.add_argument('--preset', default='r50_256x704_2key' if gpu else 'small')
    parser.add_argument('--precision', default='fp16' if gpu else 'fp32')
    parser.add_argument('--rate', type=float, default=12.0 if gpu else 0.5)
    parser.add_argument('--seconds', type=float, default=60.0 if gpu else 12.0)
    parser.add_argument('--out', type=Path, default=ROOT / 'out' / 'bench')
    options = parser.parse_args()
    isolate()
    results = {'preset': options.preset, 'precision': options.precision, 'device': options.device}
    used_before = gpu_memory_mib() if options.device.startswith('cuda') else None
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        checkpoint = Path(folder) / 'weights.safetensors'
        save_checkpoint(BEVDepth(model_config(options.preset)), checkpoint)
        process = subprocess.Popen(node_command(options, checkpoint))
        try:
            rclpy.init()
            results.update(measure(options))
            if used_before is not None:
                results['gpu_memory_mib'] = gpu_memory_mib() - used_before
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)
            rclpy.try_shutdown()
    path = options.out / f'node_{options.preset}.json'
    write_json(results, path)
    show(results)
    plot(results, path.with_suffix('.png'))


def gpu_memory_mib() -> int:
    """Return what is in use on the GPU by all processes."""
    command = ['nvidia-smi', '--query-gpu=memory.used', '--format=csv,noheader,nounits']
    return int(
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    )


def model_config(preset: str) -> ModelConfig:
    """Return the preset, limited to ``BOXES`` boxes."""
    config = load_model_config(ROOT / 'config' / 'models' / f'{preset}.yaml')
    return replace(
        config, decode=replace(config.decode, boxes_per_task=round(BOXES / len(config.head.tasks)))
    )


def node_command(options: argparse.Namespace, checkpoint: Path) -> list[str]:
    """Return how the node is started."""
    values = {
        'checkpoint': checkpoint,
        'device': options.device,
        'precision': options.precision,
        'sync_slop_s': SLOP_S,
        'camera_timeout_s': 10.0,
        'diagnostics_period_s': 0.5,
    }
    pairs = (('-p', f'{name}:={value}') for name, value in values.items())
    return [
        sys.executable,
        '-m',
        'bevdepth_ros.detector',
        '--ros-args',
        *itertools.chain.from_iterable(pairs),
    ]


def measure(options: argparse.Namespace) -> dict:
    """Return what was seen at the wanted rate and at rising ones."""
    graph = Graph()
    diagnostics, received = graph.diagnostics(), {}
    latencies = graph.collect(DiagnosticArray, f'{NODE}/latency', 50)
    graph.node.create_subscription(
        Detection3DArray, f'{NODE}/detections', lambda message: take(message, received), 50
    )
    started = time.perf_counter()
    for transition in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
        change_state(graph, transition)
    results = {'ready_s': time.perf_counter() - started}
    rig = FastRig(graph.node)
    rig.wait_for_detector()
    rig.send_extrinsics()
    rig.send_infos(size=SIZE)
    time.sleep(0.5)
    clock = run(rig, received, 0.0, options.rate, WARM_UP_S)['end']
    latencies.clear()
    steady = run(rig, received, clock, options.rate, options.seconds)
    results['steady'] = {**steady, 'rate': options.rate, 'stages_ms': stage_percentiles(latencies)}
    results |= {area: diagnostics.values(area) for area in ('node', 'sets')}
    results['ramp'], clock = [], steady['end']
    for factor in RAMP:
        ramp = run(rig, received, clock, factor * options.rate, min(RAMP_S, options.seconds))
        clock = ramp['end']
        results['ramp'].append({**ramp, 'rate': factor * options.rate})
        if ramp['answered'] < ramp['sent']:
            break
    graph.close()
    return results


def stage_percentiles(latencies: list[DiagnosticArray]) -> dict[str, list[float]]:
    """Return ms per stage: median, 95th and 99th percentile."""
    stages: dict[str, list[float]] = {}
    for message in latencies:
        for pair in message.status[0].values:
            if pair.key.endswith('_ms'):
                stages.setdefault(pair.key.removesuffix('_ms'), []).append(float(pair.value))
    return {
        stage: np.percentile(values, (50, 95, 99)).round(2).tolist()
        for stage, values in stages.items()
    }


def change_state(graph: Graph, transition: int) -> None:
    """Ask for a transition and wait for it."""
    client = graph.node.create_client(ChangeState, f'{NODE}/change_state')
    wait_until(client.service_is_ready, 'the node')
    request = ChangeState.Request()
    request.transition.id = transition
    answer = client.call_async(request)
    wait_until(answer.done, 'the transition')
    if not answer.result().success:
        raise SystemExit('the node refused a transition')


def take(message: Detection3DArray, received: dict[int, float]) -> None:
    """Note when the answer to a stamp came."""
    received[message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec] = (
        time.perf_counter()
    )


def run(
    rig: FastRig, received: dict[int, float], begin_s: float, rate: float, seconds: float
) -> dict:
    """Publish sets at ``rate`` for ``seconds``; stamps go on from ``begin_s``."""
    sent: dict[int, float] = {}
    start = time.perf_counter()
    for index in range(max(round(rate * seconds), 1)):
        time.sleep(max(0.0, start + index / rate - time.perf_counter()))
        time_s = begin_s + index / rate
        rig.send_poses(time_s)
        for camera in rig.cameras:
            sent[rig.mean_stamp_ns(time_s)] = time.perf_counter()
            rig.send_images(time_s, cameras=(camera,), data=rig.data)
            time.sleep(ROTATION_PART / rate / len(rig.cameras))
    took = time.perf_counter() - start
    deadline = time.monotonic() + SETTLE_PERIODS / rate
    while time.monotonic() < deadline and not sent.keys() <= received.keys():
        time.sleep(0.02)
    trips = [
        1e3 * (received[stamp] - moment) for stamp, moment in sent.items() if stamp in received
    ]
    percentiles = (
        dict(
            zip(
                ('p50', 'p95', 'p99'),
                np.percentile(trips, (50, 95, 99)).round(2).tolist(),
                strict=True,
            )
        )
        if trips
        else {}
    )
    return {
        'sent': len(sent),
        'answered': len(trips),
        'reached_rate': len(sent) / took,
        'round_trip_ms': percentiles,
        'end': begin_s + (len(sent) + 1) / rate,
    }


def show(results: dict) -> None:
    """Print the table."""
    steady = results['steady']
    print(
        f'{results["preset"]} {results["precision"]} on {results["device"]}: ready after '
        f'{results["ready_s"]:.1f} s'
    )
    print(
        f'{steady["rate"]:g} Hz: {steady["answered"]} of {steady["sent"]} sets, round trip '
        f'{steady["round_trip_ms"]} ms'
    )
    print(
        'stages, ms (p50 p95 p99):',
        '; '.join(
            f'{name} {" ".join(map(str, values))}' for name, values in steady['stages_ms'].items()
        ),
    )
    print(
        'node:',
        results['node'],
        'MiB on the GPU, context included:',
        results.get('gpu_memory_mib'),
    )
    print('sets, the warm-up among them:', results['sets'])
    for row in results['ramp']:
        rate, trip = (
            f'{row["rate"]:g} Hz ({row["reached_rate"]:.1f} reached)',
            row['round_trip_ms'],
        )
        print(f'{rate}: {row["answered"]} of {row["sent"]} sets, round trip {trip} ms')


def plot(results: dict, path: Path) -> None:
    """Draw the stages of a set, medians, and the round trip at each rate without a loss as
    bars."""
    steady = results['steady']
    medians = {name: values[0] for name, values in steady['stages_ms'].items()}
    total = medians.pop('total', 0.0)
    figure, left, right = two_charts(
        f'{results["preset"]}, {results["precision"]} on {results["device"]} through ROS'
    )
    stage_bar(left, medians, total, 'threads, rest')
    left.set_xlabel(
        f'ms from the last image received to published at {steady["rate"]:g} Hz, median '
        f'{total:.1f}'
    )
    rows = [row for row in (steady, *results['ramp']) if row['answered'] == row['sent']]
    value_bars(right, {f'{row["rate"]:g} Hz': row['round_trip_ms']['p50'] for row in rows})
    right.set_xlabel('round trip, median ms, at rates without a loss')
    figure.savefig(path, dpi=120)


if __name__ == '__main__':
    main()
