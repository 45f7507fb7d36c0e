"""Faults and track ids: each case compares the tracks before, during and after a fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from vision_msgs.msg import Detection3DArray

from bevdepth_ros.rig.stamps import stamp_ns
from tests.faults.bench import NODE, Bench
from tests.faults.cases.case import ALL, UNFUSED, Case
from tests.faults.cases.timing import clock_that_goes_back, shifted_once
from tests.faults.injections import BACK, SECOND_NS, image_fault, pose_fault
from tests.ros.graph import wait_until

STEADY = 3
"""Number of consecutive messages that must have tracks before ids are compared."""
PARAMETERS = {'track_birth_score': 0.0, 'track_min_hits': 1}
"""The thresholds are low, because random weights give low scores."""


class Tracks:
    """Records the ids in ``~/tracks`` inside its ``with`` block."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self.messages: list[tuple[int, frozenset[str]]] = []

    def __enter__(self) -> Tracks:
        self._subscription = self._bench.graph.node.create_subscription(
            Detection3DArray, f'{NODE}/tracks', self._take, 100
        )
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bench.graph.node.destroy_subscription(self._subscription)

    def next_ids(self) -> frozenset[str]:
        """Wait for ``STEADY`` messages, which must all have tracks, and return the ids in the last
        message.
        """
        first = len(self.messages)
        wait_until(lambda: len(self.messages) >= first + STEADY, 'tracks')
        assert all(ids for _, ids in self.messages[first:])
        return self.messages[-1][1]

    def _take(self, message: Detection3DArray) -> None:
        self.messages.append((stamp_ns(message), frozenset(one.id for one in message.detections)))


@contextmanager
def without_poses(bench: Bench) -> Iterator[None]:
    """Omit all ego poses. After the node has reported the missing poses, it must not publish
    tracks.
    """
    with Tracks(bench) as tracks:
        tracks.next_ids()
        with pose_fault(lambda pose: [])(bench):
            yield
            count = len(tracks.messages)
            began = time.monotonic()
            wait_until(lambda: len(bench.results(began)) >= STEADY, 'detections without poses')
            assert len(tracks.messages) == count
        tracks.next_ids()


@contextmanager
def repeated_bag(bench: Bench) -> Iterator[None]:
    with Tracks(bench) as tracks:
        before = tracks.next_ids()
        first_ns = tracks.messages[0][0]
        with shifted_once(bench, -30 * SECOND_NS):
            wait_until(lambda: tracks.messages[-1][0] < first_ns, 'tracks of the second round')
            assert not before & tracks.next_ids()
            yield


@contextmanager
def moved_map(bench: Bench) -> Iterator[None]:
    """Make the localization jump once; at least one track must keep its id."""

    def hook(pose) -> list:
        pose.transform.translation.y += 300.0
        return [pose]

    with Tracks(bench) as tracks:
        before = tracks.next_ids()
        with bench.stream.fault(pose=hook):
            yield
            assert before & tracks.next_ids()


@contextmanager
def short_silence(bench: Bench) -> Iterator[None]:
    """Silence a camera for half a second; more than half of the tracks must keep their ids."""
    with Tracks(bench) as tracks:
        before = tracks.next_ids()
        with image_fault(lambda message: [], BACK)(bench):
            time.sleep(0.5)
        assert len(before & tracks.next_ids()) > len(before) / 2
        yield


@contextmanager
def kept_over(bench: Bench, fault: Callable[[Bench], AbstractContextManager]) -> Iterator[None]:
    """Inject a fault that does not change stamps of images; at least one track must keep its
    id.
    """
    with Tracks(bench) as tracks:
        before = tracks.next_ids()
        with fault(bench):
            assert before & tracks.next_ids()
            yield


CASES = (
    Case(
        'objects are tracked, then ego poses are missing',
        without_poses,
        UNFUSED,
        ('WARN', 'tf', 'there are no velocities and no tracks'),
        PARAMETERS,
    ),
    Case(
        'objects are tracked while a bag starts again',
        repeated_bag,
        ALL,
        ('WARN', 'tf', 'went back in time'),
        PARAMETERS,
    ),
    Case(
        'objects are tracked while the localization jumps by 300 m',
        moved_map,
        ALL,
        ('WARN', 'tf', 'the ego pose moved by 30'),
        PARAMETERS,
    ),
    Case(
        'objects are tracked while a camera is silent for 0.5 s',
        short_silence,
        parameters=PARAMETERS,
    ),
    Case(
        'objects are tracked while /clock goes back by 60 s',
        lambda bench: kept_over(bench, clock_that_goes_back),
        parameters=PARAMETERS,
        tolerated='without ego motion',
    ),
)
