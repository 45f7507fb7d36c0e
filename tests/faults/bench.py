"""Runs the node as a process with a stream of synthetic input, and records its output."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import psutil
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile

from bevdepth_ros.rig.stamps import stamp_ns
from tests.ros.camera_stream import CAMERAS, Stream
from tests.ros.graph import TIMEOUT_S, Graph, wait_until

NODE = '/bevdepth_detector'
LEVELS = {
    'OK': DiagnosticStatus.OK,
    'WARN': DiagnosticStatus.WARN,
    'ERROR': DiagnosticStatus.ERROR,
}
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
START_TIMEOUT_S = 120.0
"""The timeout is long, because importing torch takes long on a busy machine."""
SAME_ROUND_NS = 1_000_000
PENDING_ROUNDS = 100
"""Largest number of image sets that wait for their result at any time."""
PARAMETERS = {
    'cameras': list(CAMERAS), 'image_topics': ['/{camera}/image'],
    'camera_info_topics': ['/{camera}/camera_info'], 'device': 'cpu',
    'score_threshold': 0.0, 'camera_timeout_s': 0.8, 'camera_startup_s': 1.5,
    'geometry_timeout_s': 0.05,
}  # fmt: skip


@dataclass(frozen=True)
class Record:
    """One result, as ``~/latency`` reports it."""

    received_at: float
    stamp_ns: int
    cameras: frozenset[str]
    fused: bool


class Bench:
    """Starts the node, subscribes to its topics and calls its services. The argument ``since``
    of the methods is a time of ``time.monotonic``.
    """

    def __init__(self, graph: Graph, checkpoint: Path, log: Path, **parameters):
        self.graph, self.checkpoint = graph, checkpoint
        self._usual = {**PARAMETERS, 'checkpoint': str(checkpoint), **parameters}
        self.values = self._usual
        self._log = log.open('w')
        command = [
            sys.executable,
            '-m',
            'bevdepth_ros.detector',
            '--ros-args',
            '-p',
            'diagnostics_period_s:=0.2',
        ]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._clients: dict = {}
        self.records: list[Record] = []
        self.statuses: list[tuple[float, dict[str, DiagnosticStatus]]] = []
        deep = QoSProfile(depth=200)
        graph.node.create_subscription(DiagnosticArray, f'{NODE}/latency', self._take_record, deep)
        graph.node.create_subscription(
            DiagnosticArray, '/diagnostics', self._take_diagnostics, deep
        )
        self.stream = Stream(graph.node)

    def start(self) -> None:
        """Configure and activate the node, and wait until it is healthy."""
        for name, value in self.values.items():
            assert self.set(name, value) == ''
        assert self.change(CONFIGURE)
        assert self.change(ACTIVATE)
        wait_until(lambda: self.is_healthy(0.0), 'a healthy node')

    def close(self) -> None:
        self.stream.close()
        self.process.send_signal(signal.SIGINT)
        try:
            assert self.process.wait(TIMEOUT_S) == 0, self.log_text()
        finally:
            self.process.kill()
            self._log.close()

    def log_text(self) -> str:
        """Return what the node printed so far."""
        return Path(self._log.name).read_text()

    def is_alive(self) -> bool:
        return self.process.poll() is None

    def change(self, transition_id: int) -> bool:
        """Request a transition; return True if it succeeded."""
        return self.call(
            ChangeState,
            'change_state',
            ChangeState.Request(transition=Transition(id=transition_id)),
        ).success

    def state(self) -> int:
        return self.call(GetState, 'get_state', GetState.Request()).current_state.id

    def set(self, name: str, value) -> str:
        """Set a parameter. Return the reason if the node rejects the value, otherwise an empty
        string.
        """
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg()]
        )
        return self.call(SetParameters, 'set_parameters', request).results[0].reason

    def call(self, kind, name: str, request):
        """Call a service of the node and return the response."""
        if name not in self._clients:
            self._clients[name] = self.graph.node.create_client(kind, f'{NODE}/{name}')
            assert self._clients[name].wait_for_service(START_TIMEOUT_S)
        future = self._clients[name].call_async(request)
        wait_until(future.done, f'a response of {name}')
        return future.result()

    def with_parameters(self, **values) -> None:
        """Run the node with ``values`` instead of the usual values. Parameters that an earlier
        call changed get their usual values again.
        """
        wanted = {**self._usual, **values}
        changed = {name: value for name, value in wanted.items() if self.values.get(name) != value}
        if not changed:
            return
        assert self.change(DEACTIVATE)
        for name, value in changed.items():
            assert self.set(name, value) == ''
        self.values = wanted
        self.stream.raw = wanted.get('image_transport') == 'raw'
        assert self.change(ACTIVATE)

    def restart(self) -> None:
        """Deactivate and activate the node, so that the node discards its measurements."""
        assert self.change(DEACTIVATE)
        assert self.change(ACTIVATE)

    def reports(self, level: str, area: str, words: str, since: float) -> bool:
        """Return True if a status of ``area`` that was received after ``since`` has the level
        ``level`` and a message that contains ``words``.
        """
        for received_at, statuses in reversed(self.statuses):
            if received_at < since:
                return False
            status = statuses.get(area)
            if status is not None and status.level == LEVELS[level] and words in status.message:
                return True
        return False

    def problems(self, since: float) -> set[str]:
        """Return all problems that were reported after ``since``."""
        found = [
            status for at, statuses in self.statuses if at >= since for status in statuses.values()
        ]
        return {
            f'{status.name.rsplit(": ", 1)[-1]}: {status.message}'
            for status in found
            if status.level != DiagnosticStatus.OK
        }

    def is_healthy(self, since: float) -> bool:
        """Return True if the newest diagnostics and the newest result were received after
        ``since``, the diagnostics report no problem, and the result has all cameras.
        """
        if not self.statuses or self.statuses[-1][0] < since or not self.results(since):
            return False
        levels = {status.level for status in self.statuses[-1][1].values()}
        return levels == {DiagnosticStatus.OK} and self.records[-1].cameras == frozenset(CAMERAS)

    def results(self, since: float) -> list[Record]:
        """Return the results that were received after ``since``, oldest first."""
        newest_first = takewhile(
            lambda record: record.received_at >= since, reversed(self.records)
        )
        return [*newest_first][::-1]

    def mixed(self, since: float, first_round: int) -> list[Record]:
        """Return the results after ``since`` that mix images of several trigger cycles.

        The stamp of a result is the mean stamp of the images of its cameras. A result is returned
        if this mean does not fit any single cycle in ``stream.rounds``. The last
        ``PENDING_ROUNDS`` cycles before ``first_round`` and all later cycles are compared.
        """
        rounds = self.stream.rounds[max(0, first_round - PENDING_ROUNDS) :]
        return [
            record
            for record in self.results(since)
            if not any(_belongs(record, sent) for sent in rounds)
        ]

    def results_for(self, since: float, first: int, last: int | None = None) -> list[Record]:
        """Return the results after ``since`` for the images of ``stream.rounds[first:last]``."""
        rounds = self.stream.rounds[first:last]
        return [
            record
            for record in self.results(since)
            if any(_belongs(record, sent) for sent in rounds)
        ]

    def usage(self) -> dict[str, float]:
        """Return the resources that the process uses: memory in MB, threads and file handles."""
        process = psutil.Process(self.process.pid)
        return {
            'memory_mb': process.memory_info().rss / 2**20,
            'threads': process.num_threads(),
            'handles': process.num_fds(),
        }

    def _take_record(self, message: DiagnosticArray) -> None:
        values = {value.key: value.value for value in message.status[0].values}
        cameras = frozenset(values['cameras'].split(', '))
        self.records.append(
            Record(
                time.monotonic(),
                stamp_ns(message),
                cameras,
                values['past_frame_age_s'] != 'none',
            )
        )

    def _take_diagnostics(self, message: DiagnosticArray) -> None:
        self.statuses.append(
            (
                time.monotonic(),
                {status.name.rsplit(': ', 1)[-1]: status for status in message.status},
            )
        )


def _belongs(record: Record, sent: dict[str, int]) -> bool:
    if not record.cameras <= sent.keys():
        return False
    stamps = [sent[camera] for camera in record.cameras]
    mean = stamps[0] + sum(stamp - stamps[0] for stamp in stamps) // len(stamps)
    return abs(mean - record.stamp_ns) < SAME_ROUND_NS
