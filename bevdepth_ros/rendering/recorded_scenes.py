"""Yields the scenes of a rosbag2 in order of time. The scenes contain the recorded detections, the
detections that a detector computes from the recorded images, or no detections.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from message_filters import SimpleFilter
from rclpy.logging import get_logger
from rclpy.serialization import deserialize_message

from bevdepth_core.inference import Detector
from bevdepth_core.types import Frame
from bevdepth_core.visualization import DepthMaps, expected_depth
from bevdepth_ros.bags.message_classes import message_class
from bevdepth_ros.bags.reader import LATEST_NS, Bag
from bevdepth_ros.bags.recorded_transforms import RecordedTransforms
from bevdepth_ros.rendering.scene import SAME_SET_NS, Scene, SceneStore
from bevdepth_ros.rig.frames import FrameBuilder
from bevdepth_ros.rig.ground import detections_in_base, frame_on_ground
from bevdepth_ros.rig.settings import RigSettings
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.synchronizer import ImageSet, ImageSetSynchronizer

ANNOTATIONS_TOPIC = '/annotations'
SECOND_BEFORE_NS = 1_000_000_000
"""Reading of images begins this time before the start of the scenes, in nanoseconds, so that the
first scene has a past frame."""
SILENT_NS = 3_000_000_000
"""If a camera has no image for this time, in nanoseconds, image sets are formed without
this camera."""
DECODE_TIMEOUT_S = 60.0
"""Longest time to decode the images of a set, in seconds. It is long, because no image of a
recording may be lost."""
MAX_DURATION_S = 1e9
"""Longer durations are reduced to this, in seconds, because times are converted to integers in
nanoseconds."""


@dataclass(frozen=True)
class _Moment:
    """Time of a scene. If a detector runs, ``frame`` is the frame that the detector used. The
    scene uses the same frame, so the images are decoded only once.
    """

    stamp_ns: int
    frame: Frame | None = None
    depth: DepthMaps | None = None


class RecordedScenes:
    """The scenes of one bag; use it as a context manager.

    Attributes:
        has_detections: True if objects of the detector were recorded.
        start_ns, end_ns: log times of the first and of the last message of the bag, nanoseconds.
    """

    def __init__(
        self,
        path: Path,
        settings: RigSettings,
        detector_name: str,
        panel_width: int,
        detections_bag: Path | None = None,
    ):
        """Open the bag; entering the context reads tf, calibration, annotations and detections.

        Args:
            path: folder or file of a rosbag2.
            settings: cameras and frames.
            detector_name: name of the node whose objects were recorded.
            panel_width: see ``SceneStore``.
            detections_bag: folder or file of another rosbag2 that contains the recorded objects.
        """
        self._bag, self._detections_bag = Bag(path, _report), detections_bag
        self._settings = replace(settings, decode_timeout_s=DECODE_TIMEOUT_S)
        self._objects_topic = f'{detector_name}/objects'
        self._label_topic = f'{detector_name}/label_info'
        self._transforms = RecordedTransforms((self._bag.end_ns - self._bag.start_ns) * 1e-9)
        self._store = SceneStore(self._settings, self._transforms, panel_width)

    def __enter__(self) -> RecordedScenes:
        self._recorded = self._read_small_topics()
        return self

    def __exit__(self, *exception: object) -> None:
        self._bag.close()
        self._store.close()

    @property
    def has_detections(self) -> bool:
        return bool(self._recorded)

    @property
    def start_ns(self) -> int:
        return self._bag.start_ns

    @property
    def end_ns(self) -> int:
        return self._bag.end_ns

    def absent_topics(self) -> dict[str, list[str]]:
        """Return, for each camera, its image and CameraInfo topics that are not in the bag."""
        return {
            source.name: [
                topic
                for topic in (source.image_topic, '' if source.info_file else source.info_topic)
                if topic and topic not in self._bag.topics
            ]
            for source in self._settings.camera_sources
        }

    def _read_small_topics(self) -> dict:
        """Read tf, calibration, class names and annotations of the bag; return the recorded
        objects by stamp.
        """
        store, objects = self._store, {}
        handlers = {
            '/tf': lambda message: self._transforms.add(message, static=False),
            '/tf_static': lambda message: self._transforms.add(message, static=True),
            ANNOTATIONS_TOPIC: store.add_annotations,
            self._label_topic: store.add_label_info,
            self._objects_topic: lambda message: objects.update({stamp_ns(message): message}),
        }
        if self._settings.odometry_topic:
            handlers[self._settings.odometry_topic] = self._transforms.add_odometry
        handlers |= {
            source.info_topic: partial(store.add_info, source.name)
            for source in self._settings.camera_sources
        }
        for topic, message in _messages(self._bag, set(handlers)):
            handlers[topic](message)
        if self._detections_bag is not None:
            with Bag(self._detections_bag, _report) as bag:
                for topic, message in _messages(bag, {self._label_topic, self._objects_topic}):
                    handlers[topic](message)
        return objects

    def scenes(
        self,
        start_s: float,
        duration_s: float,
        detector: Detector | None,
        with_depth: bool = False,
    ) -> Iterator[Scene]:
        """Yield one scene per recorded result. If ``detector`` is given, or if the bag contains no
        results, yield one scene per image set.

        Args:
            start_s: number of seconds to skip at the beginning of the bag. A detector also
                processes the last skipped second, so that the first scene has a past frame.
            duration_s: length of the part of the bag to use, seconds.
            detector: the detector that processes the images; if None, the recorded detections are
                used.
            with_depth: if True, the scenes contain the depth that ``detector`` predicts.
        """
        begin_ns = self._bag.start_ns + round(start_s * 1e9)
        end_ns = begin_ns + round(min(duration_s, MAX_DURATION_S) * 1e9)
        topics = {
            source.image_topic: index for index, source in enumerate(self._settings.camera_sources)
        }
        use_recorded = detector is None and self.has_detections
        waiting: deque[_Moment] = (
            deque(_Moment(stamp) for stamp in sorted(self._recorded)) if use_recorded else deque()
        )
        # The scenes have the times of the recorded detections, or else of the image sets.
        synchronizer = None if use_recorded else self._synchronizer(detector, with_depth, waiting)
        check_ns = 0
        for topic, message in _messages(
            self._bag, set(topics), begin_ns - SECOND_BEFORE_NS, end_ns + 2 * SAME_SET_NS
        ):
            camera = topics[topic]
            self._store.add_image(self._settings.cameras[camera], message)
            if synchronizer is not None:
                synchronizer.add(message, camera)
                # Once per SILENT_NS of recorded time, cameras without images are excluded.
                check_ns = check_ns or stamp_ns(message) + SILENT_NS
                if stamp_ns(message) > check_ns:
                    synchronizer.check(_silent(synchronizer, check_ns), math.inf)
                    check_ns += SILENT_NS
            # The last image of a scene is at most SAME_SET_NS later than the time of the scene.
            while waiting and stamp_ns(message) > waiting[0].stamp_ns + SAME_SET_NS:
                yield from self._scene(waiting.popleft(), begin_ns, end_ns)
        if synchronizer is not None:
            synchronizer.flush()
        while waiting:
            yield from self._scene(waiting.popleft(), begin_ns, end_ns)

    def _synchronizer(
        self, detector: Detector | None, with_depth: bool, waiting: deque[_Moment]
    ) -> ImageSetSynchronizer:
        """Return a synchronizer that appends a moment to ``waiting`` for each image set. If a
        ``detector`` is given, the objects in the image set are first detected and stored.
        """
        builder = FrameBuilder(lambda: self._settings, self._transforms)
        for camera, info in self._store.infos.items():
            builder.take_info(camera, info)

        def take(images: ImageSet) -> None:
            if detector is None:
                waiting.append(_Moment(int(images.stamps_ns.mean(dtype=np.float64))))
                return
            built = builder.build(images)
            if built.frame is None:
                return
            height_m = self._settings.base_frame_height_m
            detections = detections_in_base(
                detector(frame_on_ground(built.frame, height_m)), height_m
            )
            self._store.add_detections(detections)
            depth = _depth_maps(detector) if with_depth else None
            waiting.append(_Moment(detections.stamp_ns, built.frame, depth))

        settings = self._settings
        synchronizer = ImageSetSynchronizer(
            [SimpleFilter() for _ in settings.cameras],
            settings.sync_queue_size,
            settings.sync_slop_s,
        )
        synchronizer.registerCallback(take)
        topics = (source.image_topic for source in settings.camera_sources)
        synchronizer.check(
            [index for index, topic in enumerate(topics) if topic not in self._bag.topics],
            math.inf,
        )
        return synchronizer

    def _scene(self, moment: _Moment, begin_ns: int, end_ns: int) -> Iterator[Scene]:
        """Yield the scene at ``moment``. Yield nothing if the moment is not at or after
        ``begin_ns`` and before ``end_ns``, or if there are no usable images.
        """
        if not begin_ns <= moment.stamp_ns < end_ns:
            return
        if moment.stamp_ns in self._recorded:
            self._store.add_objects(self._recorded[moment.stamp_ns])
        scene = self._store.scene(moment.stamp_ns, moment.frame)
        if scene is not None:
            yield replace(scene, depth=moment.depth, latency_s=None)


def _silent(synchronizer: ImageSetSynchronizer, now_ns: int) -> list[int]:
    """Return the indices of the cameras that sent no image in the last ``SILENT_NS`` nanoseconds
    before ``now_ns``.
    """
    return [
        index
        for index, camera in enumerate(synchronizer.cameras)
        if camera.newest_ns < now_ns - SILENT_NS
    ]


def _messages(
    bag: Bag, topics: set[str], start_ns: int = 0, stop_ns: int = LATEST_NS
) -> Iterator[tuple[str, Any]]:
    """Yield the topic and the deserialized message of each message on ``topics``."""
    for topic, _, data in bag.messages(topics, start_ns, stop_ns):
        yield topic, deserialize_message(data, message_class(bag.topics[topic].message_type))


def _report(sentence: str) -> None:
    get_logger('bag').warning(sentence)


def _depth_maps(detector: Detector) -> DepthMaps:
    assert detector.depth is not None  # the caller of ``scenes`` has set detector.keep_depth
    config = detector.config
    return DepthMaps(
        expected_depth(detector.depth, config.depth_bins), config.depth_bins, config.image
    )
