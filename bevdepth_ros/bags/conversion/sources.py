"""Chooses which topics of a bag are converted to a dataset."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bevdepth_ros.bags.topics import Topic

COMPRESSED, RAW = 'sensor_msgs/msg/CompressedImage', 'sensor_msgs/msg/Image'
INFO, CLOUD = 'sensor_msgs/msg/CameraInfo', 'sensor_msgs/msg/PointCloud2'
DETECTIONS, ODOMETRY = 'vision_msgs/msg/Detection3DArray', 'nav_msgs/msg/Odometry'


class ConversionError(Exception):
    """A bag cannot be converted to a dataset; the message gives the reason and the remedy."""


@dataclass(frozen=True)
class ImageSource:
    """A camera of the bag.

    Attributes:
        channel: name of the camera in the dataset.
        image_topic: topic of the images, raw or compressed.
        info_topic: topic of the CameraInfo. This topic is in the same namespace as the image
            topic, as image_transport expects.
        rectified: True if the images have no lens distortion.
    """

    channel: str
    image_topic: str
    info_topic: str
    rectified: bool


@dataclass(frozen=True)
class Sources:
    """The topics that are converted.

    Attributes:
        cameras: cameras in the order of ``--cameras``, or sorted by name without this option.
        lidar: topic of the lidar; empty if there is no lidar.
        annotations: topic of type Detection3DArray; empty if there are no annotations.
        odometry: topic of odometry, whose poses are used as ego poses; empty if the ego poses are
            in tf.
    """

    cameras: tuple[ImageSource, ...]
    lidar: str
    annotations: str
    odometry: str


def image_source(topic: str, all_rectified: bool) -> ImageSource:
    """Return the camera of an image topic; ``/front/image_raw/compressed`` is camera ``front``."""
    base = topic.removesuffix('/compressed')
    namespace, _, name = base.rpartition('/')
    channel = re.sub(r'\W+', '_', (namespace or name).strip('/'))
    rectified = all_rectified or name.startswith('image_rect')
    return ImageSource(channel, topic, f'{namespace}/camera_info', rectified)


def choose_cameras(
    topics: Mapping[str, Topic], wanted: Sequence[str] | None, all_rectified: bool
) -> tuple[ImageSource, ...]:
    """Return the cameras of the image topics ``wanted``. If ``wanted`` is None, return all cameras
    that have images and CameraInfo.

    If ``wanted`` is None and a camera has several image topics, the first compressed topic in
    alphabetical order is used, or the first raw topic if no topic is compressed.

    Raises:
        ConversionError: a topic in ``wanted`` has no image messages, ``wanted`` contains several
            topics of one camera, a camera has no CameraInfo, or there is no camera at all.
    """
    if wanted is not None:
        for topic in wanted:
            _require(topics, topic, (COMPRESSED, RAW), '--cameras')
        sources = [image_source(topic, all_rectified) for topic in wanted]
    else:
        sources = _all_cameras(topics, all_rectified)
    if not sources:
        raise ConversionError(
            'the bag has no image topic with CameraInfo: record the topic camera_info in the '
            f'namespace of each image topic; the bag has {_listed(topics)}'
        )
    channels = [source.channel for source in sources]
    for source in sources:
        if channels.count(source.channel) > 1:
            raise ConversionError(_several_topics(source.channel, sources))
        if not _has(topics, source.info_topic, (INFO,)):
            raise ConversionError(
                f'camera {source.channel} has no CameraInfo: the bag has no messages on '
                f'{source.info_topic}; record this topic, or leave out the camera with --cameras'
            )
    return tuple(sources)


def _several_topics(camera: str, sources: Sequence[ImageSource]) -> str:
    topics = ', '.join(source.image_topic for source in sources if source.channel == camera)
    return f'--cameras has several image topics of camera {camera}: {topics}; keep one'


def _all_cameras(topics: Mapping[str, Topic], all_rectified: bool) -> list[ImageSource]:
    found: dict[str, ImageSource] = {}
    for kind in (COMPRESSED, RAW):
        for topic in sorted(name for name in topics if _has(topics, name, (kind,))):
            source = image_source(topic, all_rectified)
            if _has(topics, source.info_topic, (INFO,)):
                found.setdefault(source.channel, source)
    return [found[channel] for channel in sorted(found)]


def choose_one(topics: Mapping[str, Topic], kind: str, wanted: str | None, option: str) -> str:
    """Return ``wanted``, the topic that the user has given with ``option``. If ``wanted`` is None,
    return the only topic of the message type ``kind``, or an empty text if there is no such topic.

    Raises:
        ConversionError: the topic ``wanted`` has no messages of the type ``kind``, or ``wanted``
            is None and there are several topics of this type.
    """
    if wanted is not None:
        if wanted:
            _require(topics, wanted, (kind,), option)
        return wanted
    candidates = sorted(name for name in topics if _has(topics, name, (kind,)))
    if len(candidates) > 1:
        raise ConversionError(
            f'the bag has {kind} on {", ".join(candidates)}: choose one with {option}, or none '
            f"with {option} ''"
        )
    return candidates[0] if candidates else ''


def _has(topics: Mapping[str, Topic], name: str, kinds: Sequence[str]) -> bool:
    return name in topics and topics[name].message_type in kinds and topics[name].count > 0


def _require(topics: Mapping[str, Topic], name: str, kinds: Sequence[str], option: str) -> None:
    if not _has(topics, name, kinds):
        raise ConversionError(
            f'{option}: the bag has no {" or ".join(kinds)} on {name}; it has {_listed(topics)}'
        )


def _listed(topics: Mapping[str, Topic]) -> str:
    lines = [f'{topic.name} ({topic.message_type}, {topic.count})' for topic in topics.values()]
    return ', '.join(sorted(lines)) or 'no topics'
