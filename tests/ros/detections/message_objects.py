"""Converts detections to message objects, which tests compare with the serialized messages."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from bevdepth_core.types import Detections3D
from bevdepth_ros.detections.messages import header
from bevdepth_ros.detections.serialized import serialized_detection_array


def detection_array(detections: Detections3D, frame_id: str) -> Detection3DArray:
    """Return the message that the node publishes, as a subscriber receives it."""
    return deserialize_message(serialized_detection_array(detections, frame_id), Detection3DArray)


def built_array(
    detections: Detections3D, frame_id: str, ids: Sequence[int] | None = None
) -> Detection3DArray:
    """Return the message of the detections, built field by field from message classes of ROS."""
    common, messages = header(detections.stamp_ns, frame_id), []
    for index, label in enumerate(detections.labels):
        message = Detection3D(header=common, results=[ObjectHypothesisWithPose()])
        result, bbox, boxes = message.results[0], message.bbox, detections.boxes
        result.hypothesis.class_id = detections.class_names[label]
        result.hypothesis.score = float(detections.scores[index])
        position, orientation = bbox.center.position, bbox.center.orientation
        position.x, position.y, position.z = boxes.center[index].tolist()
        yaw = float(boxes.yaw[index])
        orientation.z, orientation.w = math.sin(yaw / 2), math.cos(yaw / 2)
        bbox.size.x, bbox.size.y, bbox.size.z = boxes.size[index].tolist()
        result.pose.pose = bbox.center
        message.id = '' if ids is None else str(ids[index])
        messages.append(message)
    return Detection3DArray(header=common, detections=messages)
