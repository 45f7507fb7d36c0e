"""Plans the conversion of a bag: selects the measurements that become key frames, and the
measurements that become sweeps.

The terms of this module:

* Sensor: a camera or the lidar. It is identified by its topic.
* Measurement: one message of a sensor, identified by topic and stamp.
* Ego pose: pose of the base frame in the world frame. Measurements without an ego pose are not
  used.
* Key frame: one measurement of every sensor, all near one time. Key frames of a scene are about
  0.5 s apart.
* Sweep: measurement near a key frame that is in no key frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bevdepth_ros.bags.conversion.key_frames import PERIOD_NS, complete_times, select
from bevdepth_ros.bags.conversion.scan import Scan
from bevdepth_ros.bags.conversion.sensors import Frames
from bevdepth_ros.bags.conversion.sources import ConversionError, Sources
from bevdepth_ros.rig.transforms import TransformMissingError

Measurement = tuple[str, int]
"""Topic and stamp in nanoseconds."""


@dataclass(frozen=True)
class KeyFrame:
    """One sample of the dataset.

    Attributes:
        stamp_ns: time of the sample, nanoseconds.
        measurements: for the topic of every sensor, the stamp of one measurement in nanoseconds.
    """

    stamp_ns: int
    measurements: Mapping[str, int]


@dataclass(frozen=True)
class Plan:
    """Key frames and sweeps of a bag.

    Attributes:
        key_frames: key frames in order of time.
        sweeps: measurements that are in no key frame, have an ego pose, and are at most half a
            second before or after a key frame.
    """

    key_frames: tuple[KeyFrame, ...]
    sweeps: frozenset[Measurement]

    def key_measurements(self) -> set[Measurement]:
        """Return the measurements of all key frames."""
        return {item for frame in self.key_frames for item in frame.measurements.items()}

    def measurements(self) -> set[Measurement]:
        """Return the measurements of key frames and sweeps."""
        return self.key_measurements() | self.sweeps

    def without(self, failed: set[Measurement]) -> Plan:
        """Return the plan without the ``failed`` measurements, and without the key frames that
        contain them.
        """
        kept = tuple(
            frame for frame in self.key_frames if not failed & set(frame.measurements.items())
        )
        return Plan(kept, self.sweeps - failed)

    def scenes(self) -> list[list[KeyFrame]]:
        """Return the key frames scene by scene."""
        stamps = np.array([frame.stamp_ns for frame in self.key_frames], np.int64)
        return [[self.key_frames[index] for index in scene] for scene in select(stamps)]


def make_plan(
    scan: Scan, sources: Sources, frames: Frames, slop_ns: int, with_sweeps: bool
) -> Plan:
    """Plan key frames and sweeps. The stamps of one topic determine the times of the key frames:
    the topic of the annotations; if there are no annotations, the topic of the lidar; if there is
    no lidar either, the topic of the first camera.

    Args:
        scan: stamps and transforms of the bag.
        sources: topics of the bag.
        frames: names of the world frame and the base frame.
        slop_ns: largest difference between the time of a key frame and the stamps of its
            measurements, nanoseconds.
        with_sweeps: if False, the plan has no sweeps.

    Raises:
        ConversionError: there are no ego poses, or there is no time at which every sensor has a
            message.
    """
    sensors = {
        topic: _with_pose(scan, frames, np.array(found.stamps_ns, np.int64))
        for topic, found in scan.sensors.items()
    }
    if not any(len(stamps) for stamps in sensors.values()):
        raise ConversionError(_no_poses(scan, frames))
    if sources.annotations:
        reference, times = sources.annotations, np.array(sorted(scan.annotations), np.int64)
        times = _with_pose(scan, frames, times)
    else:
        reference = sources.lidar or sources.cameras[0].image_topic
        times = sensors[reference]
    times, chosen = complete_times(times, list(sensors.values()), slop_ns)
    if not len(times):
        counts = ', '.join(f'{len(stamps)} on {topic}' for topic, stamps in sensors.items())
        raise ConversionError(
            f'there is no key frame: for each message on {reference}, at least one sensor has no '
            f'message within {slop_ns * 1e-9:g} s '
            f'(messages with an ego pose: {counts}); check the clocks, or raise --slop'
        )
    key_frames = tuple(
        _key_frame(int(times[row]), sensors, chosen[row])
        for scene in select(times)
        for row in scene
    )
    return Plan(key_frames, _sweeps(key_frames, sensors) if with_sweeps else frozenset())


def _key_frame(time_ns: int, sensors: Mapping[str, np.ndarray], chosen: np.ndarray) -> KeyFrame:
    stamps = zip(sensors, chosen.tolist(), strict=True)
    return KeyFrame(time_ns, {topic: int(sensors[topic][index]) for topic, index in stamps})


def _with_pose(scan: Scan, frames: Frames, stamps_ns: np.ndarray) -> np.ndarray:
    """Return the stamps at which tf has the ego pose."""
    has_transform = scan.transforms.has_transform
    return np.array(
        [stamp for stamp in stamps_ns.tolist() if has_transform(frames.world, frames.base, stamp)],
        np.int64,
    )


def _no_poses(scan: Scan, frames: Frames) -> str:
    """Return a message that there are no ego poses, with the reason for the first measurement."""
    stamp = next(iter(scan.sensors.values())).stamps_ns[0]
    try:
        scan.transforms.lookup_at(frames.world, frames.base, stamp)
        reason = ''
    except TransformMissingError as error:
        reason = f'{error}; '
    return (
        f'there are no ego poses: {reason}record /tf, set --world-frame and --base-frame, or '
        'give the topic of the odometry with --odometry'
    )


def _sweeps(
    key_frames: tuple[KeyFrame, ...], sensors: Mapping[str, np.ndarray]
) -> frozenset[Measurement]:
    """Return the measurements that are in no key frame, but at most ``PERIOD_NS`` before or after
    a key frame. ``sensors`` contains the stamps with an ego pose by topic.
    """
    keys = {item for frame in key_frames for item in frame.measurements.items()}
    times = np.array([frame.stamp_ns for frame in key_frames], np.int64)
    return frozenset(
        (topic, stamp)
        for topic, stamps in sensors.items()
        for stamp in stamps.tolist()
        if (topic, stamp) not in keys and np.abs(times - stamp).min() <= PERIOD_NS
    )
