"""The node's voice: one publisher per output topic."""

from __future__ import annotations

import torch
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from bevdepth_core.config import ModelConfig
from bevdepth_core.types import Detections3D, Frame
from bevdepth_ros.depth_messages import depth_cloud
from bevdepth_ros.messages import detection_array, header, label_info, marker_array, objects_cloud

MARKER_LIFETIME_FRAMES = 2
MARKER_LIFETIME_S = (0.2, 5.0)
"""Markers live for about two frames, within these bounds."""

_RELIABLE = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(
    history=HistoryPolicy.KEEP_LAST, depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)


class Outputs:
    """Lifecycle publishers; what nobody listens to is not even built, but for the detections."""

    def __init__(self, node: LifecycleNode):
        """Create the publishers; they speak while ``node`` is active."""
        self._node = node
        self._detections = node.create_lifecycle_publisher(Detection3DArray, '~/detections', _RELIABLE)
        self._label_info = node.create_lifecycle_publisher(LabelInfo, '~/label_info', _LATCHED)
        self._markers = node.create_lifecycle_publisher(MarkerArray, '~/markers', _RELIABLE)
        self._objects = node.create_lifecycle_publisher(PointCloud2, '~/objects', _RELIABLE)
        self._depth_points = node.create_lifecycle_publisher(PointCloud2, '~/depth_points', _RELIABLE)
        self._last_stamp_ns: int | None = None

    def close(self) -> None:
        """Destroy the publishers."""
        for publisher in (self._detections, self._label_info, self._markers, self._objects, self._depth_points):
            self._node.destroy_lifecycle_publisher(publisher)

    def publish_labels(self, class_names: tuple[str, ...], score_threshold: float, stamp_ns: int, frame_id: str) -> None:
        """Send the table of labels, which late subscribers get, too."""
        self._label_info.publish(label_info(class_names, score_threshold, header(stamp_ns, frame_id)))

    def publish(self, detections: Detections3D, frame_id: str) -> None:
        """Send ``detections`` in ``frame_id`` on all topics."""
        self._detections.publish(detection_array(detections, frame_id))
        if self._objects.get_subscription_count():
            self._objects.publish(objects_cloud(detections, frame_id))
        if self._markers.get_subscription_count():
            self._markers.publish(marker_array(detections, frame_id, self._marker_lifetime_s(detections.stamp_ns)))
        self._last_stamp_ns = detections.stamp_ns

    def publish_depth(self, frame: Frame, distribution: torch.Tensor, config: ModelConfig, frame_id: str) -> None:
        """Send the depth of the frame's images, arguments as ``depth_cloud`` has them, if somebody listens."""
        if self._depth_points.get_subscription_count():
            self._depth_points.publish(depth_cloud(frame, distribution, config, frame_id))

    def _marker_lifetime_s(self, stamp_ns: int) -> float:
        shortest, longest = MARKER_LIFETIME_S
        if self._last_stamp_ns is None:
            return longest
        return min(max(MARKER_LIFETIME_FRAMES * (stamp_ns - self._last_stamp_ns) * 1e-9, shortest), longest)
