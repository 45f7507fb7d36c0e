"""Subscribes to images and CameraInfo, and groups images into image sets."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from message_filters import Subscriber
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_policy_name_from_kind
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo

from bevdepth_ros.detector.camera_reports import CameraReports
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import ERROR, LOG_PERIOD_S, WARN
from bevdepth_ros.detector.qos import make_qos, overrides
from bevdepth_ros.rig.received_images import received_image
from bevdepth_ros.rig.settings import IMAGE_TYPES, CameraSource
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.synchronizer import ImageSet, ImageSetSynchronizer

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

PAUSE = 0.75
"""If no camera sends an image for this share of ``camera_timeout_s``, this counts as a pause of
all cameras."""
END_OF_STAMP = 12
"""Number of bytes of a serialized message up to the end of its stamp: 4 bytes for the
encapsulation and 8 bytes for the stamp."""
GRAPH_CHECKS = 4
"""Once in this number of calls, ``check`` also checks the publishers of the topics."""


class GuardedSubscriber(Subscriber):
    """Catches exceptions of callbacks, because they would end the executor.

    ``on_error`` is called with the exception if the processing of a message fails. When the next
    message is processed without an error, ``on_error`` is called with None. ``convert`` receives
    the bytes or the message from rclpy, and returns the message for the callbacks.
    """

    def __init__(
        self,
        on_error: Callable[[Exception | None], None],
        *args: Any,
        convert: Callable[[Any], Any] = lambda message: message,
        **kwargs: Any,
    ) -> None:
        self._on_error, self._convert, self._has_failed = on_error, convert, False
        super().__init__(*args, **kwargs)

    def callback(self, msg: Any) -> None:
        try:
            super().callback(self._convert(msg))
        except Exception as error:
            self._has_failed = True
            self._on_error(error)
        else:
            if self._has_failed:
                self._has_failed = False
                self._on_error(None)


class InfoReader:
    """Deserializes CameraInfo. If only the stamp differs from the last message, the last message
    is returned.

    Drivers publish CameraInfo with every image, and rclpy needs 0.2 ms to deserialize a message.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, CameraInfo] | None = None

    def __call__(self, data: bytes) -> CameraInfo:
        if self._last is None or self._last[0] != data[END_OF_STAMP:]:
            try:
                info = deserialize_message(data, CameraInfo)
            except RuntimeError as error:
                raise ValueError('the bytes of the message are not a CameraInfo') from error
            self._last = data[END_OF_STAMP:], info
        return self._last[1]


