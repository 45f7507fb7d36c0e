"""First pass through a bag: reads stamps, calibrations, transforms and annotations."""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo
from tf2_msgs.msg import TFMessage
from tqdm import tqdm
from vision_msgs.msg import Detection3DArray

from bevdepth_ros.bags.conversion.sources import ConversionError, ImageSource, Sources
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.bags.recorded_transforms import RecordedTransforms
from bevdepth_ros.rig.intrinsics import Intrinsics, intrinsics_from_info
from bevdepth_ros.rig.stamps import stamp_ns

_HEADER = 'iII'
_HEADER_BYTES = 4 + struct.calcsize(_HEADER)
_MAX_FRAME_BYTES = 256


@dataclass
class Measurements:
    """The messages of one sensor.

    Attributes:
        frame_id: the first frame id that is not empty.
        stamps_ns: header stamps, nanoseconds; they are sorted and unique after the scan.
    """

    frame_id: str = ''
    stamps_ns: list[int] = field(default_factory=list)


@dataclass
class Scan:
    """Content of a bag except images and points.

    Attributes:
        sensors: measurements of the cameras and of the lidar, by topic.
        intrinsics: intrinsics of the cameras, by image topic.
        transforms: transforms from tf and odometry of the whole bag.
        annotations: detections by stamp, nanoseconds.
        odometry_frame: frame of the poses from odometry; empty if odometry is not used.
        notes: sentences for the user.
    """

    sensors: dict[str, Measurements]
    intrinsics: dict[str, Intrinsics]
    transforms: RecordedTransforms
    annotations: dict[int, Detection3DArray]
    odometry_frame: str
    notes: list[str]

    def class_names(self) -> set[str]:
        """Return the names of all classes in the annotations."""
        return {
            result.hypothesis.class_id
            for message in self.annotations.values()
            for detection in message.detections
            for result in detection.results
            if result.hypothesis.class_id
        }


def read_header(data: bytes) -> tuple[int, str]:
    """Return the stamp in nanoseconds and the frame id of a serialized message that begins with a
    header.

    Raises:
        ValueError: the header is incomplete or damaged, or the frame id is not valid text.
    """
    if len(data) < _HEADER_BYTES:
        raise ValueError('it has no header')
    order = '<' if data[1] & 1 else '>'
    seconds, nanoseconds, length = struct.unpack_from(order + _HEADER, data, 4)
    text = data[_HEADER_BYTES : _HEADER_BYTES + length]
    if not 1 <= length <= _MAX_FRAME_BYTES or len(text) < length or seconds < 0:
        raise ValueError('its header is damaged')
    return seconds * 10**9 + nanoseconds, text[:-1].decode()


def scan_bag(bag: Bag, sources: Sources) -> Scan:
    """Read the content of a bag, except images and points.

    Raises:
        ConversionError: a calibration is missing or invalid, or a sensor has no readable message.
    """
    scanner = _Scanner(sources, (bag.end_ns - bag.start_ns) * 1e-9)
    names = {'/tf', '/tf_static', *scanner.handlers}
    total = sum(topic.count for name, topic in bag.topics.items() if name in names)
    messages = bag.messages(names)
    for topic, _, data in tqdm(
        messages, 'reading bag', total, unit='message', leave=False, disable=None
    ):
        scanner.take(topic, data)
    return scanner.result()


class _Scanner:
    """Collects the content of the messages of a bag."""

    def __init__(self, sources: Sources, duration_s: float) -> None:
        self._sources = sources
        self._infos: dict[str, CameraInfo] = {}
        self._invalid, self._changed = Counter[str](), set[str]()
        self._annotations: dict[int, Detection3DArray] = {}
        self._transforms = RecordedTransforms(duration_s)
        self._odometry_frame = ''
        topics = [source.image_topic for source in sources.cameras]
        topics += [sources.lidar] if sources.lidar else []
        self._sensors = {topic: Measurements() for topic in topics}
        self.handlers = {
            **dict.fromkeys(topics, self._take_measurement),
            **{source.info_topic: self._take_info for source in sources.cameras},
        }
        if sources.annotations:
            self.handlers[sources.annotations] = self._take_annotations
        if sources.odometry:
            self.handlers[sources.odometry] = self._take_odometry

    def take(self, topic: str, data: bytes) -> None:
        """Add the content of a message. If the message cannot be read, count it as damaged."""
        try:
            self.handlers.get(topic, self._take_tf)(topic, data)
        except Exception:  # damaged messages cause exceptions of many types
            self._invalid[topic] += 1

    def _take_tf(self, topic: str, data: bytes) -> None:
        message = deserialize_message(data, TFMessage)
        self._transforms.add(message, static=topic == '/tf_static')

    def _take_odometry(self, topic: str, data: bytes) -> None:
        message = deserialize_message(data, Odometry)
        self._transforms.add_odometry(message)
        self._odometry_frame = message.header.frame_id

    def _take_annotations(self, topic: str, data: bytes) -> None:
        message = deserialize_message(data, Detection3DArray)
        self._annotations[stamp_ns(message)] = message

    def _take_info(self, topic: str, data: bytes) -> None:
        info = deserialize_message(data, CameraInfo)
        first = self._infos.setdefault(topic, info)
        if _calibration(first) != _calibration(info):
            self._changed.add(topic)

    def _take_measurement(self, topic: str, data: bytes) -> None:
        stamp, frame_id = read_header(data)
        measurements = self._sensors[topic]
        measurements.stamps_ns.append(stamp)
        measurements.frame_id = measurements.frame_id or frame_id

    def result(self) -> Scan:
        """Return the result of the scan.

        Raises:
            ConversionError: see ``scan_bag``.
        """
        for topic, measurements in self._sensors.items():
            measurements.stamps_ns = sorted(set(measurements.stamps_ns))
            if not measurements.stamps_ns:
                raise ConversionError(
                    f'all messages on {topic} are damaged; leave out this topic with --cameras '
                    'or --lidar'
                )
        notes = [
            f'{count} damaged messages on {topic} are left out'
            for topic, count in sorted(self._invalid.items())
        ]
        notes += [
            f'the calibration on {topic} changes during the recording; the first calibration is '
            'used for all images'
            for topic in sorted(self._changed)
        ]
        intrinsics = {
            s.image_topic: self._intrinsics(s.info_topic, s) for s in self._sources.cameras
        }
        return Scan(
            self._sensors,
            intrinsics,
            self._transforms,
            self._annotations,
            self._odometry_frame,
            notes,
        )

    def _intrinsics(self, topic: str, source: ImageSource) -> Intrinsics:
        if topic not in self._infos:
            raise ConversionError(
                f'camera {source.channel} has no CameraInfo: no message on {topic} can be read; '
                'record this topic, or leave out the camera with --cameras'
            )
        try:
            return intrinsics_from_info(self._infos[topic], source.rectified)
        except ValueError as error:
            raise ConversionError(f'camera {source.channel} {error}') from error


def _calibration(info: CameraInfo) -> tuple:
    arrays = (np.asarray(values).tobytes() for values in (info.k, info.d, info.p, info.r))
    return (info.width, info.height, info.distortion_model, *arrays)
