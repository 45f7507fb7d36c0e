"""The node ``bevdepth_viewer``: serves a live view for browsers, for machines without RViz.

    ros2 run bevdepth_ros viewer       # or viewer:=web of the launch file

Then open http://127.0.0.1:8080. The node renders only while a browser is connected. By default
only this machine can open the page. If ``host`` is not 127.0.0.1, other machines can open the page
with the printed URL, which contains a token. The connection is not encrypted: use an SSH tunnel in
a network that you do not trust.
"""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

from bevdepth_ros.rendering.listener import SceneListener, status_text
from bevdepth_ros.rendering.node_process import declare, run
from bevdepth_ros.viewer.moments import PANEL_SIZE, MomentHistory, moment_of
from bevdepth_ros.viewer.page import Page

NODE_NAME = 'bevdepth_viewer'


class Viewer(Node):
    """Serves the page."""

    def __init__(self, **options: Any) -> None:
        """Declare the parameters, subscribe and serve.

        Args:
            options: keyword arguments of ``rclpy.node.Node``.

        Raises:
            ValueError: parameters contradict each other.
            InvalidParameterValueException: a parameter is out of range.
        """
        super().__init__(NODE_NAME, **options)
        rate = declare(
            self, 'rate_hz', 5.0, 'Largest number of updates of the page per second.', 0.1, 30.0
        )
        history_s = declare(
            self, 'history_s', 30.0, 'Length of the timeline, seconds.', 1.0, 300.0
        )
        host = declare(
            self,
            'host',
            '127.0.0.1',
            'Address on which the server listens. Other machines can connect only if the address '
            'is not 127.0.0.1. They then need the token in the printed URL.',
        )
        port = declare(
            self,
            'port',
            8080,
            'Port on which the server listens. If this port is in use, the next free port is '
            'used. 0 selects any free port.',
            0,
            65535,
        )
        self._listener = SceneListener(self, PANEL_SIZE[0])
        self._history = MomentHistory(history_s)
        self.page = Page(host, port, history_s, self._listener.image_topics)
        self._listener.call_at(rate, self._update, 'the update of the page')
        self.get_logger().info(f'open {self.page.url} in a browser')

    def destroy_node(self) -> None:
        """Destroy the node and stop the server."""
        self.page.close()
        super().destroy_node()

    def _update(self) -> None:
        if not self.page.has_viewers:
            return
        scene = None if self.page.is_paused else self._listener.next_scene()
        if scene is not None:
            self._history.add(moment_of(scene, status_text(self._listener, scene)))
        moment = self._history.at(self.page.seconds_back)
        if moment is not None:
            self.page.show(moment)


def main() -> None:
    """Run the node until it is interrupted; does not return."""
    run(Viewer, NODE_NAME)


if __name__ == '__main__':
    main()
