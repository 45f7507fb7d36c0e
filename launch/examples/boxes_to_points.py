"""Publishes the outlines of the boxes as points, which a Nav2 costmap uses as obstacles.

    python3 boxes_to_points.py --ros-args -p min_score:=0.3

Use it with nav2_costmap.yaml. The detector must publish in its base frame (``output_frame`` is
empty).

A costmap keeps an obstacle until a ray from the vehicle to a point passes through the cells of the
obstacle. After an object has left, there is often no box behind these cells, and therefore no such
ray. For this reason, the node also publishes points on a circle around the ego vehicle. With each
message, the costmap frees all cells within the circle, and then marks the cells of the boxes.
"""

from __future__ import annotations

import numpy as np
import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import create_cloud_xyz32
from vision_msgs.msg import BoundingBox3D, Detection3DArray

SPACING_M = 0.2
"""Distance between neighboring points in meters, at most the resolution of the costmap."""
RANGE_M = 30.0
"""Radius of the circle. In nav2_costmap.yaml, obstacle_max_range and raytrace_max_range have the
same value."""


def outline(box: BoundingBox3D) -> np.ndarray:
    """Return (N, 3) points on the sides of a box, at the height of its center."""
    length, width = box.size.x, box.size.y
    along = np.arange(-length / 2, length / 2, SPACING_M)
    across = np.arange(-width / 2, width / 2, SPACING_M)
    sides = [(along, np.full_like(along, side * width / 2)) for side in (-1, 1)]
    sides += [(np.full_like(across, side * length / 2), across) for side in (-1, 1)]
    x, y = (np.concatenate(part) for part in zip(*sides, strict=True))
    q, center = box.center.orientation, box.center.position
    yaw = 2 * np.arctan2(q.z, q.w)
    return np.stack(
        (
            center.x + np.cos(yaw) * x - np.sin(yaw) * y,
            center.y + np.sin(yaw) * x + np.cos(yaw) * y,
            np.full_like(x, center.z),
        ),
        axis=1,
    )


def circle() -> np.ndarray:
    """Return (N, 3) points on the circle around the ego vehicle, one meter above the ground."""
    angles = np.arange(0, 2 * np.pi, SPACING_M / RANGE_M)
    columns = (RANGE_M * np.cos(angles), RANGE_M * np.sin(angles), np.ones_like(angles))
    return np.stack(columns, axis=1).astype(np.float32)


class BoxesToPoints(Node):
    """Converts each message of the detector."""

    def __init__(self) -> None:
        """Declare the parameter, and create the publishers and the subscription."""
        super().__init__('boxes_to_points')
        self._min_score = self.declare_parameter('min_score', 0.3).value
        self._publisher = self.create_publisher(PointCloud2, '/detected_obstacles', 5)
        self._free_space = self.create_publisher(PointCloud2, '/detected_free_space', 5)
        topic = 'bevdepth_detector/detections'
        self.create_subscription(Detection3DArray, topic, self._on_detections, 10)

    def _on_detections(self, message: Detection3DArray) -> None:
        boxes = [
            outline(detection.bbox)
            for detection in message.detections
            if detection.results[0].hypothesis.score > self._min_score
        ]
        points = np.concatenate(boxes) if boxes else np.empty((0, 3))
        self._publisher.publish(create_cloud_xyz32(message.header, points.astype(np.float32)))
        self._free_space.publish(create_cloud_xyz32(message.header, circle()))


def main() -> None:
    """Run the node until it is interrupted."""
    rclpy.init()
    node = BoxesToPoints()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
