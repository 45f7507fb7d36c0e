"""Converts recordings of a vehicle to a dataset in nuScenes format.

    ros2 run bevdepth_ros bag_to_nuscenes --bag drive_1 drive_2 --out data/own

Each bag becomes a scene, or several where key frames are missing. The dataset gets its name when
it is complete.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bevdepth_core.nuscenes.classes import LIDAR
from bevdepth_core.nuscenes.table_files import TableFiles
from bevdepth_ros.bags.conversion.plan import Frames, Measurement, Plan, make_plan
from bevdepth_ros.bags.conversion.rows import SceneWriter, Sensor, filename, shared_rows
from bevdepth_ros.bags.conversion.scan import Scan, read_header, scan_bag
from bevdepth_ros.bags.conversion.sensor_files import write_image, write_points
from bevdepth_ros.bags.conversion.sources import (
    CLOUD,
    COMPRESSED,
    DETECTIONS,
    ODOMETRY,
    ConversionError,
    Sources,
    choose_cameras,
    choose_one,
)
from bevdepth_ros.bags.reader import Bag, BagError
from bevdepth_ros.rig.transforms import TransformMissingError
from bevdepth_ros.rig.undistortion import Undistorter

SPLIT = 'own_train'


def report(sentence: str) -> None:
    """Print a note for the user without breaking a progress bar."""
    tqdm.write(f'bag_to_nuscenes: {sentence}', file=sys.stderr)


class BagConverter:
    """Adds the scenes of bags to a dataset.

    Attributes:
        scenes: names of the scenes so far.
        sensors: of the dataset; all bags must have the same.
        categories: names of classes so far.
    """

    def __init__(self, root: Path, options: argparse.Namespace, tables: TableFiles) -> None:
        self._root, self._options, self._tables = root, options, tables
        self.scenes: list[str] = []
        self.sensors: tuple[Sensor, ...] = ()
        self.categories: set[str] = set()

    def add(self, path: Path, bag: Bag) -> None:
        """Convert one bag.

        Raises:
            ConversionError: something is missing; the message says what.
        """
        options = self._options
        sources = _sources(bag, options)
        if not sources.lidar:
            report(f'{path} has no lidar: depth cannot be adapted with this dataset')
        if sources.annotations:
            report(f'{path}: the boxes on {sources.annotations} become annotations')
        scan = scan_bag(bag, sources)
        frames = Frames(options.world_frame, options.base_frame)
        sensors = _sensors(scan, sources, frames)
        self._require_same(path, tuple(sensors.values()))
        plan = make_plan(
            scan, sources, frames, round(options.slop * 1e9), with_sweeps=not options.key_frames
        )
        name = re.sub(r'[^\w.-]', '_', path.resolve().name.split('.')[0]).lstrip('.-') or 'bag'
        files = self._write_files(bag, name, scan, plan, sensors)
        complete = plan.without(frozenset(_measurements(plan) - files.keys()))
        self._add_scenes(path, name, scan, complete, sensors, files, frames)
        for note in scan.notes:
            report(f'{path}: {note}')

    def _require_same(self, path: Path, sensors: tuple[Sensor, ...]) -> None:
        for sensor in sensors:
            folders = ('samples',) if self._options.key_frames else ('samples', 'sweeps')
            for folder in folders:
                (self._root / folder / sensor.channel).mkdir(parents=True, exist_ok=True)
        channels, first = (
            sorted(sensor.channel for sensor in each) for each in (sensors, self.sensors)
        )
        if self.sensors and channels != first:
            raise ConversionError(
                f'{path} has the sensors {", ".join(channels)}, but the first bag has '
                f'{", ".join(first)}: choose common ones with --cameras and --lidar, or convert '
                'to two datasets'
            )
        self.sensors = self.sensors or sensors

    def _write_files(
        self, bag: Bag, name: str, scan: Scan, plan: Plan, sensors: dict[str, Sensor]
    ) -> dict[Measurement, str]:
        """Write the measurements of the plan; return the files of those that are sound."""
        wanted, undistort = _measurements(plan), Undistorter()
        files: dict[Measurement, str] = {}
        bar = tqdm(total=len(wanted), desc=f'writing {name}', unit='file', disable=None)
        with bar:
            for topic, _, data in bag.messages(sensors):
                try:
                    measurement = (topic, read_header(data)[0])
                except ValueError:
                    continue  # counted by the scan
                if measurement not in wanted or measurement in files:
                    continue
                sensor = sensors[topic]
                place = filename(name, sensor, measurement[1], measurement not in plan.sweeps)
                try:
                    if sensor.modality == 'lidar':
                        write_points(self._root / place, data)
                    else:
                        compressed = bag.topics[topic].message_type == COMPRESSED
                        intrinsics = scan.intrinsics[topic]
                        target = self._root / place
                        write_image(
                            target, sensor.channel, data, compressed, intrinsics, undistort
                        )
                except (ValueError, RuntimeError) as error:
                    scan.notes.append(f'a message of {sensor.channel} is left out: it {error}')
                    continue
                files[measurement] = str(place)
                bar.update()
        return files

    def _add_scenes(
        self,
        path: Path,
        name: str,
        scan: Scan,
        plan: Plan,
        sensors: dict[str, Sensor],
        files: dict[Measurement, str],
        frames: Frames,
    ) -> None:
        scenes = plan.scenes()
        if not scenes:
            raise ConversionError(
                f'{path} has no key frame whose messages are all sound: {scan.notes[-1]}'
            )
        left_out, sweeps = Counter[str](), set(plan.sweeps)
        for number, key_frames in enumerate(scenes, start=1):
            scene = name if len(scenes) == 1 else f'{name}-{number:03d}'
            if scene in self.scenes:
                raise ConversionError(f'two bags give the scene {scene}: rename one of them')
            start, stop = (key_frames[end].stamp_ns for end in (0, -1))
            own = {m for m in sweeps if start - 500_000_000 <= m[1] <= stop + 500_000_000}
            sweeps -= own
            writer = SceneWriter(
                scene, scan, frames, sensors, files, self._options.min_score, left_out
            )
            rows = writer.rows(key_frames, sorted(own))
            self._tables.add(rows)
            self.scenes.append(scene)
        self.categories |= self._classes(scan)
        self._remove_unused(plan, sweeps, files)
        scan.notes.append(
            f'{len(plan.key_frames)} key frames in {len(scenes)} scenes, '
            f'{len(plan.sweeps) - len(sweeps)} sweeps'
        )
        for reason, count in left_out.items():
            scan.notes.append(f'{count} annotations are left out: {reason}')

    def _classes(self, scan: Scan) -> set[str]:
        return {
            result.hypothesis.class_id
            for message in scan.annotations.values()
            for detection in message.detections
            for result in detection.results
            if result.hypothesis.class_id
        }

    def _remove_unused(
        self, plan: Plan, unused_sweeps: set[Measurement], files: dict[Measurement, str]
    ) -> None:
        """Remove the files of key frames that are not complete."""
        used = _measurements(plan) - unused_sweeps
        for measurement, place in files.items():
            if measurement not in used:
                (self._root / place).unlink()


def _measurements(plan: Plan) -> set[Measurement]:
    keys = {item for frame in plan.key_frames for item in frame.measurements.items()}
    return keys | plan.sweeps


def _sources(bag: Bag, options: argparse.Namespace) -> Sources:
    topics = bag.topics
    return Sources(
        choose_cameras(topics, options.cameras, options.rectified),
        choose_one(topics, CLOUD, options.lidar, '--lidar'),
        choose_one(topics, DETECTIONS, options.annotations, '--annotations'),
        choose_one(topics, ODOMETRY, options.odometry, '--odometry'),
    )


def _sensors(scan: Scan, sources: Sources, frames: Frames) -> dict[str, Sensor]:
    """Return the sensors by topic; raise ConversionError if tf does not say where one is."""
    sensors = {}
    for camera in sources.cameras:
        intrinsics = scan.intrinsics[camera.image_topic]
        mount = _mount(scan, camera.image_topic, f'camera {camera.channel}', frames)
        size = (intrinsics.width, intrinsics.height)
        if not all(size):
            raise ConversionError(
                f'camera {camera.channel}: CameraInfo has no width and height; calibrate it again'
            )
        mount = mount @ intrinsics.frame_from_camera
        matrix = intrinsics.matrix.tolist()
        sensors[camera.image_topic] = Sensor(camera.channel, 'camera', mount, matrix, size)
    if sources.lidar:
        mount = _mount(scan, sources.lidar, 'the lidar', frames)
        sensors[sources.lidar] = Sensor(LIDAR, 'lidar', mount, [], (0, 0))
    return sensors


def _mount(scan: Scan, topic: str, name: str, frames: Frames) -> np.ndarray:
    try:
        return scan.transforms.latest(frames.base, scan.sensors[topic].frame_id)
    except TransformMissingError as error:
        raise ConversionError(
            f'{name}: {error}; record /tf_static, or set --base-frame'
        ) from error


def convert(options: argparse.Namespace) -> None:
    """Write the dataset.

    Raises:
        ConversionError: a bag cannot be converted, or the dataset exists.
        BagError: a bag cannot be read.
        OSError: a file cannot be written.
    """
    if options.out.exists():
        raise ConversionError(f'{options.out} exists: choose another folder or remove it')
    part = options.out.with_name(f'{options.out.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    (part / options.version).mkdir(parents=True)
    try:
        with TableFiles(part / options.version) as tables:
            converter = BagConverter(part, options, tables)
            for path in options.bag:
                with Bag(path, report) as bag:
                    converter.add(path, bag)
            tables.add(shared_rows(converter.sensors, sorted(converter.categories)))
        splits = json.dumps({SPLIT: converter.scenes})
        (part / options.version / 'splits.json').write_text(splits)
        part.rename(options.out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'bag_to_nuscenes',
        description='Convert rosbag2 recordings to a dataset in nuScenes format.',
    )
    add = parser.add_argument
    add('--bag', type=Path, nargs='+', required=True, help='recordings; each is one drive')
    add('--out', type=Path, required=True, help="the new dataset's folder")
    add('--version', default='v1.0-own', help='folder of the tables (default v1.0-own)')
    add('--cameras', nargs='+', metavar='TOPIC', help='image topics (default: all)')
    add('--rectified', action='store_true', help='no image has lens distortion (default: those '
        'on topics named image_rect...)')  # fmt: skip
    add('--lidar', metavar='TOPIC', help="PointCloud2 (default: the only one); '' for none")
    add('--annotations', metavar='TOPIC', help="Detection3DArray (default: the only one); '' for "
        'none')  # fmt: skip
    add('--min-score', type=float, default=0.0, help='leave out annotations with a lower score')
    add('--odometry', metavar='TOPIC', default='', help='Odometry that replaces tf')
    add('--world-frame', default='map', help='in which the vehicle moves (default map)')
    add('--base-frame', default='base_link', help='of the vehicle (default base_link)')
    add('--slop', type=float, default=0.06, metavar='S',
        help='largest distance of a measurement from its key frame (default 0.06 s)')  # fmt: skip
    add('--key-frames', action='store_true', help='leave out the sweeps between key frames')
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert; ends the process with a sentence and 1 on errors, and with 130 when interrupted."""
    options = _options(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        convert(options)
    except (ConversionError, BagError, OSError) as error:
        sys.exit(f'bag_to_nuscenes: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    print(options.out)


if __name__ == '__main__':
    main()
