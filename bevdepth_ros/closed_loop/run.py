"""Launches the detector with the replay of a bag, and collects the results. On request, the replay
waits for the result of each image set.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from vision_msgs.msg import Detection3DArray, LabelInfo

from bevdepth_ros.detections.readings import class_names
from bevdepth_ros.launching import last_lines, launched
from bevdepth_ros.rig.stamps import stamp_ns

DETECTOR, PLAYER = '/bevdepth_detector', '/bag_player'
MAX_SILENCE_S = 300.0
"""A launch fails if /clock does not advance and no result arrives for this time, in seconds."""
STEP_NS = 40_000_000
"""Nanoseconds of the bag that one call of the player's service ``~/step`` plays. Image sets are at
least 50 ms apart, so a step publishes at most one image set. If a step published two image sets,
one image that DDS sends again could complete both sets, and the node would drop the older set.
"""
SAME_STAMP_NS = 20_000_000
"""Largest difference, in nanoseconds, between the stamp of a result and the mean exposure time of
its image set. Image sets are at least 50 ms apart."""
IDLE_S = 10.0
"""If the detector has no image set in progress, the replay waits at most this time, in seconds,
for a missing result. DDS sends a lost image again after 3 s, or later on a busy machine."""
LINGER_S = 0.5
"""After the end of the launch, messages are received for this time, in seconds."""


class ClosedLoopError(Exception):
    """The node cannot be evaluated; the message gives the reason."""


@dataclass(frozen=True)
class ImageTimes:
    """Stamps of one image set: the mean stamp, which is the stamp of the result, and the last
    stamp.
    """

    mean_ns: int
    last_ns: int


@dataclass
class PublishedResults:
    """Messages that the detector published during one replay.

    Attributes:
        detections: messages on ``~/detections`` by stamp in nanoseconds.
        objects: messages on ``~/objects`` by stamp.
        tracks: messages on ``~/tracks`` by stamp; empty if there are no ego poses.
        arrival_ns: time on the replay's clock at which ``~/objects`` arrived, by stamp.
        class_names: class names of the labels in ``~/objects``.
        diagnostics: newest values of ``/diagnostics`` by area.
    """

    detections: dict[int, Detection3DArray] = field(default_factory=dict)
    objects: dict[int, PointCloud2] = field(default_factory=dict)
    tracks: dict[int, Detection3DArray] = field(default_factory=dict)
    arrival_ns: dict[int, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)

    def stamps_ns(self) -> list[int]:
        """Return the stamps for which ``~/detections`` and ``~/objects`` were received, in order
        of time.
        """
        return sorted(self.detections.keys() & self.objects.keys())

    def sets_in_progress(self) -> int:
        """Return how many image sets have no result yet, according to the newest diagnostics."""
        counts = self.diagnostics.get('sets', {})
        return (
            int(counts.get('received', 0))
            - int(counts.get('processed', 0))
            - int(counts.get('dropped', 0))
        )


class ReplayStepper:
    """Advances a paused replay in steps. Before each step, the stepper waits until all complete
    image sets have results.

    The player pauses again after each step. On a slow machine, image sets are therefore published
    later, but the number of image sets that wait in the detector stays the same.
    """

    def __init__(self, node: Node, sets: Sequence[ImageTimes]):
        """Create the client of the player's service.

        Args:
            node: node that the client belongs to.
            sets: the image sets in the bag, in order of time.
        """
        self._step = node.create_client(Trigger, f'{PLAYER}/step')
        self._pending = deque(sets)
        self._now_ns = self._target_ns = 0
        self._stepping = False
        self._still_since = time.monotonic()

    def on_clock(self, now_ns: int) -> None:
        """Store the time of the replay, and request the next step unless a result is missing."""
        if now_ns != self._now_ns:
            self._still_since = time.monotonic()
        self._now_ns = now_ns
        self._step_if_allowed()

    def on_result(self, stamp_ns: int) -> None:
        """Stop waiting for the result with this stamp and for earlier results, and request the
        next step unless a result is missing.
        """
        self._still_since = time.monotonic()
        while self._pending and self._pending[0].mean_ns <= stamp_ns + SAME_STAMP_NS:
            self._pending.popleft()
        self._step_if_allowed()

    def on_idle(self) -> None:
        """Stop waiting for a result that has been missing for more than ``IDLE_S``. The collector
        calls this method while the detector has no image set in progress.
        """
        if self._waits_for_result() and time.monotonic() - self._still_since > IDLE_S:
            self._pending.popleft()
            self._step_if_allowed()

    def _waits_for_result(self) -> bool:
        return bool(self._pending) and self._now_ns >= self._pending[0].last_ns

    def _step_if_allowed(self) -> None:
        is_paused = not self._stepping and self._now_ns >= self._target_ns
        if is_paused and not self._waits_for_result() and self._step.service_is_ready():
            self._target_ns = self._now_ns + STEP_NS
            self._stepping = True
            self._step.call_async(Trigger.Request()).add_done_callback(lambda _: self._stepped())

    def _stepped(self) -> None:
        self._stepping = False


class ResultCollector:
    """Stores results in ``published``; passes events to the ``ReplayStepper`` if there is one."""

    def __init__(self, node: Node, stepper: ReplayStepper | None):
        """Create the subscriptions on ``node``."""
        self.published = PublishedResults()
        self.progress_at = time.monotonic()
        self._stepper, self._now_ns = stepper, 0
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(
            Detection3DArray, f'{DETECTOR}/detections', self._on_detections, 100
        )
        node.create_subscription(PointCloud2, f'{DETECTOR}/objects', self._on_objects, 100)
        node.create_subscription(Detection3DArray, f'{DETECTOR}/tracks', self._on_tracks, 100)
        node.create_subscription(LabelInfo, f'{DETECTOR}/label_info', self._on_label_info, latched)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        node.create_subscription(Clock, '/clock', self._on_clock, newest)

    def _on_detections(self, message: Detection3DArray) -> None:
        self.published.detections[stamp_ns(message)] = message

    def _on_objects(self, message: PointCloud2) -> None:
        stamp = stamp_ns(message)
        self.published.objects[stamp] = message
        self.published.arrival_ns[stamp] = self._now_ns
        self.progress_at = time.monotonic()
        if self._stepper is not None:
            self._stepper.on_result(stamp)

    def _on_tracks(self, message: Detection3DArray) -> None:
        self.published.tracks[stamp_ns(message)] = message

    def _on_label_info(self, message: LabelInfo) -> None:
        self.published.class_names = class_names(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f'{DETECTOR}: '):
                self.published.diagnostics[status.name.split(': ')[1]] = {
                    entry.key: entry.value for entry in status.values
                }
        if self._stepper is not None and self.published.sets_in_progress() == 0:
            self._stepper.on_idle()

    def _on_clock(self, message: Clock) -> None:
        now_ns = Time.from_msg(message.clock).nanoseconds
        if now_ns != self._now_ns:
            self.progress_at = time.monotonic()
        self._now_ns = now_ns
        if self._stepper is not None:
            self._stepper.on_clock(now_ns)


def collect_results(
    arguments: list[str], log_path: Path, sets: Sequence[ImageTimes] | None
) -> PublishedResults:
    """Run ``ros2 launch`` of the detector to its end and return what the detector published.

    The caller initializes rclpy.

    Args:
        arguments: arguments of the launch file, including ``bag:=``; ``start_paused:=`` and
            ``step:=`` are added.
        log_path: file to which the output of the launch is written.
        sets: image sets in the bag; the replay waits for the result of each set. If None, the
            replay does not wait.

    Raises:
        ClosedLoopError: the launch failed or made no progress.
        LaunchError: there is no ``ros2`` command.
    """
    node = Node('bevdepth_closed_loop', start_parameter_services=False)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    arguments = [
        *arguments,
        f'start_paused:={str(sets is not None).lower()}',
        f'step:={STEP_NS * 1e-9}',
    ]
    try:
        collector = ResultCollector(node, None if sets is None else ReplayStepper(node, sets))
        with launched(arguments, log_path) as process:
            while (
                process.poll() is None and time.monotonic() < collector.progress_at + MAX_SILENCE_S
            ):
                executor.spin_once(timeout_sec=0.1)
            status = process.poll()
        ended = time.monotonic()
        while time.monotonic() < ended + LINGER_S:
            executor.spin_once(timeout_sec=0.1)
    finally:
        executor.shutdown()
        node.destroy_node()
    if status != 0:
        outcome = (
            f'made no progress for {MAX_SILENCE_S:.0f} s'
            if status is None
            else f'failed with exit status {status}'
        )
        raise ClosedLoopError(f'the launch {outcome}\n{last_lines(log_path)}')
    return collector.published
