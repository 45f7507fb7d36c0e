"""The node ``bevdepth_visualizer``: publishes one rendered image of all cameras and the top view.

    ros2 run bevdepth_ros visualizer        # or visualizer:=true of the launch file

The node subscribes to the inputs and to the outputs of the detector. It renders only while one of
its own output topics has a subscriber.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_core.visualization import compose
from bevdepth_ros.detections.messages import header
from bevdepth_ros.rendering.listener import SceneListener, status_text
from bevdepth_ros.rendering.node_process import declare, run
from bevdepth_ros.rendering.scene import SHOWN_SCORE, Scene
from bevdepth_ros.rig.color_conversion import image_message, jpeg_message

NODE_NAME = 'bevdepth_visualizer'
PANEL_SHARE = 0.25
"""Width of a camera image as a share of the width of the rendered image."""


class Visualizer(Node):
    """Publishes ``~/image`` and ``~/image/compressed``."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters and subscribe.

        Args:
            options: options of ``rclpy.node.Node``.

        Raises:
            ValueError: parameters contradict each other.
            InvalidParameterValueException: a parameter is out of range.
        """
        super().__init__(NODE_NAME, **options)
        rate = declare(
            self, 'rate_hz', 5.0, 'Largest number of rendered images per second.', 0.1, 30.0
        )
        self._width = declare(
            self, 'width', 1920, 'Width of the rendered image, pixels.', 480, 3840
        )
        self._quality = declare(self, 'jpeg_quality', 88, 'Quality of the JPEG.', 1, 100)
        self._score = declare(
            self,
            'min_score',
            SHOWN_SCORE,
            'Lowest score of the boxes that are rendered.',
            0.0,
            1.0,
        )
        self._listener = SceneListener(self, round(PANEL_SHARE * self._width))
        self._raw = self.create_publisher(Image, '~/image', 2)
        self._compressed = self.create_publisher(CompressedImage, '~/image/compressed', 2)
        self._listener.call_at(rate, self._update, 'rendering')

    def _update(self) -> None:
        subscribed = [
            publisher
            for publisher in (self._raw, self._compressed)
            if publisher.get_subscription_count()
        ]
        if subscribed and (scene := self._listener.next_scene()) is not None:
            self._publish(scene, subscribed)

    def _publish(self, scene: Scene, publishers: list) -> None:
        image, stamp = self._rendered(scene), header(scene.stamp_ns, '')
        if self._raw in publishers:
            self._raw.publish(image_message(image, stamp))
        if self._compressed in publishers:
            self._compressed.publish(jpeg_message(image, stamp, self._quality))

    def _rendered(self, scene: Scene) -> np.ndarray:
        caption = status_text(self._listener, scene) or 'no detections: is the detector active?'
        return compose(
            scene.frame,
            None if scene.detections is None else scene.detections.above(self._score),
            ground_truth=scene.ground_truth,
            caption=caption,
            width=self._width,
        )


def main() -> None:
    """Run the node until it is interrupted. This function ends the process and does not return."""
    run(Visualizer, NODE_NAME)


if __name__ == '__main__':
    main()
