"""The node's ears: subscriptions to images and CameraInfo, matched into sets, with a watch over what stays away."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from functools import partial

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevdepth_ros.diagnostics import ERROR, LOG_PERIOD_S, WARN, Monitor
from bevdepth_ros.parameters import CameraSource, Settings
from bevdepth_ros.synchronizer import ImageSet, ImageSynchronizer, stamp_ns

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

IMAGE_TYPES = {'compressed': CompressedImage, 'raw': Image}


class Intake:
    """Takes messages in the executor's thread and hands complete sets on; no callback raises."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        monitor: Monitor,
        on_set: Callable[[ImageSet], None],
        on_info: Callable[[str, CameraInfo], None],
        on_jump_back: Callable[[], None],
    ):
        """Subscribe.

        Args:
            node: whose executor takes the messages.
            settings: topics, slop and queue sizes, fixed for the life of this object.
            monitor: is told of every image and of what stays away.
            on_set: receives complete sets; must return at once.
            on_info: receives the camera's name and each CameraInfo.
            on_jump_back: called when time goes backwards.

        Raises:
            rclpy.exceptions.InvalidTopicNameException: a topic name that ROS does not allow.
        """
        self._node, self._settings, self._monitor = node, settings, monitor
        self._on_info, self._on_jump_back = on_info, on_jump_back
        self._synchronizer = ImageSynchronizer(
            len(settings.cameras), settings.sync_queue_size, settings.sync_slop_s, on_set, self._failed, self._jumped_back
        )
        self._subscriptions = []
        try:
            self._subscribe_all()
        except Exception:
            self.close()
            raise

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()

    def reset(self) -> None:
        """Forget images that wait for their set."""
        self._synchronizer.reset()

    def check(self, timeout_s: float) -> None:
        """Report cameras silent for ``timeout_s`` seconds, and cameras that speak but never at the same time."""
        sources = self._settings.camera_sources
        silences = {source: self._monitor.silence_s(source.name) for source in sources}
        silent = [source for source in sources if silences[source] > timeout_s]
        if len(silent) == len(sources) > 1:
            self._monitor.solved(*(f'silent/{source.name}' for source in sources), quietly=True)
            self._monitor.report('silent', 'cameras', ERROR, f'all cameras are silent; {self._silence_sentence(sources[0])}')
        elif not silent or min(silences.values()) < timeout_s / 2:  # otherwise all are about to be called silent
            self._check_each(silent)
            self._check_sets(not silent and self._monitor.setless_s() > timeout_s)

    def _check_each(self, silent: list[CameraSource]) -> None:
        self._monitor.solved('silent')
        for source in self._settings.camera_sources:
            if source in silent:
                self._monitor.report(f'silent/{source.name}', 'cameras', ERROR, self._silence_sentence(source))
            else:
                self._monitor.solved(f'silent/{source.name}')

    def _check_sets(self, missing: bool) -> None:
        if missing:
            self._monitor.report('unmatched', 'sets', ERROR, self._mismatch_sentence())
        else:
            self._monitor.solved('unmatched')

    def _subscribe_all(self) -> None:
        for index, source in enumerate(self._settings.camera_sources):
            self._subscribe_images(index, source)
            if not source.info_file:
                self._subscribe(CameraInfo, source.info_topic, _qos(1, 'best_effort'), partial(self._on_info, source.name))

    def _subscribe_images(self, index: int, source: CameraSource) -> None:
        events = SubscriptionEventCallbacks(incompatible_qos=lambda _: self._incompatible(source))
        qos = _qos(self._settings.image_queue_size, self._settings.image_reliability)
        message_type = IMAGE_TYPES[self._settings.image_transport]
        self._subscribe(message_type, source.image_topic, qos, partial(self._take_image, index, source), events)

    def _subscribe(self, message_type, topic: str, qos: QoSProfile, take: Callable, events=None) -> None:
        def callback(message) -> None:
            try:
                take(message)
            except Exception as error:  # an exception in a callback would end the node
                self._failed(error)

        self._subscriptions.append(self._node.create_subscription(message_type, topic, callback, qos, event_callbacks=events))

    def _take_image(self, index: int, source: CameraSource, message) -> None:
        stamp = stamp_ns(message)
        if stamp <= 0:
            sentence = f'images on {source.image_topic} have no time stamp and cannot be used: the publisher must fill in header.stamp'
            self._monitor.report(f'stamp/{source.name}', 'cameras', ERROR, sentence)
            return
        self._monitor.solved(f'stamp/{source.name}', f'qos/{source.name}')
        self._monitor.image_arrived(source.name, stamp)
        self._synchronizer.add(index, message)

    def _jumped_back(self) -> None:
        sentence = 'image stamps went backwards: past frames and tf are forgotten'
        self._node.get_logger().warning(sentence, throttle_duration_sec=LOG_PERIOD_S)
        self._on_jump_back()

    def _failed(self, error: Exception) -> None:
        self._monitor.report('message', 'sets', ERROR, f'a message could not be taken: {type(error).__name__}: {error}')

    def _incompatible(self, source: CameraSource) -> None:
        sentence = f'a best-effort publisher of {source.image_topic} is not heard: set image_reliability to best_effort'
        self._monitor.report(f'qos/{source.name}', 'cameras', WARN, sentence)

    def _silence_sentence(self, source: CameraSource) -> str:
        publishers = self._node.get_publishers_info_by_topic(source.image_topic)
        silence = f'no image of {source.name} on {source.image_topic} for {self._monitor.silence_s(source.name):.1f} s'
        if not publishers:
            return f'{silence}: nobody publishes it; start the camera or set image_topics'
        wanted = IMAGE_TYPES[self._settings.image_transport].__name__
        offered = {info.topic_type.rsplit('/', 1)[-1] for info in publishers}
        if wanted not in offered:
            return f'{silence}: it is published as {", ".join(sorted(offered))}, not {wanted}; set image_transport'
        reliable = any(info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers)
        if self._settings.image_reliability == 'reliable' and not reliable:
            return f'{silence}: its publisher is best effort and not heard; set image_reliability to best_effort'
        return f'{silence}, although it has a publisher'

    def _mismatch_sentence(self) -> str:
        newest = self._monitor.newest_stamps_ns()
        middle = statistics.median(newest.values())
        camera = max(newest, key=lambda name: abs(newest[name] - middle))
        offset = (newest[camera] - middle) * 1e-9
        return (
            f'all cameras publish, but no set fits into sync_slop_s ({self._settings.sync_slop_s} s): the newest stamp of {camera} is '
            f'{offset:+.3f} s from the others; synchronise the clocks or raise sync_slop_s'
        )


def _qos(depth: int, reliability: str) -> QoSProfile:
    policy = ReliabilityPolicy.RELIABLE if reliability == 'reliable' else ReliabilityPolicy.BEST_EFFORT
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=policy, durability=DurabilityPolicy.VOLATILE)
