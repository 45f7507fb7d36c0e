"""Reports cameras whose images do not arrive, cameras whose stamps do not fit the stamps of the
other cameras, and lost image sets.

The terms of this module, in addition to the terms of ``camera_timing`` and ``set_loss``:

* Silent camera: camera that sent no image for ``camera_timeout_s``.
* Unseen camera: camera that sent no image in this activation of the node.
* Misaligned camera: camera that the synchronizer excludes, because its stamps do not fit the
  stamps of the other cameras.
* Untriggered cameras: cameras that do not expose in common trigger cycles. The attribute
  ``untriggered`` of the synchronizer then contains the reason as text.
"""

from __future__ import annotations

import difflib
import math
import os
import statistics
from collections.abc import Callable

from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import ERROR, WARN
from bevdepth_ros.detector.set_loss import SetLoss
from bevdepth_ros.rig.camera_timing import LONGEST_JUMP_PAUSE
from bevdepth_ros.rig.settings import IMAGE_TYPES, CameraSource
from bevdepth_ros.rig.synchronizer import ImageSetSynchronizer

SAME_CYCLE = 0.1
"""The reported trigger cycle changes only if its difference to the measured trigger cycle is more
than this share of the reported cycle."""
PROFILE_VARIABLES = (
    'FASTRTPS_DEFAULT_PROFILES_FILE',
    'FASTDDS_DEFAULT_PROFILES_FILE',
    'CYCLONEDDS_URI',
)
"""Environment variables that select a profile of the middleware."""
NO_PUBLISHER = ': the topic has no publisher; start the camera or set image_topics'


