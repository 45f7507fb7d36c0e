"""Publishes detections and tracks as Autoware messages, if Autoware's messages are installed."""

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
    """Publishes DetectedObjects and TrackedObjects; a message is built only if its topic has
    subscribers.
    """

    def __init__(
        self, msg: ModuleType | None, create: Callable[[type, str], LifecyclePublisher]
    ) -> None:
        """Create the publishers.

        Args:
            msg: module of Autoware's messages; None if they are not installed: nothing is
                published then.
            create: creates a publisher of a message type on a topic.
        """
        self._msg = msg
        # Track ids begin with 1 in every run; the UUIDs must differ between runs.
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
        """Publish the objects of one result, in ``frame_id``; ``tracks`` is None without
        tracking.
        """
        if self._msg is None:
            return
        if self._detected.get_subscription_count():
            self._detected.publish(detected_objects(self._msg, detections, covariance, frame_id))
        if tracks is not None and self._tracked.get_subscription_count():
            self._tracked.publish(
                tracked_objects(self._msg, tracks, self._track_id_namespace, frame_id)
            )
