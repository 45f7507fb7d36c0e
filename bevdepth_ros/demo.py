"""Runs the node on synthetic images, for machines without cameras and without data.

    python -m bevdepth_ros.demo [--out out] [--checkpoint WEIGHTS]

Renders a synthetic drive, writes it as a rosbag2, and runs ``ros2 launch bevdepth_ros
detect.launch.py bag:=...`` on it. Then it prints a table of the results and writes a figure. The
demo uses its own ROS domain and ends all processes that it started.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.inference import usable_device
from bevdepth_core.synthetic import (
    SyntheticScene,
    make_scene,
    nuscenes_like_rig,
    render_frame,
    visible_fractions,
)
from bevdepth_core.types import Boxes3D, CameraRig, Detections3D, Frame
from bevdepth_core.visualization import compose
from bevdepth_core.weights import locate
from bevdepth_ros.bags.player_options import positive
from bevdepth_ros.bags.writer import BagWriter
from bevdepth_ros.detections.readings import class_names, detections_from_cloud
from bevdepth_ros.launching import LAUNCH_FILE, PACKAGE, LaunchError, isolate, last_lines, launched
from bevdepth_ros.rig.stamps import stamp_ns

NODE = '/bevdepth_detector'
SET_PERIOD_S = 0.5
"""Time between two image sets of the drive, in seconds. This is the period of the key frames of
nuScenes, and long enough for a small machine."""
IMAGE_SIZE = (1600, 900)
JPEG_QUALITY = 92
START_NS = 1_700_000_000_000_000_000
MAX_START_S = 300.0
"""Longest time, in seconds, that the launch may take in addition to the duration of the replay."""
SLOWEST_RATE = 0.03
"""Lowest rate of a replay. At a lower rate, the images of a set would arrive so far apart that the
node would report cameras as silent."""
SPARE_TIME = 2.0
"""The node loses no image set if the time between two image sets is at least this multiple of the
latency."""
REPORT_S = 10.0
"""Interval of the messages about the progress of a replay, seconds."""
LINGER_S = 0.5
"""After the end of the launch, messages are still received for this time, in seconds."""
BUNDLED_WEIGHTS = 'small'
FIGURE_SCORE = 0.4
"""The figure shows detections with a higher score."""
FIGURE_MOMENT = 0.6
"""The figure shows the image set nearest to this fraction of the drive."""


class DemoError(Exception):
    """The demo has no results; the message gives the reason."""


@dataclass(frozen=True)
class Snapshot:
    """One image set of the drive, with the data that are written to the bag.

    Attributes:
        rig: the N cameras.
        stamps_ns: (N,) exposure times of the images, nanoseconds.
        world_from_ego: (N, 4, 4) ego poses at these times.
        jpegs: content of N JPEG files.
        stamp_ns: mean exposure time, nanoseconds.
        boxes: boxes of the n objects that are visible in at least one image, in the ego frame at
            ``stamp_ns``.
        labels: (n,) indices of the boxes' classes in ``NUSCENES_CLASSES``.
    """

    rig: CameraRig
    stamps_ns: np.ndarray
    world_from_ego: np.ndarray
    jpegs: tuple[bytes, ...]
    stamp_ns: int
    boxes: Boxes3D
    labels: np.ndarray

    def frame(self) -> Frame:
        """Return the image set as the node builds it from messages."""
        images = tuple(
            cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            for jpeg in self.jpegs
        )
        return Frame(images, self.rig, self.stamps_ns, self.world_from_ego)


def render_drive(
    scene: SyntheticScene, duration_s: float, size: tuple[int, int] = IMAGE_SIZE
) -> list[Snapshot]:
    """Return the image sets of the first ``duration_s`` seconds of a scene; uses all cores."""
    rig = nuscenes_like_rig(*size)
    moments = np.arange(0, duration_s, SET_PERIOD_S)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda moment: _snapshot(scene, rig, float(moment), size), moments))


def _snapshot(
    scene: SyntheticScene, rig: CameraRig, moment_s: float, size: tuple[int, int]
) -> Snapshot:
    frame = render_frame(scene, rig, moment_s, start_ns=START_NS, width=size[0], height=size[1])
    assert frame.world_from_ego is not None  # render_frame always sets the poses
    jpegs = tuple(
        cv2.imencode('.jpg', image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))[
            1
        ].tobytes()
        for image in frame.images
    )
    seen = visible_fractions(scene, rig, moment_s, *size) > 0
    boxes, labels = scene.ground_truth((frame.stamp_ns - START_NS) * 1e-9, seen=seen)
    return Snapshot(
        rig, frame.stamps_ns, frame.world_from_ego, jpegs, frame.stamp_ns, boxes, labels
    )


def write_bag(snapshots: list[Snapshot], path: Path, size: tuple[int, int] = IMAGE_SIZE) -> None:
    """Write a drive as a rosbag2 with calibration, tf and annotations."""
    with BagWriter(path) as bag:
        bag.write_static_transforms(snapshots[0].rig, int(snapshots[0].stamps_ns.min()))
        for snapshot in snapshots:
            bag.write_frame(
                snapshot.rig, snapshot.stamps_ns, snapshot.world_from_ego, snapshot.jpegs, size
            )
            bag.write_ground_truth(
                snapshot.stamp_ns, snapshot.boxes, snapshot.labels, NUSCENES_CLASSES
            )


class DemoSubscriber:
    """Stores the results of the detector.

    Attributes:
        counts: number of detections by stamp in nanoseconds.
        objects: ``~/objects`` by stamp.
        class_names: class names of the labels in ``objects``.
        latency: values of the newest diagnostic status of the area latency.
    """

    def __init__(self, node: Node) -> None:
        """Subscribe on ``node``."""
        self.counts: dict[int, int] = {}
        self.objects: dict[int, PointCloud2] = {}
        self.class_names: tuple[str, ...] = NUSCENES_CLASSES
        self.latency: dict[str, str] = {}
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(Detection3DArray, f'{NODE}/detections', self._on_detections, 10)
        node.create_subscription(PointCloud2, f'{NODE}/objects', self._on_objects, 10)
        node.create_subscription(LabelInfo, f'{NODE}/label_info', self._on_label_info, latched)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)

    def _on_detections(self, message: Detection3DArray) -> None:
        self.counts[stamp_ns(message)] = len(message.detections)

    def _on_objects(self, message: PointCloud2) -> None:
        self.objects[stamp_ns(message)] = message

    def _on_label_info(self, message: LabelInfo) -> None:
        self.class_names = class_names(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == f'{NODE}: latency':
                self.latency = {entry.key: entry.value for entry in status.values}

    def result_stamp(self, moment_ns: int) -> int | None:
        """Return the stamp of the result for the image set with the stamp ``moment_ns``, or None
        if there is no result.

        The two stamps can differ: if an image was decoded too late, the result does not use it,
        and the stamp of the result is the mean of fewer exposure times.
        """
        nearest = min(self.objects, key=lambda stamp: abs(stamp - moment_ns), default=None)
        if nearest is None or abs(nearest - moment_ns) > SET_PERIOD_S / 2 * 1e9:
            return None
        return nearest

    def detections(self, stamp: int) -> Detections3D:
        """Return the detections of one result, highest score first."""
        return detections_from_cloud(self.objects[stamp], self.class_names)


def collect_results(
    arguments: list[str], log_path: Path, replay_s: float, sets: int
) -> DemoSubscriber:
    """Launch the detector and return its results when the launch has ended. Meanwhile, print at
    intervals how many of the ``sets`` image sets have results.

    Raises:
        DemoError: the launch failed or did not end in time, or there are no results.
    """
    node = Node('bevdepth_demo')
    try:
        subscriber = DemoSubscriber(node)
        longest_s = MAX_START_S + replay_s
        deadline = time.monotonic() + longest_s
        with launched(arguments, log_path) as process:
            report_at = time.monotonic() + REPORT_S
            while process.poll() is None and time.monotonic() < deadline:
                rclpy.spin_once(node, timeout_sec=0.1)
                if time.monotonic() > report_at:
                    count = len(subscriber.counts)
                    print(f'  results for {count} of {sets} image sets', flush=True)
                    report_at += REPORT_S
            if process.poll() is None:
                raise DemoError(
                    f'the launch did not end within {longest_s:.0f} s\n{last_lines(log_path)}'
                )
        lingering = time.monotonic() + LINGER_S
        while time.monotonic() < lingering:
            rclpy.spin_once(node, timeout_sec=0.1)
    finally:
        node.destroy_node()
    if process.returncode:
        raise DemoError(
            f'the launch failed with exit status {process.returncode}\n{last_lines(log_path)}'
        )
    if not subscriber.objects:
        raise DemoError(f'the detector published no results\n{last_lines(log_path)}')
    return subscriber


def table(sets_in: int, subscriber: DemoSubscriber) -> str:
    """Return the counts and latencies of the run as text."""
    rows: list[tuple[str, object, object]] = [
        ('image sets', sets_in, ''),
        ('results', len(subscriber.counts), ''),
        ('detections', sum(subscriber.counts.values()), ''),
    ]
    rows.append(('latency in ms', 'p50', 'p95'))
    stages = [key.removesuffix('_p50_ms') for key in subscriber.latency if key.endswith('_p50_ms')]
    rows += [
        (
            f'  {stage.replace("_", " ")}',
            subscriber.latency[f'{stage}_p50_ms'],
            subscriber.latency[f'{stage}_p95_ms'],
        )
        for stage in stages
    ]
    return '\n'.join(f'{name:<20}{first!s:>9}{second!s:>9}' for name, first, second in rows)


def render_figure(snapshots: list[Snapshot], subscriber: DemoSubscriber) -> np.ndarray:
    """Return the figure of one image set that has a result: camera images and top view with
    detections and ground truth.
    """
    wanted_ns = START_NS + FIGURE_MOMENT * (snapshots[-1].stamp_ns - START_NS)
    with_result = [
        (snapshot, stamp)
        for snapshot in snapshots
        if (stamp := subscriber.result_stamp(snapshot.stamp_ns)) is not None
    ]
    if not with_result:
        raise DemoError('no result has the stamp of an image set')
    snapshot, stamp = min(with_result, key=lambda pair: abs(pair[0].stamp_ns - wanted_ns))
    detections = subscriber.detections(stamp).above(FIGURE_SCORE)
    detections = replace(detections, track_ids=None)  # the text of the ids would cover boxes
    caption = f'median latency {subscriber.latency.get("total_p50_ms", "?")} ms'
    return compose(
        snapshot.frame(),
        detections,
        ground_truth=(snapshot.boxes, snapshot.labels),
        title='BEVDepth on ROS 2',
        caption=caption,
    )


def launch_command(arguments: list[str]) -> str:
    """Return the shell command that launches the detector with ``arguments``."""
    return shlex.join(['ros2', 'launch', PACKAGE, LAUNCH_FILE, *arguments])


def next_steps(arguments: list[str]) -> str:
    """Return commands that show the replay with these launch arguments in a browser."""
    command = launch_command([*arguments, 'viewer:=web', 'loop:=true'])
    return (
        'to watch this replay, run these commands, then open http://127.0.0.1:8080:\n'
        f'  . ./env.sh\n  {command}'
    )


def run_node(
    options: argparse.Namespace, bag: Path, log: Path, sets: int
) -> tuple[DemoSubscriber, list[str]]:
    """Run the detector on ``bag``, which contains ``sets`` image sets. Return the results and the
    arguments of the launch.

    If the machine is too slow for the rate of the replay, the replay is repeated at a lower rate.
    """
    rate = options.rate
    while True:
        arguments = [
            f'bag:={bag}',
            f'rate:={rate:.3g}',
            f'checkpoint:={options.checkpoint}',
            f'device:={options.device}',
        ]
        replay_s = sets * SET_PERIOD_S / rate
        print(f'running: {launch_command(arguments)}')
        print(
            f'  log of the launch: {log}; the replay takes {replay_s:.0f} s after the node starts',
            flush=True,
        )
        subscriber = collect_results(arguments, log, replay_s, sets)
        if len(subscriber.counts) >= sets or rate <= SLOWEST_RATE:
            return subscriber, arguments
        rate = slower(rate, float(subscriber.latency.get('total_p95_ms', 0)) * 1e-3)
        print(
            f'results for {len(subscriber.counts)} of {sets} image sets: '
            f'repeating the replay at rate {rate:.3g}'
        )


def slower(rate: float, latency_s: float) -> float:
    """Return the rate of the next replay. It is at most half of ``rate``, and low enough that a
    node with the latency ``latency_s`` loses no image set, but never below SLOWEST_RATE. It has at
    most three decimals.
    """
    fitting = min(rate / 2, SET_PERIOD_S / (SPARE_TIME * max(latency_s, 1e-3)))
    return max(SLOWEST_RATE, math.floor(fitting * 1000) / 1000)


def run(options: argparse.Namespace) -> None:
    """Render the drive, run the detector on it, print the table and write the figure.

    Raises:
        DemoError: there are no results.
        ValueError: the checkpoint or the device does not exist.
    """
    locate(options.checkpoint)
    if options.device != 'auto':
        usable_device(options.device)
    out = options.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    bag, figure, log = out / 'demo_bag', out / 'demo.png', out / 'demo_launch.log'
    print(f'rendering a synthetic drive of {options.duration:g} s ...', flush=True)
    snapshots = render_drive(make_scene(options.seed, options.duration), options.duration)
    write_bag(snapshots, bag)
    print(f'wrote {bag}', flush=True)
    subscriber, arguments = run_node(options, bag, log, len(snapshots))
    image = render_figure(snapshots, subscriber)
    cv2.imwrite(str(figure), image[..., ::-1])
    print(f'\n{table(len(snapshots), subscriber)}\n\nwrote {figure}\n{next_steps(arguments)}')


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f'must be an integer of at least 0, got {text}')
    return int(text)


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'demo',
        description='Render a synthetic drive of six cameras and run the detector on it.',
    )
    parser.add_argument(
        '--out',
        type=Path,
        default=Path('out'),
        help='folder for the bag, the figure and the log (default out)',
    )
    parser.add_argument(
        '--checkpoint',
        default=BUNDLED_WEIGHTS,
        help='checkpoint file, or name of bundled or downloaded weights (default small)',
    )
    parser.add_argument('--device', default='cpu', help='cpu, cuda or auto (default cpu)')
    parser.add_argument(
        '--duration',
        type=positive,
        default=8.0,
        metavar='S',
        help='length of the drive in seconds (default 8)',
    )
    parser.add_argument('--seed', type=_seed, default=8, help='seed of the drive (default 8)')
    parser.add_argument(
        '--rate',
        type=positive,
        default=0.5,
        help='speed of the replay relative to real time (default 0.5, slow enough for two CPU '
        'cores)',
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Run the demo. On an error, exit with a message; after an interrupt, exit with status 130."""
    options = _options(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        isolate()
        rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
        run(options)
    except (DemoError, LaunchError, ValueError, OSError) as error:
        sys.exit(f'demo: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        rclpy.try_shutdown()
    print(f'took {time.monotonic() - started:.0f} s')


if __name__ == '__main__':
    main()