class Intake:
    """Receives messages in the executor's thread, and passes image sets to ``on_set``."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        monitor: Monitor,
        on_set: Callable[[ImageSet], None],
        on_info: Callable[[str, CameraInfo], None],
        on_image: Callable[[str, Any], None] = lambda camera, message: None,
    ) -> None:
        """Subscribe.

        Args:
            node: node whose executor receives the messages.
            settings: settings of the node. Topics, ``sync_slop_s`` and queue sizes must not
                change.
            monitor: receives counts and problems.
            on_set: called with each image set; must not block.
            on_info: called with the camera's name and each CameraInfo.
            on_image: called with the camera's name and each image when the image arrives; must
                not block.

        Raises:
            rclpy.exceptions.InvalidTopicNameException: a topic name is invalid.
        """
        self._node, self._settings, self._monitor = node, settings, monitor
        self._on_set, self._on_info, self._on_image = on_set, on_info, on_image
        self._sources = settings.camera_sources
        self._subscribers: list[GuardedSubscriber] = []
        self._last_set_ns = self._checks = 0
        self._timeout_s = settings.camera_timeout_s
        self._sources_with_info_topic = [one for one in self._sources if not one.info_file]
        self._latched: set[CameraSource] = set()
        try:
            images = [self._subscribe_images(source) for source in self._sources]
            for source in self._sources_with_info_topic:
                self._subscribe_info(source)
        except Exception:
            self.close()
            raise
        self._synchronizer = ImageSetSynchronizer(
            images,
            settings.sync_queue_size,
            settings.sync_slop_s,
            settings.untriggered_cameras == 'newest',
        )
        self._synchronizer.registerCallback(self._take_set)
        self._reports = CameraReports(node, settings, monitor, self._synchronizer)

    def close(self) -> None:
        """End the subscriptions."""
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers.clear()

    def flush(self) -> None:
        """Form the complete image sets that are still waiting. The synchronizer delays complete
        sets until further images confirm the offsets or the rate of the cameras.
        """
        self._synchronizer.flush()

    def report_no_sets(self) -> None:
        """If no image set was formed in this activation, report the reason."""
        if not self._monitor.sets_received():
            self._reports.report_no_sets(self._monitor.unseen())

    def reset(self) -> None:
        """Drop the images that are not in an image set yet, because the node's clock went back."""
        self._synchronizer.reset()
        self._last_set_ns = 0

    def check(self, timeout_s: float) -> None:
        """Exclude and report cameras that sent no image for ``timeout_s`` seconds, and cameras
        whose stamps do not fit the stamps of the other cameras.
        """
        self._timeout_s = timeout_s
        names = [source.name for source in self._sources]
        silent = {name for name in names if self._monitor.is_silent(name, timeout_s)}
        if not self._monitor.startup_is_over():
            self._reports.note_reasons(self._monitor.unseen())
        # When all cameras stop, they exceed the timeout at slightly different times. Until the
        # last camera has exceeded the timeout, the report of silent cameras does not change,
        # because it would name only some of the cameras.
        has_paused = self._monitor.has_paused(PAUSE * timeout_s)
        if not has_paused or len(silent) in (0, len(names)):
            self._reports.report_silent(silent)
        if not has_paused and self._monitor.startup_is_over():
            indices = [index for index, one in enumerate(self._sources) if one.name in silent]
            self._synchronizer.check(indices, timeout_s)
            self._reports.report_misaligned()
            self._reports.report_sets(timeout_s)
        else:
            self._synchronizer.check((), math.inf)
        for source, camera in zip(self._sources, self._synchronizer.cameras, strict=True):
            self._monitor.images_ignored(source.name, camera.ignored)
        self._checks += 1
        if self._checks % GRAPH_CHECKS == 0:
            self._reports.report_shared_topics()
            self._subscribe_latched_infos()

    # Subscriptions

    def _subscribe_images(self, source: CameraSource) -> GuardedSubscriber:
        message_type = IMAGE_TYPES[self._settings.image_transport]
        subscriber = self._subscribe(
            message_type,
            source.image_topic,
            make_qos(self._settings.image_queue_size, self._settings.image_reliability),
            raw=True,
            convert=partial(received_image, message_type=message_type),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=partial(self._report_qos, source)
            ),
        )
        subscriber.registerCallback(self._take_image, source)
        return subscriber

    def _subscribe_info(self, source: CameraSource) -> None:
        """Subscribe to CameraInfo with a QoS that is compatible with every publisher. This
        subscription does not receive messages that latched publishers sent earlier.
        """
        self._receive_infos(source, make_qos(1, 'best_effort'))

    def _receive_infos(self, source: CameraSource, qos: QoSProfile) -> None:
        """Subscribe to CameraInfo of a camera, and pass each message to ``on_info``."""
        subscriber = self._subscribe(
            CameraInfo, source.info_topic, qos, raw=True, convert=InfoReader()
        )
        subscriber.registerCallback(partial(self._on_info, source.name))

    def _subscribe_latched_infos(self) -> None:
        """Subscribe to latched CameraInfo of the cameras that have a latched publisher. If the
        publisher is not latched, a latched subscription would cause a warning about the QoS in
        the logs of the publisher and of this node.
        """
        for source in set(self._sources_with_info_topic) - self._latched:
            publishers = self._node.get_publishers_info_by_topic(source.info_topic)
            durabilities = {one.qos_profile.durability for one in publishers}
            if DurabilityPolicy.TRANSIENT_LOCAL in durabilities:
                self._latched.add(source)
                qos = make_qos(1, 'reliable', DurabilityPolicy.TRANSIENT_LOCAL)
                self._receive_infos(source, qos)

    def _subscribe(
        self, message_type: type, topic: str, qos: QoSProfile, **options: Any
    ) -> GuardedSubscriber:
        if qos.durability == DurabilityPolicy.VOLATILE:
            options['qos_overriding_options'] = overrides(self._node, topic, 'subscription')
        subscriber = GuardedSubscriber(
            partial(self._report_failure, message_type.__name__, topic),
            self._node,
            message_type,
            topic,
            qos_profile=qos,
            **options,
        )
        self._subscribers.append(subscriber)
        return subscriber

    def _take_image(self, message: Any, source: CameraSource) -> None:
        """Count an image, and pass the image to ``on_image``. Report an image without a stamp."""
        stamp = stamp_ns(message)
        if stamp <= 0:
            topic = self._node.resolve_topic_name(source.image_topic)
            sentence = (
                f'images on {topic} have no time stamp or a time stamp before 1970, and cannot be '
                'used: the publisher must fill in header.stamp'
            )
            self._monitor.report(f'stamp/{source.name}', 'cameras', ERROR, sentence)
            return
        self._monitor.solved(f'stamp/{source.name}', f'qos/{source.name}')
        if self._monitor.has_paused(PAUSE * self._timeout_s):
            self._monitor.cameras_resumed()
            self._reports.restart_loss()
        self._monitor.image_arrived(source.name, stamp)
        self._on_image(source.name, message)

    def _take_set(self, images: ImageSet) -> None:
        mean_ns = int(images.stamps_ns.mean())
        if mean_ns < self._last_set_ns:
            sentence = 'the stamps of images went backwards: the stored past frames are dropped'
            self._node.get_logger().warning(sentence, throttle_duration_sec=LOG_PERIOD_S)
        self._last_set_ns = mean_ns
        self._on_set(images)

    def _report_failure(self, message_type: str, topic: str, error: Exception | None) -> None:
        """Report that a message could not be processed. If ``error`` is None, a later message was
        processed, and the report ends.
        """
        if error is None:
            self._monitor.solved(f'message/{topic}')
            return
        sentence = (
            f'a {message_type} message on {self._node.resolve_topic_name(topic)} could not be '
            f'processed: {type(error).__name__}: {error}; check the publisher'
        )
        self._monitor.report(f'message/{topic}', 'sets', ERROR, sentence)

    def _report_qos(self, source: CameraSource, event: Any) -> None:
        """Report that a publisher does not offer the QoS that the image subscription requests."""
        topic = self._node.resolve_topic_name(source.image_topic)
        policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
        sentence = (
            f'the publisher of {topic} is best effort, so its images are not received: set '
            'image_reliability to best_effort'
            if policy == 'reliability'
            else f'the publisher of {topic} does not offer the requested {policy}, so its images '
            f'are not received: correct qos_overrides.{topic}.subscription.{policy}'
        )
        self._monitor.report(f'qos/{source.name}', 'cameras', WARN, sentence)
