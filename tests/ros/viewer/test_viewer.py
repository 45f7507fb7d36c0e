"""Tests the messages that a browser receives from the server of the live view."""

from __future__ import annotations

import itertools
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress

import msgspec
import numpy as np
import pytest
import viser
import zstandard
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from websockets.sync.client import ClientConnection, connect

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.detections.messages import objects_cloud
from bevdepth_ros.viewer.node import Viewer
from bevdepth_ros.viewer.page import Page
from tests.ros.camera_rig import Rig
from tests.ros.graph import TIMEOUT_S, Graph, wait_until

CAMERAS = ('left', 'right')
PERIOD_S = 0.2
SEND_AGAIN_S = 5.0


@pytest.fixture
def viewer(graph: Graph) -> Iterator[Viewer]:
    values = {
        'cameras': list(CAMERAS),
        'image_topics': ['/{camera}/image'],
        'rate_hz': 20.0,
        'port': 0,
    }
    node = graph.add(
        Viewer(
            parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]
        )
    )
    yield node
    graph.stop()
    node.destroy_node()


CAMERA = {
    'type': 'ViewerCameraMessage', 'wxyz': (1.0, 0.0, 0.0, 0.0), 'position': (0.0, 0.0, 9.0),
    'fov': 1.0, 'near': 0.01, 'far': 1000.0,
    'image_height': 900, 'image_width': 1600, 'look_at': (0.0, 0.0, 0.0), 'up_direction': (1.0,
    0.0, 0.0),
}  # fmt: skip


class Browser:
    """A client that reads the messages of the server as the page does."""

    def __init__(self, connection: ClientConnection):
        """Send the pose of the virtual camera, as the page does. The server counts a browser as
        connected only after this message.
        """
        self._connection = connection
        self._waiting: deque[tuple[dict, list[bytes]]] = deque()
        connection.send(msgspec.msgpack.encode(CAMERA))

    def wait_for(
        self,
        kind: str,
        accept: Callable[[dict], bool] = lambda message: True,
        send: Callable[[], None] | None = None,
    ) -> tuple[dict, list[bytes]]:
        """Return the first message of type ``kind`` for which ``accept`` returns True, and the
        binary buffers of its packet.

        ``send`` is called immediately. It is called again whenever no packet arrives for
        SEND_AGAIN_S seconds, because ROS may lose a message.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while send is not None and time.monotonic() < deadline:
            send()
            with suppress(TimeoutError):
                return self._next(kind, accept, SEND_AGAIN_S)
        return self._next(kind, accept, TIMEOUT_S)

    def _next(
        self, kind: str, accept: Callable[[dict], bool], timeout_s: float
    ) -> tuple[dict, list[bytes]]:
        while True:
            while self._waiting:
                message, buffers = self._waiting.popleft()
                if message['type'] == kind and accept(message):
                    return message, buffers
            messages, buffers = decoded(self._connection.recv(timeout=timeout_s))
            self._waiting.extend((message, buffers) for message in messages)


def named(name: str) -> Callable[[dict], bool]:
    """Return a function that returns True for messages about the scene element ``name``."""
    return lambda message: message['name'] == name


def decoded(data: bytes) -> tuple[list[dict], list[bytes]]:
    """Return the messages and the binary buffers of a packet."""
    size = int.from_bytes(data[8:16], 'little')
    content = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(data[16 : 16 + size]))
    buffers, start = [], 16 + size
    for length in content['binaryBufferLengths']:
        start += -start % 8
        buffers.append(data[start : start + length])
        start += length
    return content['messages'], buffers


def test_a_browser_receives_the_page_then_the_names_of_topics_without_messages_and_then_boxes(
    graph: Graph, viewer: Viewer
) -> None:
    address = f'127.0.0.1:{viewer.page.port}'
    assert b'<title>' in urllib.request.urlopen(f'http://{address}', timeout=TIMEOUT_S).read()
    rig = Rig(graph.node, CAMERAS)
    rig.wait_for_detector()
    objects = graph.node.create_publisher(PointCloud2, '/bevdepth_detector/objects', 10)
    wait_until(lambda: objects.get_subscription_count(), 'the subscription of the viewer')
    with connect(
        f'ws://{address}', subprotocols=[f'viser-v{viser.__version__}'], max_size=None
    ) as connection:
        browser = Browser(connection)
        browser.wait_for('GridMessage')
        readout, _ = browser.wait_for('GuiHtmlMessage')
        assert all(f'/{camera}/image' in readout['props']['content'] for camera in CAMERAS)
        wait_until(lambda: viewer.page.has_viewers, 'the browser')
        boxes = Boxes3D([(14, 0.2, 1.6)], [(11, 2.9, 3.4)], [0], [(5, 0)])
        times_s = itertools.count(step=PERIOD_S)

        def send(name: str) -> None:
            time_s, label = next(times_s), NUSCENES_CLASSES.index(name)
            rig.send_all(time_s)
            found = Detections3D(
                boxes, [0.8], [label], NUSCENES_CLASSES, rig.mean_stamp_ns(time_s), 0
            )
            objects.publish(objects_cloud(found, 'base_link'))

        mesh, buffers = browser.wait_for(
            'MeshMessage', lambda message: message['name'].endswith('/bus'), lambda: send('bus')
        )
        vertices = np.frombuffer(
            buffers[mesh['props']['vertices']['__binary_index']], np.float32
        ).reshape(-1, 3)
        np.testing.assert_allclose(vertices, boxes.corners()[0], atol=1e-5)
        browser.wait_for(
            'MeshMessage', lambda message: message['name'].endswith('/car'), lambda: send('car')
        )


def test_a_browser_that_connects_later_receives_the_current_text(
    graph: Graph, viewer: Viewer
) -> None:
    rig = Rig(graph.node, CAMERAS)
    rig.wait_for_detector()
    address, protocol = f'ws://127.0.0.1:{viewer.page.port}', f'viser-v{viser.__version__}'
    with connect(address, subprotocols=[protocol], max_size=None) as connection:
        browser = Browser(connection)
        browser.wait_for('GridMessage')
        times_s = itertools.count(step=PERIOD_S)
        timer = graph.node.create_timer(PERIOD_S, lambda: rig.send_all(next(times_s)))
        for camera in CAMERAS:
            browser.wait_for('ImageMessage', named(f'/cameras/{camera}'))
        timer.cancel()
    with connect(address, subprotocols=[protocol], max_size=None) as late:
        readout, _ = Browser(late).wait_for('GuiHtmlMessage')
        assert 'no detections: is the detector active?' in readout['props']['content']


def test_an_open_page_shows_that_the_live_view_has_ended() -> None:
    page = Page('127.0.0.1', 0, 5.0)
    address, protocol = f'ws://127.0.0.1:{page.port}', f'viser-v{viser.__version__}'
    with connect(address, subprotocols=[protocol], max_size=None) as connection:
        browser = Browser(connection)
        browser.wait_for('GridMessage')
        wait_until(lambda: page.has_viewers, 'the browser')
        page.close()
        browser.wait_for(
            'GuiUpdateMessage',
            lambda message: 'has ended' in message['updates'].get('content', ''),
        )


def test_the_server_accepts_only_connections_from_this_machine(
    graph: Graph, viewer: Viewer
) -> None:
    port = viewer.page.port
    with open('/proc/net/tcp') as table:
        listening = [row.split()[1] for row in table.readlines()[1:] if row.split()[3] == '0A']
    assert [address for address in listening if address.endswith(f':{port:04X}')] == [
        f'0100007F:{port:04X}'
    ]
