"""The node ``bevdepth_visualizer``: one picture of everything, as a compressed image topic.

    ros2 run bevdepth_ros visualizer        # or visualizer:=true of the launch file

Subscribes to what the detector subscribes to and publishes; works only while somebody looks.
"""

from __future__ import annotations

import array

import cv2
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage

from bevdepth_core.visualization import compose
from bevdepth_ros.detections.messages import header
from bevdepth_ros.rendering.listener import LOG_PERIOD_S, SceneListener, figures
from bevdepth_ros.rendering.node_process import declare, run
from bevdepth_ros.rendering.scene import Scene

NODE_NAME = 'bevdepth_visualizer'
PANEL_SHARE = 0.25
"""A camera's part of the picture's width."""


class Visualizer(Node):
    """Publishes ``~/image/compressed``."""

    def __init__(self, **options):
        """Declare the parameters and subscribe.

        Args:
            options: as ``rclpy.node.Node`` takes them.

        Raises:
            ValueError: parameters that contradict each other.
            InvalidParameterValueException: a parameter out of range.
        """
        super().__init__(NODE_NAME, **options)
        rate = declare(self, 'rate_hz', 5.0, 'Pictures per second, at most.', 0.1, 30.0)
        self._width = declare(self, 'width', 1920, 'Width of the picture, pixels.', 480, 3840)
        self._quality = declare(self, 'jpeg_quality', 88, 'Of the JPEG.', 1, 100)
        self._score = declare(self, 'score_from', 0.25, 'Lowest score that is drawn.', 0.0, 1.0)
        self._listener = SceneListener(self, round(PANEL_SHARE * self._width))
        self._publisher = self.create_publisher(CompressedImage, '~/image/compressed', 2)
        self.create_timer(1 / rate, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _tick(self) -> None:
        try:
            if (
                self._publisher.get_subscription_count()
                and (scene := self._listener.take()) is not None
            ):
                self._publisher.publish(self._picture(scene))
        except Exception as error:  # an exception in a callback would end the node
            self.get_logger().error(
                f'a picture failed: {type(error).__name__}: {error}',
                throttle_duration_sec=LOG_PERIOD_S,
            )

    def _picture(self, scene: Scene) -> CompressedImage:
        caption = figures(self._listener, scene) or 'no detections: is the detector active?'
        detections = None if scene.detections is None else scene.detections.above(self._score)
        image = compose(
            scene.frame,
            detections,
            ground_truth=scene.ground_truth,
            caption=caption,
            width=self._width,
        )
        _, jpeg = cv2.imencode('.jpg', image[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, self._quality))
        return CompressedImage(
            header=header(scene.stamp_ns, ''), format='jpeg', data=array.array('B', jpeg.tobytes())
        )


def main() -> None:
    """Run the node until it is interrupted; does not return."""
    run(Visualizer, NODE_NAME)


if __name__ == '__main__':
    main()
