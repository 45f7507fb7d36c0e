"""Subscribes to images and CameraInfo, groups images into image sets, and reports cameras whose
images do not arrive or do not fit.
"""

from __future__ import annotations

import difflib
import math
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from message_filters import Subscriber
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import ERROR, LOG_PERIOD_S, WARN
from bevdepth_ros.detector.qos import make_qos, overrides
from bevdepth_ros.detector.set_loss import SetLoss
from bevdepth_ros.rig.settings import IMAGE_TYPES, CameraSource
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.synchronizer import ImageSet, ImageSetSynchronizer

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

PAUSE = 0.75
"""Share of ``camera_timeout_s`` without any image after which the cameras have paused together."""
SAME_CYCLE = 0.1
"""A reported trigger cycle is kept while the measured one differs by at most this share."""
GRAPH_CHECKS = 4
"""The publishers of the topics are checked in every n-th call of ``check``."""


class GuardedSubscriber(Subscriber):
    """Catches exceptions of callbacks, which would end the executor.

    ``on_error`` receives the exception of each message that fails, and None for the first message
    after it that does not.
    """

    def __init__(
        self, on_error: Callable[[Exception | None], None], *args: Any, **kwargs: Any
    ) -> None:
        self._on_error, self._has_failed = on_error, False
        super().__init__(*args, **kwargs)

    def callback(self, msg: Any) -> None:
        try:
            super().callback(msg)
        except Exception as error:
            self._has_failed = True
            self._on_error(error)
        else:
            if self._has_failed:
                self._has_failed = False
                self._on_error(None)