class CameraReports:
    """Reports problems of cameras and of image sets. The problems are found in the measurements of
    the synchronizer and of the monitor.
    """

    def __init__(
        self,
        node: Node,
        settings: Settings,
        monitor: Monitor,
        synchronizer: ImageSetSynchronizer,
    ) -> None:
        """Start without reports.

        Args:
            node: gives access to the ROS graph, which contains the publishers of each topic.
            settings: settings of the node. Topics and ``sync_slop_s`` must not change.
            monitor: receives the problems.
            synchronizer: synchronizer of the images of all cameras.
        """
        self._node, self._settings, self._monitor = node, settings, monitor
        self._synchronizer, self._sources = synchronizer, settings.camera_sources
        self._loss, self._cycle_s = SetLoss(), 0.0
        self._shared: dict[str, int] = {}
        self._reasons: dict[str, str] = {}

    def restart_loss(self) -> None:
        """Start a new window for counting lost sets, because all cameras had paused."""
        self._loss = SetLoss()

    def report_silent(self, silent: set[str]) -> None:
        """Report the cameras with the names ``silent``, which send no images."""
        names = [source.name for source in self._sources]
        if len(silent) == len(names) > 1:
            self._monitor.solved(*(f'silent/{name}' for name in names), quietly=True)
            example = self._silence_sentence(self._sources[0])
            sentence = f'no camera sends images; for example, {example}'
            self._monitor.report('silent', 'cameras', ERROR, sentence)
            return
        self._monitor.solved('silent', *(f'silent/{one}' for one in names if one not in silent))
        for source in self._sources:
            if source.name in silent:
                sentence = self._silence_sentence(source)
                self._monitor.report(f'silent/{source.name}', 'cameras', ERROR, sentence)

    def note_reasons(self, unseen: set[str]) -> None:
        """Store why the cameras with the names ``unseen`` send no images. ``report_no_sets``
        reports the stored reasons.
        """
        for source in self._sources:
            if source.name in unseen:
                self._silence_reason(source)

    def report_no_sets(self, unseen: set[str]) -> None:
        """Report why no image set was formed.

        Args:
            unseen: names of the cameras that sent no image at all. For these cameras, the stored
                reasons of ``note_reasons`` are reported, because at the end of a replay the
                publishers no longer exist.
        """
        sources = [source for source in self._sources if source.name in unseen]
        if len(sources) == len(self._sources) > 1:
            sentence = f'no camera sent images; for example, {self._absence_sentence(sources[0])}'
            self._monitor.report('silent', 'cameras', ERROR, sentence)
            return
        for source in sources:
            sentence = self._absence_sentence(source)
            self._monitor.report(f'silent/{source.name}', 'cameras', ERROR, sentence)
        if not sources:
            self.report_sets(-math.inf)

    def report_misaligned(self) -> None:
        """Report the cameras whose stamps do not fit the stamps of the other cameras."""
        period_s = self._synchronizer.period_s
        for source, camera in zip(self._sources, self._synchronizer.cameras, strict=True):
            name = source.name
            if camera.state == 'misaligned':
                sentence = self._misaligned_sentence(name, camera.clock_error_s(period_s))
                self._monitor.report(f'misaligned/{name}', 'cameras', ERROR, sentence)
            elif camera.state == 'used':
                self._monitor.solved(f'misaligned/{name}')

    def report_sets(self, timeout_s: float) -> None:
        """Report the problems of image sets: cameras are untriggered, no set was formed for
        ``timeout_s`` seconds, ``sync_slop_s`` is too large, or sets are lost.

        If cameras are untriggered, neither missing nor lost sets are reported. If no set was
        formed, lost sets are not reported.
        """
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
            synchronizer.is_learned and 0 < cycle_s <= slop_s,
            'slop',
            WARN,
            lambda: (
                f'sync_slop_s ({slop_s:g} s) must be below the trigger cycle ({cycle_s:.3f} s): '
                'set a smaller sync_slop_s; otherwise a set may combine images of two cycles'
            ),
        )
        names = [self._sources[index].name for index in synchronizer.members]
        cameras = {name: self._synchronizer.cameras[self._index(name)] for name in names}
        received = {name: camera.received for name, camera in cameras.items()}
        loss = self._loss.check(received, synchronizer.formed, synchronizer.too_wide, cycle_s)
        jitter_s = {name: camera.jitter_ns * 1e-9 for name, camera in cameras.items()}
        self._report_if(
            loss is not None and not is_missing and synchronizer.untriggered is None,
            'loss',
            WARN,
            lambda: (
                f'{loss.sentence(jitter_s, period_s, slop_s)}{self._profile_hint()}'
                if loss
                else ''
            ),
        )

    def _reported_cycle_s(self, period_s: float) -> float:
        """Return the trigger cycle, seconds. Small changes of the cycle are ignored, because they
        would change the text of reports.
        """
        if abs(period_s - self._cycle_s) > SAME_CYCLE * self._cycle_s:
            self._cycle_s = period_s
        return self._cycle_s

    def _report_if(self, holds: bool, key: str, level: bytes, sentence: Callable[[], str]) -> None:
        """Report the problem ``key`` if ``holds`` is True, otherwise end the problem."""
        if holds:
            self._monitor.report(key, 'sets', level, sentence())
        else:
            self._monitor.solved(key)

    def report_shared_topics(self) -> None:
        """Report topics that had more than one publisher in this check and in the check before."""
        before, self._shared = self._shared, {}
        for source in self._sources:
            topics = {'images': source.image_topic}
            if not source.info_file:
                topics['CameraInfo'] = source.info_topic
            for what, topic in topics.items():
                infos = self._node.get_publishers_info_by_topic(topic)
                nodes = [info.node_name for info in infos]
                self._shared[topic] = len(nodes)
                key = f'publishers/{what}/{source.name}'
                if min(len(nodes), before.get(topic, 0)) > 1:
                    sentence = (
                        f'{len(nodes)} publishers send {what} of {source.name} on '
                        f'{self._node.resolve_topic_name(topic)} (nodes '
                        f'{", ".join(sorted(nodes))}): their messages alternate; stop all but one '
                        'publisher'
                    )
                    self._monitor.report(key, 'cameras', WARN, sentence)
                else:
                    self._monitor.solved(key)

    def _index(self, name: str) -> int:
        return self._settings.cameras.index(name)

    def _silence_sentence(self, source: CameraSource) -> str:
        silence_s = self._monitor.silence_s(source.name)
        return f'{self._no_image(source)} for {silence_s:.1f} s{self._silence_reason(source)}'

    def _absence_sentence(self, source: CameraSource) -> str:
        reason = self._reasons.get(source.name) or self._silence_reason(source)
        return f'{self._no_image(source)} was received{reason}'

    def _no_image(self, source: CameraSource) -> str:
        topic = self._node.resolve_topic_name(source.image_topic)  # after remappings
        return f'no image of {source.name} on {topic}'

    def _silence_reason(self, source: CameraSource) -> str:
        """Return why ``source`` sends no images, as the end of a sentence. Also store this reason.

        ``NO_PUBLISHER`` without a hint is not stored, because it would replace a better reason
        when the publishers end.
        """
        reason = self._newest_reason(source)
        if reason != NO_PUBLISHER:
            self._reasons[source.name] = reason
        return reason

    def _newest_reason(self, source: CameraSource) -> str:
        topic = self._node.resolve_topic_name(source.image_topic)
        publishers = self._node.get_publishers_info_by_topic(source.image_topic)
        wanted = IMAGE_TYPES[self._settings.image_transport].__name__
        if not publishers:
            similar = self._similar_topic(topic, wanted)
            hint = f' (did you mean {similar}?)' if similar else ''
            return f'{NO_PUBLISHER}{hint}'
        offered = {info.topic_type.rsplit('/', 1)[-1] for info in publishers}
        if wanted not in offered:
            return (
                f': the topic has messages of type {", ".join(sorted(offered))}, not {wanted}; '
                f'{_type_remedy(offered)}'
            )
        reliable = any(
            info.qos_profile.reliability == ReliabilityPolicy.RELIABLE for info in publishers
        )
        if self._settings.image_reliability == 'reliable' and not reliable:
            return ': the publisher is best effort; set image_reliability to best_effort'
        return (
            ', although the topic has a publisher: check the publisher and the network, or '
            f'raise camera_timeout_s above the period of the camera{self._profile_hint()}'
        )

    def _profile_hint(self) -> str:
        """Return a remedy for lost raw images if no profile of the middleware is set, otherwise an
        empty string.
        """
        if self._settings.image_transport != 'raw' or any(map(os.environ.get, PROFILE_VARIABLES)):
            return ''
        return (
            '; raw images need a middleware profile, and none is set: see "Middleware for raw '
            'images" in docs/NODE.md'
        )

    def _similar_topic(self, topic: str, message_type: str) -> str | None:
        """Find the topic of this message type whose name is most similar to ``topic`` and is not
        an image topic of a camera. Return the topic if it has a publisher, otherwise None.
        """
        taken = {self._node.resolve_topic_name(source.image_topic) for source in self._sources}
        names = [
            name
            for name, types in self._node.get_topic_names_and_types()
            if f'sensor_msgs/msg/{message_type}' in types and name not in taken
        ]
        nearest = difflib.get_close_matches(topic, names, 1)
        return next((name for name in nearest if self._node.count_publishers(name)), None)

    def _misaligned_sentence(self, name: str, error_s: float) -> str:
        return (
            f'{name} is excluded: its stamps are {error_s:+.3f} s away from the stamps of '
            f'the other cameras; synchronize the clock of {name} with the other cameras, or '
            f'restart the driver of {name} if its trigger or its transport changed'
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
            f'{sentence}; no detections are published: trigger the cameras together and '
            'synchronize their clocks, or set untriggered_cameras to newest'
        )

    def _unmatched_sentence(self) -> str:
        """Return a message with the most likely reason why no image set is formed. The reasons are
        checked in this order: jitter, jumps of clocks, distance of the newest stamps.
        """
        if self._synchronizer.jitters:
            cameras = zip(self._sources, self._synchronizer.cameras, strict=True)
            used = [(one.jitter_ns, source.name) for source, one in cameras if one.state == 'used']
            jitter_ns, name = max(used)
            return (
                f'no image set can be formed: stamps jitter by up to {1e-9 * jitter_ns:.3f} s '
                f'({name}), too much to distinguish trigger cycles of '
                f'{self._synchronizer.period_s:.3f} s; let the camera drivers stamp images with '
                'the time of the trigger'
            )
        missing_s = self._monitor.seconds_since_last_set()
        missing = 'no image set was formed' + (f' for {missing_s:.0f} s' if missing_s > 0 else '')
        jumped = [
            self._sources[index].name
            for index in self._synchronizer.members
            if self._synchronizer.cameras[index].may_have_jumped
        ]
        if jumped:
            return (
                f'{missing}: the stamps of {", ".join(jumped)} jumped; sets are formed again '
                f'after at most {LONGEST_JUMP_PAUSE} images; if this happens again, check the '
                'clock that stamps the images, and whether images are lost'
            )
        newest = {
            self._sources[index].name: self._synchronizer.cameras[index].newest_ns
            for index in self._synchronizer.members
        }
        middle = statistics.median_low(newest.values()) if newest else 0
        camera = max(newest, key=lambda name: abs(newest[name] - middle), default='')
        distance_s = (newest[camera] - middle) * 1e-9 if newest else 0.0
        if abs(distance_s) <= self._settings.sync_slop_s:
            return (
                f'{missing}, although the newest stamps of the cameras agree: check whether '
                'images are lost or cameras have stopped'
            )
        return (
            f'images of {len(newest)} cameras arrive, but none fit into a set of sync_slop_s '
            f'({self._settings.sync_slop_s} s): the newest stamp of {camera} is {distance_s:+.3f} '
            's away from the newest stamps of the other cameras; synchronize the clocks or raise '
            'sync_slop_s'
        )


def _type_remedy(offered: set[str]) -> str:
    """Return how to receive images from a topic whose messages have the types ``offered``."""
    for transport, message_type in IMAGE_TYPES.items():
        if message_type.__name__ in offered:
            return f'set image_transport to {transport}'
    return (
        'decode the images with `ros2 run image_transport republish`, or set image_topics to a '
        'topic with raw images'
    )
