"""Injects a fault of the matrix into the running node, and checks what the node does.

The measured times are written to out/faults. From these times, ``python -m tests.faults.report``
creates the table in docs/RELIABILITY.md.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from itertools import takewhile

from tests.faults.bench import Bench, Record
from tests.faults.cases.case import ALL, NOTHING, UNFUSED, Case
from tests.faults.report import save_times
from tests.ros.camera_stream import CAMERAS
from tests.ros.graph import TIMEOUT_S, wait_until

RESULTS_IN_A_ROW = 3
"""Number of consecutive results that must be as expected."""
SLOW_MACHINE = 'the detector is too slow and drops image sets'
"""Part of the warning about a machine that is too slow for past frames. Beside other programs, the
node may publish this warning in every case."""
REJECTED_ROUNDS = 5
"""Number of image sets that must have no result, in a case in which nothing may be published."""


def require_report_and_recovery(bench: Bench, case: Case) -> None:
    """Fail unless the node reports the fault, publishes no false result, and recovers. After a
    failure, restart the node for the next case.
    """
    try:
        _inject_and_check(bench, case)
    except AssertionError:
        if bench.is_alive():
            bench.restart()
        raise


def _inject_and_check(bench: Bench, case: Case) -> None:
    bench.with_parameters(**case.parameters)
    prepared = time.monotonic()
    _seconds_until(lambda: bench.is_healthy(prepared), bench, 'a healthy node before the fault')
    began, first_round = time.monotonic(), len(bench.stream.rounds)
    with case.inject(bench):
        injected = time.monotonic()
        seen_s = _seconds_until(
            lambda: _is_diagnosed(bench, case, began), bench, f'{case.diagnosis}'
        )
        rejected = _require_published(bench, case, injected)
    ended, next_round = time.monotonic(), len(bench.stream.rounds)
    recovery_s = _seconds_until(lambda: bench.is_healthy(ended), bench, 'recovery')
    _seconds_until(lambda: bench.results_for(ended, next_round), bench, 'a result after the fault')
    assert not bench.results_for(injected, rejected.start, rejected.stop)
    assert bench.is_alive()
    assert case.overlapping or not bench.mixed(began, first_round), (
        'an image set contains images of two trigger cycles'
    )
    if case.diagnosis is None:
        tolerated = f'{case.tolerated}|{SLOW_MACHINE}'
        problems = bench.problems(began)
        assert all(re.search(tolerated, problem) for problem in problems), problems
    save_times(case, seen_s, recovery_s)


def _seconds_until(condition: Callable[[], bool], bench: Bench, what: str) -> float:
    """Return the time until ``condition`` is true; after a timeout, fail with the problems and the
    newest results of the node.
    """
    began = time.monotonic()
    try:
        wait_until(condition, what, TIMEOUT_S)
    except AssertionError as error:
        raise AssertionError(
            f'{error}; problems: {bench.problems(began)}, results: {bench.results(began)[-3:]}'
        ) from None
    return time.monotonic() - began


def _is_diagnosed(bench: Bench, case: Case, since: float) -> bool:
    return case.diagnosis is None or bench.reports(*case.diagnosis, since)


def _require_published(bench: Bench, case: Case, injected: float) -> range:
    """Wait until the expected results were published.

    Returns:
        Indices of the image sets that must have no result. Results arrive in the order of the
        image sets. After the result of a later image set, none of these image sets can have a
        result any more, even if the node is slow.
    """
    sent = len(bench.stream.rounds)
    if case.published == NOTHING:
        rejected = range(sent, sent + REJECTED_ROUNDS)
        _seconds_until(
            lambda: len(bench.stream.rounds) > rejected.stop, bench, 'more image sets sent'
        )
        return rejected
    _seconds_until(
        lambda: len(_as_expected(bench, case, injected)) >= RESULTS_IN_A_ROW,
        bench,
        f'{case.published} published',
    )
    return range(sent, sent)


def _as_expected(bench: Bench, case: Case, injected: float) -> list:
    """Return the newest consecutive results that are as the case expects, newest first."""
    missing = '' if case.published == ALL else case.published.removeprefix('without ')
    cameras = frozenset(CAMERAS) - set(missing.split(', '))

    def is_expected(record: Record) -> bool:
        return not record.fused if case.published == UNFUSED else record.cameras == cameras

    return list(takewhile(is_expected, reversed(bench.results(injected))))