class Intake:
    """Receives messages in the executor's thread and passes image sets on."""

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
            node: whose executor receives the messages.
            settings: topics, slop and queue sizes, which stay fixed.
            monitor: receives counts and problems.
            on_set: receives image sets; must return at once.
            on_info: receives the camera's name and each CameraInfo.
            on_image: receives the camera's name and each image as it arrives; must return at once.

        Raises:
            rclpy.exceptions.InvalidTopicNameException: a topic name is invalid.
        """
        self._node, self._settings, self._monitor = node, settings, monitor
        self._on_set, self._on_info, self._on_image = on_set, on_info, on_image
        self._sources = settings.camera_sources
        self._subscribers: list[GuardedSubscriber] = []
        self._last_set_ns = self._checks = 0
        self._timeout_s, self._cycle_s = settings.camera_timeout_s, 0.0
        self._shared: dict[str, int] = {}
        self._infos_to_receive = [one for one in self._sources if not one.info_file]
        self._latched: set[CameraSource] = set()
        self._loss = SetLoss()
        try:
            images = [self._subscribe_images(source) for source in self._sources]
            for source in self._infos_to_receive:
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

    def close(self) -> None:
        """End the subscriptions."""
        for subscriber in self._subscribers:
            self._node.destroy_subscription(subscriber.sub)
        self._subscribers.clear()

    def flush(self) -> None:
        """Form the image sets that wait only for further images to confirm the offsets."""
        self._synchronizer.flush()

    def reset(self) -> None:
        """Drop images that wait for their set."""
        self._synchronizer.reset()

    def check(self, timeout_s: float) -> None:
        """Exclude and report cameras that are silent for ``timeout_s`` seconds or whose stamps do
        not fit the others.
        """
        self._timeout_s = timeout_s
        names = [source.name for source in self._sources]
        silent = {name for name in names if self._monitor.is_silent(name, timeout_s)}
        # When all cameras stop, they pass the timeout one after the other within one cycle.
        has_paused = self._shortest_silence_s() > PAUSE * timeout_s
        if not has_paused or len(silent) in (0, len(names)):
            self._report_silent(silent)
        if not has_paused and self._monitor.startup_is_over():
            indices = [index for index, one in enumerate(self._sources) if one.name in silent]
            self._synchronizer.check(indices, timeout_s)
            self._report_misaligned()
            self._report_sets(timeout_s)
        else:
            self._synchronizer.check((), math.inf)
        for source, camera in zip(self._sources, self._synchronizer.cameras, strict=True):
            self._monitor.images_ignored(source.name, camera.ignored)
        self._checks += 1
        if self._checks % GRAPH_CHECKS == 0:
            self._report_shared_topics()
            self._subscribe_latched_infos()

    # Subscriptions

    def _subscribe_images(self, source: CameraSource) -> GuardedSubscriber:
        subscriber = self._subscribe(
            IMAGE_TYPES[self._settings.image_transport],
            source.image_topic,
            make_qos(self._settings.image_queue_size, self._settings.image_reliability),
            event_callbacks=SubscriptionEventCallbacks(
                incompatible_qos=lambda _: self._report_qos(source)
            ),
        )
        subscriber.registerCallback(self._take_image, source)
        return subscriber

    def _subscribe_info(self, source: CameraSource) -> None:
        """Subscribe to CameraInfo of any QoS, but without what latched publishers sent before."""
        subscriber = self._subscribe(CameraInfo, source.info_topic, make_qos(1, 'best_effort'))
        subscriber.registerCallback(partial(self._on_info, source.name))

    def _subscribe_latched_infos(self) -> None:
        """Subscribe to latched CameraInfo where it is offered: elsewhere publisher and subscriber
        would both log a warning.
        """
        for source in set(self._infos_to_receive) - self._latched:
            publishers = self._node.get_publishers_info_by_topic(source.info_topic)
            durabilities = {one.qos_profile.durability for one in publishers}
            if DurabilityPolicy.TRANSIENT_LOCAL in durabilities:
                self._latched.add(source)
                qos = make_qos(1, 'reliable', DurabilityPolicy.TRANSIENT_LOCAL)
                subscriber = self._subscribe(CameraInfo, source.info_topic, qos)
                subscriber.registerCallback(partial(self._on_info, source.name))

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
        stamp = stamp_ns(message)
        if stamp <= 0:
            sentence = (
                f'images on {source.image_topic} have no time stamp and cannot be used: the '
                'publisher must fill in header.stamp'
            )
            self._monitor.report(f'stamp/{source.name}', 'cameras', ERROR, sentence)
            return
        self._monitor.solved(f'stamp/{source.name}', f'qos/{source.name}')
        if self._shortest_silence_s() > PAUSE * self._timeout_s:
            self._monitor.cameras_resumed()
            self._loss = SetLoss()
        self._monitor.image_arrived(source.name, stamp)
        self._on_image(source.name, message)

    def _shortest_silence_s(self) -> float:
        return min(self._monitor.silence_s(source.name) for source in self._sources)

    def _take_set(self, images: ImageSet) -> None:
        mean_ns = int(images.stamps_ns.mean())
        if mean_ns < self._last_set_ns:
            sentence = 'image stamps went backwards: past frames are dropped'
            self._node.get_logger().warning(sentence, throttle_duration_sec=LOG_PERIOD_S)
        self._last_set_ns = mean_ns
        self._on_set(images)

    # Reports

    def _report_silent(self, silent: set[str]) -> None:
        names = [source.name for source in self._sources]
        if len(silent) == len(names) > 1:
            self._monitor.solved(*(f'silent/{name}' for name in names), quietly=True)
            sentence = f'all cameras are silent; {self._silence_sentence(self._sources[0])}'
            self._monitor.report('silent', 'cameras', ERROR, sentence)
            return
        self._monitor.solved('silent', *(f'silent/{one}' for one in names if one not in silent))
        for source in self._sources:
            if source.name in silent:
                sentence = self._silence_sentence(source)
                self._monitor.report(f'silent/{source.name}', 'cameras', ERROR, sentence)

    def _report_misaligned(self) -> None:
        period_s = self._synchronizer.period_s
        for source, camera in zip(self._sources, self._synchronizer.cameras, strict=True):
            name = source.name
            if camera.state == 'misaligned':
                sentence = self._misaligned_sentence(name, camera.clock_error_s(period_s))
                self._monitor.report(f'misaligned/{name}', 'cameras', ERROR, sentence)
            elif camera.state == 'used':
                self._monitor.solved(f'misaligned/{name}')

    def _report_sets(self, timeout_s: float) -> None:
        synchronizer, period_s = self._synchronizer, self._synchronizer.period_s
        slop_s = self._settings.sync_slop_s
        self._report_if(
            synchronizer.untriggered is not None,
            'untriggered',
            ERROR,
            lambda: self._untriggered_sentence(),
        )
        is_missing = self._monitor.seconds_since_last_set() > timeout_s
        self._report_if(
            is_missing and synchronizer.untriggered is None,
            'unmatched',
            ERROR,
            lambda: self._unmatched_sentence(),
        )
        cycle_s = self._reported_cycle_s(period_s)
        self._report_if(
            synchronizer.is_learned and 0 < period_s <= slop_s,
            'slop',
            WARN,
            lambda: (
                f'sync_slop_s ({slop_s} s) is not below the trigger cycle ({cycle_s:.3f} s); '
                'images of a set are matched by their offsets within the cycle; set '
                f'sync_slop_s below {cycle_s:.3f}'
            ),
        )
        names = [self._sources[index].name for index in synchronizer.members]
        cameras = {name: self._synchronizer.cameras[self._index(name)] for name in names}
        received = {name: camera.received for name, camera in cameras.items()}
        loss = self._loss.check(received, synchronizer.formed, synchronizer.too_wide)
        jitter_s = {name: camera.jitter_ns * 1e-9 for name, camera in cameras.items()}
        self._report_if(
            loss is not None and not is_missing and synchronizer.untriggered is None,
            'loss',
            WARN,
            lambda: loss.sentence(jitter_s, period_s, slop_s) if loss else '',
        )

    def _reported_cycle_s(self, period_s: float) -> float:
        """Return the trigger cycle, without small changes that would alter reports, seconds."""
        if abs(period_s - self._cycle_s) > SAME_CYCLE * self._cycle_s:
            self._cycle_s = period_s
        return self._cycle_s

    def _report_if(self, holds: bool, key: str, level: bytes, sentence: Callable[[], str]) -> None:
        if holds:
            self._monitor.report(key, 'sets', level, sentence())
        else:
            self._monitor.solved(key)

    def _report_shared_topics(self) -> None:
        """Report topics that had two publishers in two checks in a row."""
        before, self._shared = self._shared, {}
        for source in self._sources:
            topics = {'images': source.image_topic}
            if not source.info_file:
                topics['CameraInfo'] = source.info_topic
            for what, topic in topics.items():
                nodes = [one.node_name for one in self._node.get_publishers_info_by_topic(topic)]
                self._shared[topic] = len(nodes)
                key = f'publishers/{what}/{source.name}'
                if min(len(nodes), before.get(topic, 0)) > 1:
                    sentence = (
                        f'{len(nodes)} publishers send {what} of {source.name} on {topic} (nodes '
                        f'{", ".join(sorted(nodes))}): their messages alternate; stop one of them'
                    )
                    self._monitor.report(key, 'cameras', WARN, sentence)
                else:
                    self._monitor.solved(key)

    def _report_failure(self, message_type: str, topic: str, error: Exception | None) -> None:
        """Report the failure of a message; None: a later message was processed."""
        if error is None:
            self._monitor.solved(f'message/{topic}')
            return
        sentence = (
            f'a {message_type} message on {topic} could not be processed: '
            f'{type(error).__name__}: {error}'
        )
        self._monitor.report(f'message/{topic}', 'sets', ERROR, sentence)

    def _report_qos(self, source: CameraSource) -> None:
        sentence = (
            f'the publisher of {source.image_topic} is best effort, so its images are not '
            'received: set image_reliability to best_effort'
        )
        self._monitor.report(f'qos/{source.name}', 'cameras', WARN, sentence)

    # Sentences

    def _index(self, name: str) -> int:
        return self._settings.cameras.index(name)

    def _silence_sentence(self, source: CameraSource) -> str:
        publishers = self._node.get_publishers_info_by_topic(source.image_topic)
        silence = (
            f'no image of {source.name} on {source.image_topic} for '
            f'{self._monitor.silence_s(source.name):.1f} s'
        )
        wanted = IMAGE_TYPES[self._settings.image_transport].__name__
        if not publishers:
            similar = self._similar_topic(source.image_topic, wanted)
            hint = f' (did you mean {similar}?)' if similar else ''
            remedy = f'start the camera or set image_topics{hint}'
            return f'{silence}: the topic has no publisher; {remedy}'
        offered = {info.topic_type.rsplit('/', 1)[-1] for info in publishers}
        if wanted not in offered:
            return (
                f'{silence}: it is published as {", ".join(sorted(offered))}, not {wanted}; '
                f'{_type_remedy(offered)}'
            )
        reliable = any(
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers
        )
        if self._settings.image_reliability == 'reliable' and not reliable:
            return f'{silence}: its publisher is best effort; set image_reliability to best_effort'
        return (
            f'{silence}, although it has a publisher: check the publisher and the network, or '
            'raise camera_timeout_s if images are expected less often'
        )

    def _similar_topic(self, topic: str, message_type: str) -> str | None:
        """Return the name most similar to ``topic`` on which such messages are published."""
        taken = {source.image_topic for source in self._sources}
        names = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if f'sensor_msgs/msg/{message_type}' in types and name not in taken
        ]
        nearest = difflib.get_close_matches(topic, names, 1)
        return next((name for name in nearest if self._node.count_publishers(name)), None)

    def _misaligned_sentence(self, name: str, error_s: float) -> str:
        return (
            f'{name} is excluded: its stamps are {error_s:+.3f} s off, compared with the other '
            f'cameras; synchronize the clock of {name} with the others, or restart its driver if '
            'its trigger or its transport changed'
        )

    def _untriggered_sentence(self) -> str:
        periods = (camera.period_ns * 1e-9 for camera in self._synchronizer.cameras)
        rates = ', '.join(
            f'{source.name} {1 / period_s:.2f} Hz'
            for source, period_s in zip(self._sources, periods, strict=True)
            if period_s
        )
        sentence = (
            f'the cameras are not triggered together: {self._synchronizer.untriggered} ({rates})'
        )
        if self._settings.untriggered_cameras == 'newest':
            return f'{sentence}; the newest image of each camera is used'
        return (
            f'{sentence}; nothing is published: trigger the cameras together and synchronize '
            'their clocks, or set untriggered_cameras to newest'
        )

    def _unmatched_sentence(self) -> str:
        newest = {
            self._sources[index].name: self._synchronizer.cameras[index].newest_ns
            for index in self._synchronizer.members
        }
        middle = statistics.median_low(newest.values()) if newest else 0
        camera = max(newest, key=lambda name: abs(newest[name] - middle), default='')
        distance_s = (newest[camera] - middle) * 1e-9 if newest else 0.0
        return (
            'images of all cameras arrive, but none fit into a set of sync_slop_s '
            f'({self._settings.sync_slop_s} s): the newest stamp of {camera} is {distance_s:+.3f} '
            's from those of the other cameras; synchronize the clocks or raise sync_slop_s'
        )


def _type_remedy(offered: set[str]) -> str:
    """Return what to do about an image topic with messages of the ``offered`` types."""
    for transport, message_type in IMAGE_TYPES.items():
        if message_type.__name__ in offered:
            return f'set image_transport to {transport}'
    return (
        'decode it with `ros2 run image_transport republish`, or set image_topics to its raw topic'
    )
