"""Runs the launched detector on a bag, at its own pace if wanted, and keeps what it publishes."""

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
LONGEST_SILENCE_S = 300.0
"""A launch in which nothing moves for so long has failed."""
STEP_NS = 40_000_000
"""Of the player's service ``~/step``: sets lie 50 ms apart or more, so that at most one comes in a
step. With two, a lost image that DDS sends again would complete both at once, and the node would
leave out the older one."""
SAME_STAMP_NS = 20_000_000
"""An answer at most this far from a set's mean exposure is that of the set; sets lie 50 ms apart
or more."""
IDLE_S = 10.0
"""The replay goes on without an answer when it stood so long and the detector has nothing left to
answer. DDS sends a lost image again after 3 s, on a busy machine not at once."""
LINGER_S = 0.5
"""How long to listen on after the launch has ended."""


class ClosedLoopError(Exception):
    """What the node publishes cannot be scored; the message says why."""


@dataclass(frozen=True)
class ImageTimes:
    """When the images of one set were taken: the mean, which the answer is stamped with, and the
    last.
    """

    mean_ns: int
    last_ns: int


@dataclass
class Answers:
    """What the detector published during one replay.

    Attributes:
        detections: ``~/detections`` by stamp in nanoseconds.
        objects: ``~/objects`` likewise.
        arrival_ns: time of the replay at which the objects came, by stamp.
        class_names: of the labels in the objects.
        diagnostics: newest values of ``/diagnostics`` by area.
    """

    detections: dict[int, Detection3DArray] = field(default_factory=dict)
    objects: dict[int, PointCloud2] = field(default_factory=dict)
    arrival_ns: dict[int, int] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()
    diagnostics: dict[str, dict[str, str]] = field(default_factory=dict)

    def stamps_ns(self) -> list[int]:
        """Return the stamps that came on both topics, in order of time."""
        return sorted(self.detections.keys() & self.objects.keys())

    def sets_at_work(self) -> int:
        """Return how many sets the detector had neither answered nor dropped when it last told."""
        counts = self.diagnostics.get('sets', {})
        return (
            int(counts.get('received', 0))
            - int(counts.get('answered', 0))
            - int(counts.get('dropped', 0))
        )


class Pacer:
    """Lets a replay that begins paused go on in steps, and not beyond a complete set that is not
    answered.

    A step ends by itself, so that a slow machine changes when sets come, not how many wait.
    """

    def __init__(self, node: Node, sets: Sequence[ImageTimes]):
        """Create the client.

        Args:
            node: its owner.
            sets: the sets of images in the bag, in order of time.
        """
        self._step = node.create_client(Trigger, f'{PLAYER}/step')
        self._pending = deque(sets)
        self._now_ns = self._target_ns = 0
        self._stepping = False
        self._stands_since = time.monotonic()

    def at(self, now_ns: int) -> None:
        """Note the time of the replay."""
        if now_ns != self._now_ns:
            self._stands_since = time.monotonic()
        self._now_ns = now_ns
        self._go_on()

    def answered(self, stamp_ns: int) -> None:
        """Let the replay go on beyond an answered set."""
        self._stands_since = time.monotonic()
        while self._pending and self._pending[0].mean_ns <= stamp_ns + SAME_STAMP_NS:
            self._pending.popleft()
        self._go_on()

    def idle(self) -> None:
        """Let the replay go on, if it stands: the detector has nothing to answer."""
        if self._stands_before_set() and time.monotonic() - self._stands_since > IDLE_S:
            self._pending.popleft()
            self._go_on()

    def _stands_before_set(self) -> bool:
        return bool(self._pending) and self._now_ns >= self._pending[0].last_ns

    def _go_on(self) -> None:
        stands = not self._stepping and self._now_ns >= self._target_ns
        if stands and not self._stands_before_set() and self._step.service_is_ready():
            self._target_ns = self._now_ns + STEP_NS
            self._stepping = True
            self._step.call_async(Trigger.Request()).add_done_callback(lambda _: self._stepped())

    def _stepped(self) -> None:
        self._stepping = False


class Listener:
    """Fills ``answers`` and tells the pacer, where there is one."""

    def __init__(self, node: Node, pacer: Pacer | None):
        """Subscribe on ``node``."""
        self.answers = Answers()
        self.moved_at = time.monotonic()
        self._pacer, self._now_ns = pacer, 0
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        node.create_subscription(
            Detection3DArray, f'{DETECTOR}/detections', self._on_detections, 100
        )
        node.create_subscription(PointCloud2, f'{DETECTOR}/objects', self._on_objects, 100)
        node.create_subscription(LabelInfo, f'{DETECTOR}/label_info', self._on_label_info, latched)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        node.create_subscription(Clock, '/clock', self._on_clock, newest)

    def _on_detections(self, message: Detection3DArray) -> None:
        self.answers.detections[stamp_ns(message)] = message

    def _on_objects(self, message: PointCloud2) -> None:
        stamp = stamp_ns(message)
        self.answers.objects[stamp] = message
        self.answers.arrival_ns[stamp] = self._now_ns
        self.moved_at = time.monotonic()
        if self._pacer is not None:
            self._pacer.answered(stamp)

    def _on_label_info(self, message: LabelInfo) -> None:
        self.answers.class_names = class_names(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name.startswith(f'{DETECTOR}: '):
                self.answers.diagnostics[status.name.split(': ')[1]] = {
                    entry.key: entry.value for entry in status.values
                }
        if self._pacer is not None and self.answers.sets_at_work() == 0:
            self._pacer.idle()

    def _on_clock(self, message: Clock) -> None:
        now_ns = Time.from_msg(message.clock).nanoseconds
        if now_ns != self._now_ns:
            self.moved_at = time.monotonic()
        self._now_ns = now_ns
        if self._pacer is not None:
            self._pacer.at(now_ns)


def listen_to_launch(
    arguments: list[str], log_path: Path, sets: Sequence[ImageTimes] | None
) -> Answers:
    """Run ``ros2 launch`` of the detector to its end and return what the detector published; rclpy
    must be initialised.

    Args:
        arguments: of the launch file, ``bag:=`` among them; ``start_paused:=true`` and ``step``
            are added where the replay waits.
        log_path: gets the launch's output.
        sets: of images in the bag, whose answers the replay waits for; None: it waits for nothing.

    Raises:
        ClosedLoopError: the launch failed or stood still.
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
        listener = Listener(node, None if sets is None else Pacer(node, sets))
        with launched(arguments, log_path) as process:
            while (
                process.poll() is None and time.monotonic() < listener.moved_at + LONGEST_SILENCE_S
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
        what = (
            f'stood still for {LONGEST_SILENCE_S:.0f} s'
            if status is None
            else f'failed with exit status {status}'
        )
        raise ClosedLoopError(f'the launch {what}\n{last_lines(log_path)}')
    return listener.answers
