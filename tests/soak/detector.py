"""Runs the node with a tiny model as a child process, and subscribes to its outputs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points

from bevdepth_ros.rig.stamps import stamp_ns
from tests.networks import write_tiny_checkpoint
from tests.ros.camera_stream import CAMERAS

NAME = '/bevdepth_detector'
TIMEOUT_S = 120.0
CONFIGURE, CLEANUP = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_CLEANUP
ACTIVATE, DEACTIVATE = Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_DEACTIVATE


class RunningDetector:
    """Starts a node process and records the results and diagnostics of the node.

    Attributes:
        results: for each result, the time.monotonic() of its arrival and its stamp in nanoseconds.
        invalid_results: messages about results with invalid values.
        worst: highest diagnostics level since the caller last set this attribute to 0.
    """

    def __init__(self, node: Node, folder: Path, threshold: float = 0.05) -> None:
        self._node = node
        self._log = folder / 'node.log'
        values = {
            'cameras': f'[{", ".join(CAMERAS)}]', 'image_topics': '["/{camera}/image"]',
            'device': 'cpu',
            'checkpoint': write_tiny_checkpoint(folder / 'tiny.safetensors'),
            'score_threshold': threshold, 'camera_timeout_s': 0.5,
        }  # fmt: skip
        arguments = [part for name, value in values.items() for part in ('-p', f'{name}:={value}')]
        with self._log.open('wb') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'bevdepth_ros.detector', '--ros-args', *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.results: list[tuple[float, int]] = []
        self.invalid_results: list[str] = []
        self.worst = 0
        self._totals: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._lock = threading.Lock()
        self._clients: dict = {}
        node.create_subscription(PointCloud2, f'{NAME}/objects', self._take_objects, 10)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._take_diagnostics, 100)

    def usage(self) -> tuple[float, int, int]:
        """Return the memory of the process in MiB and its numbers of threads and open files."""
        process = psutil.Process(self._process.pid)
        return process.memory_info().rss / 2**20, process.num_threads(), process.num_fds()

    def alive(self) -> bool:
        return self._process.poll() is None

    def counts(self) -> dict[str, int]:
        """Return the numbers of received, processed and dropped sets, over all activations."""
        with self._lock:
            return {
                name: self._totals.get(name, 0) + count for name, count in self._newest.items()
            }

    def log(self) -> str:
        return self._log.read_text(errors='replace')

    def change(self, *transitions: int) -> None:
        """Perform lifecycle transitions one after the other.

        Raises:
            AssertionError: a transition failed.
        """
        for transition in transitions:
            request = ChangeState.Request(transition=Transition(id=transition))
            assert self._call(ChangeState, 'change_state', request).success, (
                f'transition {transition} failed'
            )

    def set(self, name: str, value) -> None:
        """Set a parameter of the node; the node may reject the value."""
        parameter = Parameter(name, value=value).to_parameter_msg()
        self._call(SetParameters, 'set_parameters', SetParameters.Request(parameters=[parameter]))

    def close(self) -> int:
        """End the process with SIGTERM, and return its exit code."""
        self._process.terminate()
        return self._process.wait(TIMEOUT_S)

    def _call(self, kind, name: str, request):
        if name not in self._clients:
            self._clients[name] = self._node.create_client(kind, f'{NAME}/{name}')
        client = self._clients[name]
        assert client.wait_for_service(TIMEOUT_S), f'the service {name} is not available'
        future = client.call_async(request)
        deadline = time.monotonic() + TIMEOUT_S
        while not future.done():
            assert time.monotonic() < deadline, f'the service {name} does not respond'
            time.sleep(0.01)
        return future.result()

    def _take_objects(self, message: PointCloud2) -> None:
        self.results.append((time.monotonic(), stamp_ns(message)))
        points = read_points(message)
        known = (
            'x',
            'y',
            'z',
            'length',
            'width',
            'height',
            'yaw',
            'score',
            *(('vx', 'vy') if message.is_dense else ()),
        )
        if not all(np.isfinite(points[name]).all() for name in known):
            self.invalid_results.append('a result has a box with a value that is not finite')

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if not status.name.startswith(f'{NAME}: ') and not status.name.startswith(
                f'{NAME[1:]}: '
            ):
                continue
            self.worst = max(self.worst, status.level[0])
            if status.name.endswith(': sets'):
                self._count(
                    {
                        value.key: int(value.value)
                        for value in status.values
                        if value.value.isdigit()
                    }
                )

    def _count(self, counts: dict[str, int]) -> None:
        """Store the newest counts of the node.

        The counts start at 0 with each activation. If they become smaller, the last counts of the
        previous activation are added to the totals.
        """
        with self._lock:
            if counts.get('received', 0) < self._newest.get('received', 0):
                self._totals = {
                    name: self._totals.get(name, 0) + count for name, count in self._newest.items()
                }
            self._newest = counts
