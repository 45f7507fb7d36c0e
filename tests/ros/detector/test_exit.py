"""Sends signals to the process of the node while the node loads a network or detects."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.task import Future

from tests.ros.camera_rig import Rig
from tests.ros.detector.running import ACTIVATE, CAMERAS, CONFIGURE
from tests.ros.graph import TIMEOUT_S, Graph, wait_until
from tests.ros.launches import DISTRIBUTIONS, read_until, run

PARTICIPANT_LEASE_S = 20.0
"""Time for which DDS still lists a process that did not destroy its node, seconds."""
SLOW_DETECTOR = """
import time
from bevdepth_core.inference import Detector
from bevdepth_ros.detector.node import run_detector


def detect(detector, frame):
    print('detecting', flush=True)
    time.sleep(3600)


Detector.__call__ = detect
run_detector()
"""


class RunningNode:
    """The node in a process of its own, and a client for its transitions."""

    def __init__(self, graph: Graph, *program: str, **parameters: object):
        words = [word for name, value in parameters.items() for word in ('-p', f'{name}:={value}')]
        self.graph = graph
        self.process = run(DISTRIBUTIONS[0], 'python', *program, '--ros-args', *words)
        self._client = graph.node.create_client(ChangeState, '/bevdepth_detector/change_state')
        assert self._client.wait_for_service(TIMEOUT_S)
        wait_until(self.is_listed, 'the node')

    def change(self, transition: int) -> Future:
        return self._client.call_async(ChangeState.Request(transition=Transition(id=transition)))

    def is_listed(self) -> bool:
        return 'bevdepth_detector' in self.graph.node.get_node_names()

    def require_clean_end(self, number: int) -> None:
        """Send the signal ``number``. Wait until the process has ended without an error, and until
        the node under test is no longer listed in the ROS graph."""
        self.process.send_signal(number)
        log = self.process.communicate(timeout=TIMEOUT_S)[0]
        assert self.process.returncode == 0, log
        for word in ('Traceback', 'ERROR', 'FATAL', 'Error occurred'):
            assert word not in log, log
        wait_until(
            lambda: not self.is_listed(),
            'the removal of the node from the ROS graph',
            PARTICIPANT_LEASE_S / 2,
        )


def test_the_node_ends_cleanly_and_leaves_the_ros_graph_on_a_signal_while_it_loads_a_network(
    graph: Graph, tiny_checkpoint: Path, tmp_path: Path
):
    """The manifest of the network is a pipe, so loading does not end."""
    manifest = tmp_path / 'manifest.json'
    os.mkfifo(manifest)
    parameters = {'checkpoint': tiny_checkpoint, 'runtime': 'onnx', 'onnx_folder': tmp_path}
    node = RunningNode(graph, '-m', 'bevdepth_ros.detector', **parameters)
    node.change(CONFIGURE)
    with manifest.open('w'):  # open waits until the node opens the pipe for reading
        node.require_clean_end(signal.SIGINT)


def test_the_node_ends_cleanly_and_leaves_the_ros_graph_on_a_signal_while_it_detects(
    graph: Graph, tiny_checkpoint: Path
):
    parameters = {
        'checkpoint': tiny_checkpoint, 'cameras': list(CAMERAS),
        'image_topics': "['/{camera}/image']", 'device': 'cpu', 'geometry_timeout_s': 0.0,
    }  # fmt: skip
    node = RunningNode(graph, '-c', SLOW_DETECTOR, **parameters)
    rig = Rig(graph.node, CAMERAS)
    for transition in (CONFIGURE, ACTIVATE):
        response = node.change(transition)
        wait_until(response.done, f'transition {transition}')
        assert response.result().success
    rig.wait_for_detector()
    rig.send_extrinsics()
    rig.send_infos()
    for cycle in range(4):
        rig.send_poses(0.5 * cycle)
        rig.send_images(0.5 * cycle)
    read_until(node.process, 'detecting')
    node.require_clean_end(signal.SIGTERM)
