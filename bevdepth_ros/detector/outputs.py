"""The node's voice: one publisher per output topic, and the thread that speaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from bevdepth_core.config import ModelConfig
from bevdepth_core.types import Detections3D, Frame
from bevdepth_ros.detections.depth_messages import depth_cloud
from bevdepth_ros.detections.messages import (
    header,
    label_info,
    latency_record,
    marker_array,
    objects_cloud,
)
from bevdepth_ros.detections.serialized import serialized_detection_array
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.problems import ERROR
from bevdepth_ros.detector.slot import SlotThread

MARKER_LIFETIME_FRAMES = 2
MARKER_LIFETIME_S = (0.2, 5.0)
"""Markers live for about two frames, within these bounds."""

_RELIABLE = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE
)
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST,
    depth=1,
    reliability=ReliabilityPolicy.RELIABLE,
    durability=DurabilityPolicy.TRANSIENT_LOCAL,
)


@dataclass(frozen=True)
class DetectionResult:
    """What goes out for one set.

    Attributes:
        detections: the boxes.
        frame: the images that they were seen in.
        depth: (N, D, h, w) depth distribution of its cameras; None unless it is to be published.
        config: of the network.
        received: time.monotonic() when the last image of the set was taken, seconds.
        stage_seconds: what it took so far, by stage.
    """

    detections: Detections3D
    frame: Frame
    depth: torch.Tensor | None
    config: ModelConfig
    received: float
    stage_seconds: Mapping[str, float]


class Outputs:
    """Lifecycle publishers; what nobody listens to is not even built, but for the detections."""

    def __init__(self, node: LifecycleNode):
        """Create the publishers; they speak while ``node`` is active."""
        self._node = node
        self._detections = node.create_lifecycle_publisher(
            Detection3DArray, '~/detections', _RELIABLE
        )
        self._label_info = node.create_lifecycle_publisher(LabelInfo, '~/label_info', _LATCHED)
        self._markers = node.create_lifecycle_publisher(MarkerArray, '~/markers', _RELIABLE)
        self._objects = node.create_lifecycle_publisher(PointCloud2, '~/objects', _RELIABLE)
        self._depth_points = node.create_lifecycle_publisher(
            PointCloud2, '~/depth_points', _RELIABLE
        )
        self._latency = node.create_lifecycle_publisher(DiagnosticArray, '~/latency', _RELIABLE)
        self._last_stamp_ns: int | None = None

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (
            self._detections,
            self._label_info,
            self._markers,
            self._objects,
            self._depth_points,
            self._latency,
        ):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish_labels(
        self, class_names: tuple[str, ...], score_threshold: float, stamp_ns: int, frame_id: str
    ) -> None:
        """Send the table of labels, which late subscribers get, too."""
        self._label_info.publish(
            label_info(class_names, score_threshold, header(stamp_ns, frame_id))
        )

    def publish(
        self, answer: DetectionResult, all_cameras: tuple[str, ...], frame_id: str
    ) -> dict[str, float]:
        """Send ``answer`` in ``frame_id`` on all topics and return its seconds by stage,
        complete.
        """
        detections, began = answer.detections, time.monotonic()
        self._detections.publish(serialized_detection_array(detections, frame_id))
        if self._objects.get_subscription_count():
            self._objects.publish(objects_cloud(detections, frame_id))
        now = time.monotonic()
        seconds = {**answer.stage_seconds, 'publish': now - began, 'total': now - answer.received}
        if self._latency.get_subscription_count():
            self._latency.publish(
                latency_record(detections, answer.frame.rig.names, all_cameras, seconds, frame_id)
            )
        if self._markers.get_subscription_count():
            self._markers.publish(
                marker_array(detections, frame_id, self._marker_lifetime_s(detections.stamp_ns))
            )
        if answer.depth is not None and self._depth_points.get_subscription_count():
            self._depth_points.publish(
                depth_cloud(answer.frame, answer.depth, answer.config, frame_id)
            )
        self._last_stamp_ns = detections.stamp_ns
        return seconds

    def _marker_lifetime_s(self, stamp_ns: int) -> float:
        shortest, longest = MARKER_LIFETIME_S
        if self._last_stamp_ns is None:
            return longest
        return min(
            max(MARKER_LIFETIME_FRAMES * (stamp_ns - self._last_stamp_ns) * 1e-9, shortest),
            longest,
        )


class ResultPublisher:
    """Publishes answers in a thread of its own, so that detection never waits for DDS or for
    messages to be built.
    """

    def __init__(self, publish: Callable[[DetectionResult], dict[str, float]], monitor: Monitor):
        """Start the thread.

        Args:
            publish: sends one answer and returns its seconds by stage.
            monitor: is told of these, of answers that were replaced and of failures.
        """
        self._publish, self._monitor = publish, monitor
        self._thread: SlotThread[DetectionResult] = SlotThread('publication', self._run)

    def put(self, answer: DetectionResult) -> None:
        """Hand over an answer; it replaces one that still waits."""
        if self._thread.put(answer):
            self._monitor.answer_replaced()

    def stop(self, discard: bool, timeout_s: float | None = None) -> None:
        """End the thread; arguments as ``SlotThread.stop`` has them."""
        self._thread.stop(discard, timeout_s)

    def _run(self, answers: Iterator[DetectionResult]) -> None:
        for answer in answers:
            try:
                self._monitor.answer_published(self._publish(answer))
                self._monitor.solved('publish')
            except Exception as error:  # one answer that cannot be sent must not end the thread
                self._monitor.report(
                    'publish',
                    'sets',
                    ERROR,
                    f'detections could not be published: {type(error).__name__}: {error}',
                )
