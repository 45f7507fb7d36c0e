"""The soak test: injects faults in random order, with pauses, and records how the node reacts and
recovers."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import rclpy

from tests.ros.camera_stream import Stream
from tests.ros.graph import Graph
from tests.soak.detector import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, RunningDetector
from tests.soak.faults import FAULTS, PERIOD_S

RECOVERY_S = 120.0
"""If there is no result for this time after the end of a fault, the node has not recovered. The
time is long, because the machine may be slow."""
SAMPLE_S = 5.0
"""Shortest time between two samples of memory, threads and open files."""
RECENT_ROUNDS = 600
"""Number of the newest image sets whose exposure times are compared with the stamps of results."""
SHIFTED = ('stamps of a camera shifted', 'time jumps back', 'time jumps forward')
"""Faults after which the stamps do not show whether the images of a set belong to one trigger
cycle."""


@dataclass
class Outcome:
    """Outcome of one kind of fault over all its injections.

    Attributes:
        seconds: total duration.
        results: number of results during the fault.
        worst: highest diagnostics level of each injection.
        recoveries_s: recovery time of each injection, from the end of the fault to the first
            result of images that were published without the fault; ``RECOVERY_S`` if there is no
            such result.
    """

    seconds: float = 0.0
    results: int = 0
    worst: list[int] = field(default_factory=list)
    recoveries_s: list[float] = field(default_factory=list)


@dataclass
class Result:
    """Result of a soak test.

    Attributes:
        outcomes: outcome of each kind of fault, by the name of the fault.
        failures: messages; empty if the test passed.
        samples: per sample, the time in seconds, the memory in MiB, and the numbers of threads and
            of open files.
        counts: image sets by outcome, as in the diagnostics.
        sent: number of image sets that were published, including sets with silent cameras.
        seconds: total duration.
        exit_code: exit code of the node.
    """

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    samples: list[tuple[float, float, int, int]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    sent: int = 0
    seconds: float = 0.0
    exit_code: int | None = None


class Soak:
    """One run of the soak test; rclpy must be initialized.

    Args:
        seconds: longest duration; None for no limit.
        faults: largest number of faults; None for no limit.
        hold_s: shortest and longest duration of a fault, seconds; has no effect on lifecycle
            transitions.
        rest_s: shortest and longest pause after the recovery, seconds.
        seed: seed of all random values.
        report: receives a progress message at the start and after each pass over all faults.
    """

    def __init__(
        self,
        seconds: float | None,
        faults: int | None,
        hold_s: tuple[float, float],
        rest_s: tuple[float, float],
        seed: int,
        report: Callable[[str], None],
    ) -> None:
        self._seconds, self._faults = seconds or math.inf, faults or math.inf
        self._hold_s, self._rest_s = hold_s, rest_s
        self._rng, self._report = Random(seed), report
        self._result = Result()
        self._events: dict[str, Callable[[], None]] = {
            name: lambda draw=draw: self._hold(draw(self._rng)) for name, draw in FAULTS.items()
        }
        self._events['parameters change'] = self._change_parameters
        self._events['deactivated and activated'] = lambda: self._detector.change(
            DEACTIVATE, ACTIVATE
        )
        self._events['cleaned up and configured'] = lambda: self._detector.change(
            DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE
        )

    def run(self) -> Result:
        """Run the soak test and return its result, which contains the failures.

        Raises:
            subprocess.TimeoutExpired: the node does not end after SIGTERM.
        """
        graph = Graph()
        with tempfile.TemporaryDirectory() as folder:
            self._detector, self._stream = (
                RunningDetector(graph.node, Path(folder)),
                Stream(graph.node, PERIOD_S),
            )
            try:
                self._detector.change(CONFIGURE, ACTIVATE)
                self._soak()
            except AssertionError as error:
                self._result.failures.append(str(error))
            finally:
                self._stream.close()
                self._result.exit_code = self._detector.close()
                graph.close()
            self._conclude()
        return self._result

    def _soak(self) -> None:
        self._require_recovery('start', time.monotonic())
        self._began = self._sampled_at = time.monotonic()
        pending: list[str] = []
        while not self._is_over():
            if not pending:
                pending = self._rng.sample(sorted(self._events), len(self._events))
                self._report_progress()
            self._inject(pending.pop())
        self._result.seconds = time.monotonic() - self._began

    def _is_over(self) -> bool:
        happened = sum(len(outcome.worst) for outcome in self._result.outcomes.values())
        late = time.monotonic() >= self._began + self._seconds
        return late or happened >= self._faults or not self._detector.alive()

    def _inject(self, name: str) -> None:
        """Inject one fault, end it, and wait until the node has recovered."""
        outcome = self._result.outcomes.setdefault(name, Outcome())
        results, began, self._detector.worst = len(self._detector.results), time.monotonic(), 0
        self._events[name]()
        ended = time.monotonic()
        outcome.seconds += ended - began
        outcome.results += len(self._detector.results) - results
        outcome.worst.append(self._detector.worst)
        outcome.recoveries_s.append(self._require_recovery(name, ended))
        self._wait(self._rng.uniform(*self._rest_s))
        if name not in SHIFTED:
            self._require_true_stamps(name, results)

    def _hold(self, hooks: dict[str, object]) -> None:
        with self._stream.fault(**hooks):
            self._wait(self._rng.uniform(*self._hold_s))

    def _change_parameters(self) -> None:
        """Set parameters to valid and invalid values."""
        end = time.monotonic() + self._rng.uniform(*self._hold_s)
        while time.monotonic() < end:
            name, low, high = self._rng.choice(
                (
                    ('score_threshold', -0.5, 1.5),
                    ('geometry_timeout_s', -1, 1),
                    ('sync_slop_s', 0.01, 0.1),
                )
            )
            self._detector.set(name, self._rng.uniform(low, high))
        for name, value in (('score_threshold', 0.05), ('geometry_timeout_s', 0.1)):
            self._detector.set(name, value)

    def _wait(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end and self._detector.alive():
            if now >= self._sampled_at:
                self._sampled_at = now + SAMPLE_S
                self._result.samples.append((now - self._began, *self._detector.usage()))
            time.sleep(min(0.05, end - now))

    def _require_recovery(self, name: str, ended: float) -> float:
        """Wait for a result of images that are exposed from now on, and return the time from
        ``ended`` to this result.

        If there is no such result, add a failure and return ``RECOVERY_S``.
        """
        exposures_ns, first = self._stream.exposures_ns, len(self._stream.exposures_ns)
        while len(exposures_ns) == first:
            time.sleep(0.005)
        first_ns, _ = exposures_ns[first]
        while time.monotonic() < ended + RECOVERY_S:
            # A result with a stamp after the newest exposure comes from images that were sent
            # while the clock was ahead.
            _, newest_ns = exposures_ns[-1]
            for at, stamp_ns in self._detector.results[-1:]:
                if at >= ended and first_ns <= stamp_ns <= newest_ns:
                    return at - ended
            assert self._detector.alive(), f'the node ended after the event {name!r}'
            time.sleep(0.01)
        self._result.failures.append(f'no result for {RECOVERY_S} s after the event {name!r}')
        return RECOVERY_S

    def _require_true_stamps(self, name: str, first_result: int) -> None:
        """Check that the stamp of each result, from number ``first_result`` on, lies between the
        first and the last exposure of an image set.

        The stamp of a result is the mean stamp of its images. If the images belonged to different
        trigger cycles, this mean would usually lie between two image sets.
        """
        recent = self._stream.exposures_ns[-RECENT_ROUNDS:]
        for _, stamp_ns in self._detector.results[first_result:]:
            if stamp_ns > recent[0][0] and not any(
                first <= stamp_ns <= last for first, last in recent
            ):
                self._result.failures.append(
                    f'{name}: a result with the stamp {stamp_ns} ns belongs to no image set'
                )

    def _report_progress(self) -> None:
        memory, threads, files = self._detector.usage()
        counts = self._detector.counts()
        self._report(
            f'{time.monotonic() - self._began:6.0f} s: {len(self._stream.rounds)} rounds sent, '
            f'{counts.get("processed", 0)} processed, '
            f'{counts.get("dropped", 0)} dropped; {memory:.1f} MiB, {threads} threads, {files} '
            'files'
        )

    def _conclude(self) -> None:
        result, log = self._result, self._detector.log()
        result.sent, result.counts = len(self._stream.rounds), self._detector.counts()
        result.failures += sorted(set(self._detector.invalid_results))
        if 'Traceback' in log or 'detection failed' in log:
            lines = log.splitlines()
            place = next(
                number
                for number, line in enumerate(lines)
                if 'Traceback' in line or 'detection failed' in line
            )
            result.failures.append('the node logged: ' + '\n'.join(lines[place : place + 12]))
        if result.exit_code != 0:
            result.failures.append(f'the node ended with exit code {result.exit_code}')


def run(
    seconds: float | None = None,
    faults: int | None = None,
    hold_s: tuple[float, float] = (1.0, 6.0),
    rest_s: tuple[float, float] = (1.0, 4.0),
    seed: int = 0,
    report: Callable[[str], None] = print,
) -> Result:
    """Run the soak test in the ROS domain of this process; see ``Soak`` for the arguments."""
    rclpy.init()
    try:
        return Soak(seconds, faults, hold_s, rest_s, seed, report).run()
    finally:
        rclpy.shutdown()
