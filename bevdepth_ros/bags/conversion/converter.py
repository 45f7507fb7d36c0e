"""Adds the scenes of bags to a dataset."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bevdepth_core.nuscenes.table_files import TableFiles
from bevdepth_ros.bags.conversion.file_writer import FileWriter
from bevdepth_ros.bags.conversion.key_frames import PERIOD_NS
from bevdepth_ros.bags.conversion.plan import KeyFrame, Measurement, Plan, make_plan
from bevdepth_ros.bags.conversion.rows import SceneRows, shared_rows
from bevdepth_ros.bags.conversion.scan import Scan, scan_bag
from bevdepth_ros.bags.conversion.sensors import Frames, Sensor, find_sensors
from bevdepth_ros.bags.conversion.sources import (
    CLOUD,
    DETECTIONS,
    ODOMETRY,
    ConversionError,
    Sources,
    choose_cameras,
    choose_one,
)
from bevdepth_ros.bags.reader import Bag


@dataclass(frozen=True)
class Selection:
    """Selects the topics, frames and limits of a conversion.

    Attributes:
        cameras: image topics; None for one image topic of each camera that has a CameraInfo.
        rectified: True if no image has lens distortion.
        lidar: topic of the lidar; empty for no lidar, None for the only topic of type PointCloud2.
        annotations: topic of annotations; empty for no annotations, None for the only topic of
            type Detection3DArray.
        odometry: topic of odometry, whose poses are used as ego poses; empty if the ego poses are
            in tf.
        min_score: annotations with a lower score are left out.
        world_frame: frame in which the vehicle moves; None for the frame of the odometry poses, or
            for ``map`` if no odometry is used.
        base_frame: base frame of the vehicle.
        slop_ns: largest time between a measurement and its key frame, nanoseconds.
        with_sweeps: True to also convert the measurements between key frames.
    """

    cameras: Sequence[str] | None = None
    rectified: bool = False
    lidar: str | None = None
    annotations: str | None = None
    odometry: str = ''
    min_score: float = 0.0
    world_frame: str | None = None
    base_frame: str = 'base_link'
    slop_ns: int = 60_000_000
    with_sweeps: bool = True

    def sources(self, bag: Bag) -> Sources:
        """Return the topics that are converted from a bag.

        Raises:
            ConversionError: see ``choose_cameras`` and ``choose_one``.
        """
        topics = bag.topics
        return Sources(
            choose_cameras(topics, self.cameras, self.rectified),
            choose_one(topics, CLOUD, self.lidar, '--lidar'),
            choose_one(topics, DETECTIONS, self.annotations, '--annotations'),
            choose_one(topics, ODOMETRY, self.odometry, '--odometry'),
        )

    def frames(self, scan: Scan) -> Frames:
        """Return the frames of tf to use for a bag."""
        return Frames(self.world_frame or scan.odometry_frame or 'map', self.base_frame)


class BagConverter:
    """Adds the scenes of bags to a dataset.

    Args:
        root: folder of the dataset.
        selection: topics, frames and limits of the conversion.
        tables: tables of the dataset, to which the converter adds rows.
        report: called with each sentence for the user.

    Attributes:
        scenes: names of the scenes that have been added so far.
    """

    def __init__(
        self, root: Path, selection: Selection, tables: TableFiles, report: Callable[[str], None]
    ) -> None:
        self._root, self._selection = root, selection
        self._tables, self._report = tables, report
        self._sensors: tuple[Sensor, ...] = ()
        self._categories: set[str] = set()
        self.scenes: list[str] = []

    def add(self, path: Path) -> None:
        """Convert one bag.

        Raises:
            ConversionError: a part of the bag is missing or invalid; the message names this part.
            BagError: the bag cannot be read.
            OSError: a file cannot be written.
        """
        try:
            self._convert(path)
        except ConversionError as error:
            raise ConversionError(f'{path}: {error}') from error

    def _convert(self, path: Path) -> None:
        with Bag(path, self._report) as bag:
            sources = self._selection.sources(bag)
            self._report_sources(path, sources)
            scan = scan_bag(bag, sources)
            frames = self._selection.frames(scan)
            sensors = find_sensors(scan, sources, frames)
            self._require_same(tuple(sensors.values()))
            plan = make_plan(
                scan,
                sources,
                frames,
                self._selection.slop_ns,
                self._selection.with_sweeps,
            )
            files = FileWriter(self._root, _name(path), bag, scan, sensors).write(plan)
        complete = plan.without(plan.measurements() - files.keys())
        try:
            used = self._add_scenes(path, scan, complete, sensors, files)
        finally:
            for note in scan.notes:
                self._report(f'{path}: {note}')
        self._remove_unused(files, used)

    def finish(self) -> None:
        """Write the rows that all scenes share."""
        self._tables.add(shared_rows(self._sensors, sorted(self._categories)))

    def _report_sources(self, path: Path, sources: Sources) -> None:
        if not sources.lidar:
            self._report(
                f'{path}: no lidar is converted: training with this dataset has no depth loss'
            )
        if sources.annotations:
            self._report(f'{path}: the boxes on {sources.annotations} become annotations')

    def _require_same(self, sensors: tuple[Sensor, ...]) -> None:
        """Raise ConversionError unless this bag has the same sensors as the first bag."""
        channels, first = (
            sorted(sensor.channel for sensor in group) for group in (sensors, self._sensors)
        )
        if self._sensors and channels != first:
            raise ConversionError(
                f'the bag has the sensors {", ".join(channels)}, but the first bag has '
                f'{", ".join(first)}: choose sensors that all bags have with --cameras and '
                '--lidar, or convert the bags to two datasets'
            )
        self._sensors = self._sensors or sensors

    def _add_scenes(
        self,
        path: Path,
        scan: Scan,
        plan: Plan,
        sensors: dict[str, Sensor],
        files: dict[Measurement, str],
    ) -> set[Measurement]:
        """Add the rows of all scenes; return the measurements that belong to a scene."""
        scenes = plan.scenes()
        if not scenes:
            raise ConversionError(
                'the bag has no key frame in which all messages are valid; the notes above give '
                'the reasons'
            )
        left_out, used = Counter[str](), set[Measurement]()
        for name, key_frames in zip(self._scene_names(path, len(scenes)), scenes, strict=True):
            writer = SceneRows(
                name,
                scan,
                self._selection.frames(scan),
                sensors,
                files,
                self._selection.min_score,
                left_out,
            )
            sweeps = _sweeps_near(key_frames, plan.sweeps - used)
            self._tables.add(writer.rows(key_frames, sorted(sweeps)))
            self.scenes.append(name)
            used |= sweeps
        scan.notes.append(
            f'{len(plan.key_frames)} key frames in {len(scenes)} '
            f'scene{"s" * (len(scenes) != 1)}, {len(used)} sweeps'
        )
        scan.notes += [
            f'{count} annotations are left out: {reason}' for reason, count in left_out.items()
        ]
        self._categories |= scan.class_names()
        return used | plan.key_measurements()

    def _scene_names(self, path: Path, count: int) -> list[str]:
        base = _name(path)
        names = [base] if count == 1 else [f'{base}-{n:03d}' for n in range(1, count + 1)]
        for name in names:
            if name in self.scenes:
                raise ConversionError(
                    f'another bag also creates the scene {name}: rename one of the two bags'
                )
        return names

    def _remove_unused(self, files: dict[Measurement, str], used: set[Measurement]) -> None:
        """Remove the files of measurements that belong to no scene, such as the measurements of
        incomplete key frames.
        """
        for measurement, file in files.items():
            if measurement not in used:
                (self._root / file).unlink()


def _name(path: Path) -> str:
    """Return the name of a bag without the characters that must not be in file names."""
    return re.sub(r'[^\w.-]', '_', path.resolve().name.split('.')[0]).lstrip('.-') or 'bag'


def _sweeps_near(
    key_frames: Sequence[KeyFrame], sweeps: frozenset[Measurement]
) -> set[Measurement]:
    first_ns, last_ns = (key_frames[end].stamp_ns for end in (0, -1))
    return {item for item in sweeps if first_ns - PERIOD_NS <= item[1] <= last_ns + PERIOD_NS}
