"""Publishes detections and tracks as messages of Autoware, if the package of these messages is
installed.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from types import ModuleType

from rclpy.lifecycle import LifecyclePublisher

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Detections3D
from bevdepth_core.uncertainty import BoxCovariance
from bevdepth_ros.detections.autoware import detected_objects, tracked_objects


class AutowarePublishers:
    """Publishes DetectedObjects and TrackedObjects. It builds a message only if the topic of the
    message has subscribers.
    """

    def __init__(
        self, msg: ModuleType | None, create: Callable[[type, str], LifecyclePublisher]
    ) -> None:
        """Create the publishers.

        Args:
            msg: module of Autoware's messages, or None if these messages are not installed. In
                this case, nothing is published.
            create: function that creates a publisher for a message type and a topic.
        """
        self._msg = msg
        # Track ids begin with 1 in every run of the node. The UUID of a track is computed from its
        # id and from this random namespace, so tracks of different runs have different UUIDs.
        self._track_id_namespace = uuid.uuid4()
        if msg is not None:
            self._detected = create(msg.DetectedObjects, '~/detected_objects')
            self._tracked = create(msg.TrackedObjects, '~/tracked_objects')

    def publish(
        self,
        detections: Detections3D,
        covariance: BoxCovariance,
        tracks: Tracks3D | None,
        frame_id: str,
    ) -> None:
        """Publish the detections and tracks of one image set.

        Args:
            detections: the detected boxes.
            covariance: covariance of the detected boxes.
            tracks: the tracks, or None if tracking is off.
            frame_id: tf frame of the boxes and of the tracks.
        """
        if self._msg is None:
            return
        if self._detected.get_subscription_count():
            self._detected.publish(detected_objects(self._msg, detections, covariance, frame_id))
        if tracks is not None and self._tracked.get_subscription_count():
            self._tracked.publish(
                tracked_objects(self._msg, tracks, self._track_id_namespace, frame_id)
            )
