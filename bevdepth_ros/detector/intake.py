"""The node's ears: subscriptions to images and CameraInfo, matched into sets, with a watch over
what stays away.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from bevdepth_ros.detector.arrival_watch import ArrivalWatch
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import ERROR, LOG_PERIOD_S, WARN
from bevdepth_ros.rig.settings import IMAGE_TYPES, CameraSource
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.synchronizer import ImageSet, ImageSynchronizer

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks


class Intake:
    """Takes messages in the executor's thread and hands complete sets on; no callback raises."""

    def __init__(
        self,
        node: Node,
        settings: Settings,
        monitor: Monitor,
        on_set: Callable[[ImageSet], None],
        on_info: Callable[[str, CameraInfo], None],
    ):
        """Subscribe.

        Args:
            node: whose executor takes the messages.
            settings: topics, slop and queue sizes, fixed for the life of this object.
            monitor: is told of every image and of what stays away.
            on_set: receives sets; must return at once.
            on_info: receives the camera's name and each CameraInfo.

        Raises:
            rclpy.exceptions.InvalidTopicNameException: a topic name that ROS does not allow.
        """
        self._node, self._settings, self._monitor = node, settings, monitor
        self._on_set, self._on_info = on_set, on_info
        self._sources = settings.camera_sources
        self._synchronizer = ImageSynchronizer(
            len(self._sources),
            settings.sync_queue_size,
            settings.sync_slop_s,
            self._take_set,
            self._may_return,
        )
        self._watch = ArrivalWatch(len(self._sources), settings.sync_slop_s)
        self._usual_offsets: dict[int, float] = {}
        self._clock_off: set[int] = set()
        self._apart: set[int] = set()
        self._last_set_ns = 0
        self._members_since = time.monotonic()
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
        """Let sets go on without cameras that are silent for ``timeout_s`` seconds or agree with
        no other, and say so.
        """
        silences = {source: self._monitor.silence_s(source.name) for source in self._sources}
        silent = [source for source in self._sources if silences[source] > timeout_s]
        if len(silent) == len(self._sources) > 1:
            self._monitor.solved(
                *(f'silent/{source.name}' for source in self._sources), quietly=True
            )
            self._monitor.report(
                'silent',
                'cameras',
                ERROR,
                f'all cameras are silent; {self._silence_sentence(self._sources[0])}',
            )
        elif (
            not silent or min(silences.values()) < timeout_s / 2
        ):  # otherwise all are about to be called silent
            self._check_each(silent)
            if not self._monitor.begun():
                return
            self._change_members(
                lambda: self._synchronizer.keep(self._indices(set(self._sources) - set(silent)))
            )
            self._check_sets(timeout_s)

    def _indices(self, sources) -> list[int]:
        return [index for index, source in enumerate(self._sources) if source in sources]

    def _change_members(self, change: Callable[[], object]) -> None:
        before = set(self._synchronizer.members)
        change()
        if self._synchronizer.members != before:
            self._members_since = time.monotonic()

    def _check_each(self, silent: list[CameraSource]) -> None:
        self._monitor.solved('silent')
        for source in self._sources:
            if source in silent:
                self._monitor.report(
                    f'silent/{source.name}', 'cameras', ERROR, self._silence_sentence(source)
                )
            else:
                self._monitor.solved(f'silent/{source.name}')

    def _check_sets(self, timeout_s: float) -> None:
        """Look after cameras that speak but never at the same time."""
        if self._monitor.setless_s() <= timeout_s:
            self._monitor.solved('unmatched')
        elif time.monotonic() - self._members_since > timeout_s:
            agreeing = set(self._synchronizer.members)
            self._clock_off |= {index for index in agreeing if self._has_clock_moved(index)}
            self._change_members(lambda: self._synchronizer.leave_outsiders(self._clock_off))
            self._apart |= agreeing - self._synchronizer.members
            if agreeing == self._synchronizer.members:
                self._monitor.report('unmatched', 'sets', ERROR, self._mismatch_sentence())
        self._tell_apart()

    def _tell_apart(self) -> None:
        for index in sorted(self._apart):
            key = f'apart/{self._sources[index].name}'
            if index in self._synchronizer.members:
                self._apart.discard(index)
                self._monitor.solved(key)
            else:
                self._monitor.report(key, 'cameras', ERROR, self._outsider_sentence(index))

    def _take_set(self, images: ImageSet) -> None:
        """Hand a set on; what its receiver raises is reported and costs nothing more."""
        mean_ns = int(images.stamps_ns.mean())
        if mean_ns < self._last_set_ns:
            sentence = 'image stamps went backwards: past frames are forgotten'
            self._node.get_logger().warning(sentence, throttle_duration_sec=LOG_PERIOD_S)
        self._last_set_ns = mean_ns
        if len(images.cameras) == len(self._sources):
            for index, source in enumerate(self._sources):
                offset_s = self._offset_s(source.name)
                self._usual_offsets[index] = (
                    0.9 * self._usual_offsets.get(index, offset_s) + 0.1 * offset_s
                )
        self._tell_moved(images)
        self._on_set(images)

    def _tell_moved(self, images: ImageSet) -> None:
        moved_s = self._watch.moved_s(images)
        for index, source in enumerate(self._sources):
            if index in moved_s:
                self._monitor.report(
                    f'moved/{source.name}',
                    'cameras',
                    WARN,
                    _moved_sentence(source.name, moved_s[index]),
                )
            else:
                self._monitor.solved(f'moved/{source.name}')

    def _has_clock_moved(self, index: int) -> bool:
        """Return whether the camera's stamps moved against those of the others, by when its images
        come.
        """
        usual_s = self._usual_offsets.get(index)
        return (
            usual_s is not None
            and abs(self._offset_s(self._sources[index].name) - usual_s)
            > self._settings.sync_slop_s
        )

    def _may_return(self, index: int) -> bool:
        if index in self._clock_off and self._has_clock_moved(index):
            return False
        self._clock_off.discard(index)
        return True

    def _subscribe_all(self) -> None:
        for index, source in enumerate(self._sources):
            self._subscribe_images(index, source)
            if not source.info_file:
                self._subscribe(
                    CameraInfo,
                    source.info_topic,
                    _qos(1, 'best_effort'),
                    partial(self._on_info, source.name),
                )

    def _subscribe_images(self, index: int, source: CameraSource) -> None:
        events = SubscriptionEventCallbacks(incompatible_qos=lambda _: self._incompatible(source))
        qos = _qos(self._settings.image_queue_size, self._settings.image_reliability)
        message_type = IMAGE_TYPES[self._settings.image_transport]
        self._subscribe(
            message_type, source.image_topic, qos, partial(self._take_image, index, source), events
        )

    def _subscribe(
        self, message_type, topic: str, qos: QoSProfile, take: Callable, events=None
    ) -> None:
        def callback(message) -> None:
            try:
                take(message)
            except Exception as error:  # an exception in a callback would end the node
                self._failed(error)

        self._subscriptions.append(
            self._node.create_subscription(
                message_type, topic, callback, qos, event_callbacks=events
            )
        )

    def _take_image(self, index: int, source: CameraSource, message) -> None:
        stamp = stamp_ns(message)
        if stamp <= 0:
            sentence = (
                f'images on {source.image_topic} have no time stamp and cannot be used: the '
                'publisher must fill in header.stamp'
            )
            self._monitor.report(f'stamp/{source.name}', 'cameras', ERROR, sentence)
            return
        self._monitor.solved(f'stamp/{source.name}', f'qos/{source.name}')
        self._monitor.image_arrived(source.name, stamp)
        self._watch.arrived(index, stamp, time.monotonic())
        if not self._synchronizer.add(index, message):
            self._monitor.image_ignored(source.name)

    def _failed(self, error: Exception) -> None:
        self._monitor.report(
            'message',
            'sets',
            ERROR,
            f'a message could not be taken: {type(error).__name__}: {error}',
        )

    def _incompatible(self, source: CameraSource) -> None:
        sentence = (
            f'a best-effort publisher of {source.image_topic} is not heard: set image_reliability '
            'to best_effort'
        )
        self._monitor.report(f'qos/{source.name}', 'cameras', WARN, sentence)

    def _silence_sentence(self, source: CameraSource) -> str:
        publishers = self._node.get_publishers_info_by_topic(source.image_topic)
        silence = (
            f'no image of {source.name} on {source.image_topic} for '
            f'{self._monitor.silence_s(source.name):.1f} s'
        )
        if not publishers:
            return f'{silence}: nobody publishes it; start the camera or set image_topics'
        wanted = IMAGE_TYPES[self._settings.image_transport].__name__
        offered = {info.topic_type.rsplit('/', 1)[-1] for info in publishers}
        if wanted not in offered:
            return (
                f'{silence}: it is published as {", ".join(sorted(offered))}, not {wanted}; set '
                'image_transport'
            )
        reliable = any(
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers
        )
        if self._settings.image_reliability == 'reliable' and not reliable:
            return (
                f'{silence}: its publisher is best effort and not heard; set image_reliability to '
                'best_effort'
            )
        return f'{silence}, although it has a publisher'

    def _outsider_sentence(self, index: int) -> str:
        name, offset_s = self._sources[index].name, self._offset_s(self._sources[index].name)
        return (
            f'{name} is left out, its images fit no set: its stamps are {offset_s:+.3f} s from '
            'those of the others, and sync_slop_s is '
            f'{self._settings.sync_slop_s} s; synchronise the clocks or raise sync_slop_s'
        )

    def _mismatch_sentence(self) -> str:
        offsets = {source.name: self._offset_s(source.name) for source in self._sources}
        camera = max(offsets, key=lambda name: abs(offsets[name]))
        return (
            f'all cameras publish, but no set fits into sync_slop_s ({self._settings.sync_slop_s} '
            f's): the stamps of {camera} are '
            f'{offsets[camera]:+.3f} s from those of the others; synchronise the clocks or raise '
            'sync_slop_s'
        )

    def _offset_s(self, camera: str) -> float:
        """Return how far the camera's clock is ahead of the middle of the cameras' clocks, by when
        its images come, seconds.
        """
        lags = {source.name: self._monitor.lag_s(source.name) for source in self._sources}
        middle = statistics.median(lag for lag in lags.values() if not math.isnan(lag))
        return 0.0 if math.isnan(lags[camera]) else middle - lags[camera]


def _moved_sentence(camera: str, moved_s: float) -> str:
    how = f'{abs(moved_s):.2f} s {"sooner" if moved_s > 0 else "later"}'
    return (
        f'images of {camera} come {how} after their stamps than before, unlike those of the '
        'others: its clock moved by whole periods, '
        f'or they are held up; as it is, they may be of another rotation'
    )


def _qos(depth: int, reliability: str) -> QoSProfile:
    policy = (
        ReliabilityPolicy.RELIABLE if reliability == 'reliable' else ReliabilityPolicy.BEST_EFFORT
    )
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=policy,
        durability=DurabilityPolicy.VOLATILE,
    )
