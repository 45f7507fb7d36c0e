"""The publishers of the output topics, and the thread that publishes the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from bevdepth_core.config import ModelConfig
from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Detections3D, Frame
from bevdepth_core.uncertainty import BoxCovariance
from bevdepth_ros.detections.autoware import autoware_messages
from bevdepth_ros.detections.depth_messages import depth_cloud
from bevdepth_ros.detections.messages import (
    header,
    label_info,
    latency_record,
    marker_array,
    objects_cloud,
)
from bevdepth_ros.detections.placement import Placement
from bevdepth_ros.detections.rate_limit import RateLimit
from bevdepth_ros.detections.serialized import pose_covariance, serialized_detection_array
from bevdepth_ros.detector.autoware_publishers import AutowarePublishers
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.problems import ERROR
from bevdepth_ros.detector.qos import make_qos, overrides
from bevdepth_ros.detector.result_tracker import ResultTracker
from bevdepth_ros.detector.slot import STOP_TIMEOUT_S, SlotThread

MARKER_LIFETIME_FRAMES = 2
MARKER_LIFETIME_S = (0.2, 5.0)
"""Shortest and longest lifetime of markers, seconds. Between these limits, the lifetime is
MARKER_LIFETIME_FRAMES times the time between the last two published results."""


@dataclass(frozen=True)
class DetectionResult:
    """Result of one image set.

    Attributes:
        detections: the boxes.
        covariance: uncertainty of the pose and the velocity of each box.
        frame: images, calibration and ego poses from which the boxes were detected.
        depth: (N, D, h, w) depth distribution of the frame's cameras; None if
            ``publish_depth_points`` is false.
        config: config of the network.
        placement: tf frame of the messages.
        received: time.monotonic() when the last image of the set was received, seconds.
        stage_seconds: durations of the stages before publication, seconds.
    """

    detections: Detections3D
    covariance: BoxCovariance
    frame: Frame
    depth: torch.Tensor | None
    config: ModelConfig
    placement: Placement
    received: float
    stage_seconds: Mapping[str, float]


class Outputs:
    """The lifecycle publishers of the node, and the tracker. ``~/detections`` and
    ``~/label_info`` are published even without subscribers. The other messages are built only if
    their topic has subscribers.
    """

    def __init__(self, node: LifecycleNode) -> None:
        """Create the publishers; they publish while ``node`` is active."""
        self._node = node
        self._publishers: list[LifecyclePublisher] = []
        self._detections = self._publisher(Detection3DArray, '~/detections')
        self._tracks = self._publisher(Detection3DArray, '~/tracks')
        self._label_info = self._publisher(LabelInfo, '~/label_info', is_latched=True)
        self._markers = self._publisher(MarkerArray, '~/markers')
        self._objects = self._publisher(PointCloud2, '~/objects')
        self._depth_points = self._publisher(PointCloud2, '~/depth_points')
        self._latency = self._publisher(DiagnosticArray, '~/latency')
        self._autoware = AutowarePublishers(autoware_messages(), self._publisher)
        self._tracker = ResultTracker()
        self._rate_limit = RateLimit()
        self._last_stamp_ns: int | None = None

    def _publisher(
        self, message_type: type, topic: str, is_latched: bool = False
    ) -> LifecyclePublisher:
        qos = make_qos(5, 'reliable')
        if is_latched:
            qos = make_qos(1, 'reliable', DurabilityPolicy.TRANSIENT_LOCAL)
        options = overrides(self._node, topic, 'publisher')
        publisher = self._node.create_lifecycle_publisher(
            message_type, topic, qos, qos_overriding_options=options
        )
        self._publishers.append(publisher)
        return publisher

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in self._publishers:
            self._node.destroy_lifecycle_publisher(publisher)
        self._publishers.clear()

    def other_publishers(self) -> list[str]:
        """Return the names of other nodes that publish on this node's topic ``~/detections``."""
        topic = self._detections.topic_name
        names = [info.node_name for info in self._node.get_publishers_info_by_topic(topic)]
        if self._node.get_name() in names:
            names.remove(self._node.get_name())
        return sorted(names)

    def publish_labels(
        self, class_names: tuple[str, ...], score_threshold: float, stamp_ns: int, frame_id: str
    ) -> None:
        """Publish the table of labels. The topic is latched, so later subscribers also receive the
        table.
        """
        self._label_info.publish(
            label_info(class_names, score_threshold, header(stamp_ns, frame_id))
        )

    def publish(self, result: DetectionResult, settings: Settings) -> dict[str, float] | None:
        """Publish ``result`` on all topics and return the durations of all its stages, seconds.

        If ``max_rate_hz`` does not allow this result, only update the tracks and return None. The
        detections are published before the tracks are computed, so that subscribers of the
        detections do not wait for the tracker.
        """
        began, placement = time.monotonic(), result.placement
        if not self._rate_limit.allows(result.detections.stamp_ns, settings.max_rate_hz):
            self._track(result, settings)
            return None
        selection = settings.selection(result.detections.class_names)
        keep = selection.keeps(result.detections)
        detections = placement.detections(selection.detections(result.detections, keep))
        covariance = placement.covariance(result.covariance[keep])
        self._publish_boxes(self._detections, detections, covariance.pose, placement)
        now = time.monotonic()
        before = result.stage_seconds
        # ``host`` is the time in which no stage ran, for example while the result waited for this
        # thread.
        seconds = {
            **before,
            'host': began - result.received - sum(before.values()),
            'publish': now - began,
            'total': now - result.received,
        }
        tracks = self._track(result, settings)
        if tracks is not None:
            seconds['tracking'] = time.monotonic() - now
            tracks = placement.tracks(selection.tracks(tracks, keep))
            ids = tracks.detection_ids(len(detections))
            detections = replace(detections, track_ids=ids)
        self._publish_others(result, detections, covariance, tracks)
        self._publish_latency_and_depth(result, settings, seconds)
        self._last_stamp_ns = detections.stamp_ns
        return seconds

    def _track(self, result: DetectionResult, settings: Settings) -> Tracks3D | None:
        """Update the tracks with the boxes of ``result``. Return all tracks; None if tracking is
        switched off or ego poses are missing.
        """
        if not settings.publish_tracks:
            return None
        return self._tracker.update(
            result.detections, result.frame, result.covariance, settings.tracker_config
        )

    @staticmethod
    def _publish_boxes(
        publisher: LifecyclePublisher,
        objects: Detections3D | Tracks3D,
        covariance: np.ndarray,
        placement: Placement,
    ) -> None:
        """Publish detections or tracks, with the pose covariance of each box."""
        ids = objects.ids if isinstance(objects, Tracks3D) else None
        publisher.publish(
            serialized_detection_array(
                objects, placement.frame_id, pose_covariance(covariance), ids
            )
        )

    def _publish_others(
        self,
        result: DetectionResult,
        detections: Detections3D,
        covariance: BoxCovariance,
        tracks: Tracks3D | None,
    ) -> None:
        """Publish ``detections`` and ``tracks`` on ``~/tracks``, ``~/objects``, ``~/markers`` and
        the topics of Autoware, if these topics have subscribers.
        """
        placement = result.placement
        if tracks is not None and self._tracks.get_subscription_count():
            self._publish_boxes(self._tracks, tracks, tracks.pose_covariance, placement)
        if self._objects.get_subscription_count():
            self._objects.publish(
                objects_cloud(detections, placement.frame_id, covariance.velocity)
            )
        if self._markers.get_subscription_count():
            trails = [] if tracks is None else self._tracker.trails(tracks, result.frame)
            lifetime_s = self._marker_lifetime_s(detections.stamp_ns)
            self._markers.publish(
                marker_array(
                    detections, placement.frame_id, lifetime_s, tracks, placement.trails(trails)
                )
            )
        self._autoware.publish(detections, covariance, tracks, placement.frame_id)

    def _publish_latency_and_depth(
        self, result: DetectionResult, settings: Settings, seconds: Mapping[str, float]
    ) -> None:
        """Publish ``~/latency`` and ``~/depth_points``, if these topics have subscribers.
        ``~/depth_points`` also requires a result with depth.
        """
        used, base_frame = result.frame.rig.names, settings.base_frame
        if self._latency.get_subscription_count():
            self._latency.publish(
                latency_record(
                    result.detections, used, settings.cameras, seconds, result.placement.frame_id
                )
            )
        if result.depth is not None and self._depth_points.get_subscription_count():
            self._depth_points.publish(
                depth_cloud(result.frame, result.depth, result.config, base_frame)
            )

    def _marker_lifetime_s(self, stamp_ns: int) -> float:
        """Return the lifetime of the markers of a result with this stamp, seconds."""
        shortest, longest = MARKER_LIFETIME_S
        if self._last_stamp_ns is None:
            return longest
        return min(
            max(MARKER_LIFETIME_FRAMES * (stamp_ns - self._last_stamp_ns) * 1e-9, shortest),
            longest,
        )


