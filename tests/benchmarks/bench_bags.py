"""Measures how late the bag player publishes the images of six cameras at 12 Hz, and how long the
conversion of a scene to a bag takes, compared with a copy of the files of the scene.

    python -m tests.benchmarks.bench_bags [--seconds S]
        [--dataroot DIR --version VERSION --scene NAME]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.recording import read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.synthetic.dataset.writing import VERSION, DatasetPlan, write_dataset
from bevdepth_ros.bags.scene_bag import Target, write_bag
from bevdepth_ros.bags.writer import STORAGES, BagWriter, image_topic
from bevdepth_ros.launching import isolate

IMAGE_BYTES = 170_000
"""Typical size of a JPEG file of nuScenes."""
RATE_HZ = 12
START_NS = 1_700_000_000_000_000_000


def main() -> None:
    """Print punctuality of the player and throughput of the converter."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--seconds', type=float, default=15.0, help='length of the replay, seconds'
    )
    parser.add_argument(
        '--dataroot', type=Path, help='dataset with the scene to convert (default: synthetic)'
    )
    parser.add_argument('--version', default=VERSION)
    parser.add_argument('--scene', default='val-0001')
    options = parser.parse_args()
    isolate()
    with tempfile.TemporaryDirectory() as name:
        for storage in STORAGES:
            bag = write_images(Path(name) / storage, storage, options.seconds)
            print(
                f'player, {storage}, 6 x {RATE_HZ} Hz of {IMAGE_BYTES // 1000} kB at rate 1.0: '
                f'{replay(bag)}',
                flush=True,
            )
        dataroot = options.dataroot or draw(Path(name) / 'dataset')
        compare_with_copy(dataroot, options.version, options.scene, Path(name))


def write_images(path: Path, storage: str, seconds: float) -> Path:
    """Write a bag with random bytes instead of images on six topics, and return its path. The
    cameras expose one after the other, as in nuScenes.
    """
    data = np.random.default_rng(0).bytes(IMAGE_BYTES)
    with BagWriter(path, storage) as bag:
        for number in range(round(seconds * RATE_HZ)):
            for index, camera in enumerate(CAMERAS):
                bag.write_compressed_image(
                    camera, START_NS + round(number * 1e9 / RATE_HZ) + index * 7_500_000, data
                )
    return path


def replay(bag: Path) -> str:
    """Play the bag; return the summary that the player prints, and the number of messages that
    arrived.
    """
    arrived = 0

    def count(_: bytes) -> None:
        nonlocal arrived
        arrived += 1

    rclpy.init()
    node = Node('bench_bags')
    for camera in CAMERAS:
        node.create_subscription(CompressedImage, image_topic(camera), count, 10, raw=True)
    player = subprocess.Popen(
        [sys.executable, '-m', 'bevdepth_ros.bags.player', bag, '--clock'],
        stderr=subprocess.PIPE,
        text=True,
    )
    while player.poll() is None:
        rclpy.spin_once(node, timeout_sec=0.05)
    node.destroy_node()
    rclpy.shutdown()
    summary = [line for line in player.stderr.read().splitlines() if 'played' in line][-1]
    return f'{summary.split("]: ")[-1]}; {arrived} arrived'


def draw(root: Path) -> Path:
    """Write a dataset with one synthetic scene of 2 s and images of full size; return its path."""
    write_dataset(root, DatasetPlan(train_scenes=0, val_scenes=1, duration_s=2.0))
    return root


def compare_with_copy(dataroot: Path, version: str, scene: str, folder: Path) -> None:
    """Print the throughput of the conversion of a scene, and of a copy of the same files. Each
    throughput is the best of three runs. A run ends when its files are on the disk.
    """
    recording = read_recording(open_devkit(dataroot, version), scene)
    files = [dataroot / name for name in recording.filenames()]
    megabytes = sum(file.stat().st_size for file in files) / 1e6

    def copy() -> None:
        target = folder / 'copy'
        target.mkdir()
        for number, file in enumerate(files):
            shutil.copyfile(file, target / str(number))

    works = {
        storage: lambda storage=storage: write_bag(
            recording, Target(dataroot, folder / f'bag_{storage}', storage)
        )
        for storage in STORAGES
    }
    times: dict[str, list[float]] = {}
    for _ in range(3):
        for name, work in (works | {'copy': copy}).items():
            times.setdefault(name, []).append(seconds(work))
            shutil.rmtree(folder / 'copy', ignore_errors=True)
    print(f'converter, {len(files)} files, {megabytes:.0f} MB')
    for name, measured in times.items():
        rate, share = megabytes / min(measured), min(times['copy']) / min(measured)
        print(
            f'  {name:<8}{min(measured):6.2f} s {rate:7.0f} MB/s {share:6.2f} of the speed of a '
            'copy'
        )


def seconds(work) -> float:
    """Return how long ``work`` takes until its files are on the disk."""
    os.sync()
    start = time.perf_counter()
    work()
    os.sync()
    return time.perf_counter() - start


if __name__ == '__main__':
    main()
