"""Logs class, score and position of every box of the detector.

python3 boxes_subscriber.py
"""

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from vision_msgs.msg import Detection3DArray


class BoxesSubscriber(Node):
    """Subscribes to the detections and logs them."""

    def __init__(self) -> None:
        """Subscribe to the detector."""
        super().__init__('boxes_subscriber')
        topic = 'bevdepth_detector/detections'
        self.create_subscription(Detection3DArray, topic, self._on_detections, 10)

    def _on_detections(self, message: Detection3DArray) -> None:
        for detection in message.detections:
            hypothesis = detection.results[0].hypothesis
            position = detection.bbox.center.position
            self.get_logger().info(
                f'{hypothesis.class_id} {hypothesis.score:.2f} at '
                f'({position.x:.1f}, {position.y:.1f}) m in {message.header.frame_id}'
            )


def main() -> None:
    """Run the node until it is interrupted."""
    rclpy.init()
    node = BoxesSubscriber()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    main()