class ResultPublisher:
    """Publishes results in its own thread, so that detection does not wait for serialization and
    DDS.
    """

    def __init__(
        self, publish: Callable[[DetectionResult], dict[str, float] | None], monitor: Monitor
    ):
        """Start the thread.

        Args:
            publish: publishes one result and returns the durations of its stages, seconds, or None
                if the rate limit did not allow the publication.
            monitor: receives the durations, the number of unpublished results, and failures.
        """
        self._publish, self._monitor = publish, monitor
        self._thread: SlotThread[DetectionResult] = SlotThread('publication', self._run)

    def put(self, result: DetectionResult) -> None:
        """Pass ``result`` to the thread, in place of an earlier result that is still waiting."""
        if self._thread.put(result):
            self._monitor.result_unpublished()

    def stop(self, discard: bool, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the thread; see ``SlotThread.stop`` for the arguments."""
        self._thread.stop(discard, timeout_s)

    def _run(self, results: Iterator[DetectionResult]) -> None:
        for result in results:
            try:
                seconds = self._publish(result)
                if seconds is None:
                    self._monitor.result_unpublished()
                else:
                    self._monitor.result_published(seconds)
                self._monitor.solved('publish')
            except Exception as error:  # an exception for one result must not end the thread
                self._monitor.report(
                    'publish',
                    'sets',
                    ERROR,
                    f'detections could not be published ({type(error).__name__}: {error}); '
                    'report this error if it repeats',
                )
