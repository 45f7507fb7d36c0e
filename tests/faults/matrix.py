"""Injects every fault of the matrix, one after the other, into one node that must not restart.

The results go to out/faults.json; ``python -m tests.faults.report`` writes the table in
docs/RELIABILITY.md from them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from itertools import takewhile

import pytest

from tests.faults.bench import Bench, Record
from tests.faults.cases import ALL, CASES, NOTHING, UNFUSED, Case
from tests.faults.report import OUTCOME
from tests.faults.stream import CAMERAS
from tests.ros.graph import PATIENCE_S, wait_until

ANSWERS = 3
"""Number of consecutive results that must be as expected."""
REJECTED_ROUNDS = 5
"""Image sets that must have no result, during a fault in which nothing may be published."""


@pytest.fixture(scope='module')
def outcome() -> Iterator[list[dict]]:
    """Collect a row per case and write them at the end."""
    rows: list[dict] = []
    yield rows
    OUTCOME.parent.mkdir(exist_ok=True)
    OUTCOME.write_text(json.dumps(rows, indent=1))


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_the_node_reports_the_fault_publishes_no_false_result_and_recovers(
    bench: Bench, outcome: list[dict], case: Case
):
    bench.with_parameters(**case.parameters)
    prepared = time.monotonic()
    _seconds_until(lambda: bench.is_healthy(prepared), bench, 'a healthy node before')
    began = time.monotonic()
    with case.inject(bench):
        injected = time.monotonic()
        seen_s = _seconds_until(
            lambda: _is_diagnosed(bench, case, began), bench, f'{case.diagnosis}'
        )
        rejected = _require_published(bench, case, injected)
    ended, next_round = time.monotonic(), len(bench.stream.rounds)
    recovery_s = _seconds_until(lambda: bench.is_healthy(ended), bench, 'recovery')
    _seconds_until(lambda: bench.answers_to(next_round), bench, 'a result after the fault')
    assert not bench.answers_to(rejected.start, rejected.stop)
    assert bench.is_alive()
    assert case.overlapping or not bench.mixed(bench.answers(began)), (
        'an image set contains images of two trigger cycles'
    )
    if case.diagnosis is None:
        assert not {
            complaint for complaint in bench.complaints(began) if case.tolerated not in complaint
        }
    outcome.append(
        {'case': case.name, 'seen_s': round(seen_s, 2), 'recovery_s': round(recovery_s, 2)}
    )


def _seconds_until(condition: Callable[[], bool], bench: Bench, what: str) -> float:
    """Return the time until ``condition`` is true; fail with the output of the node if it is
    not.
    """
    began = time.monotonic()
    try:
        wait_until(condition, what, PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(
            f'{error}; problems: {bench.complaints(began)}, results: {bench.answers(began)[-3:]}'
        ) from None
    return time.monotonic() - began


def _is_diagnosed(bench: Bench, case: Case, since: float) -> bool:
    return case.diagnosis is None or bench.reports(*case.diagnosis, since)


def _require_published(bench: Bench, case: Case, injected: float) -> range:
    """Wait until the expected results were published.

    Returns:
        Indices of the image sets that must have no result. Results arrive in order: once a later
        image set has one, these cannot get any, however slow the node is.
    """
    sent = len(bench.stream.rounds)
    if case.published == NOTHING:
        rejected = range(sent, sent + REJECTED_ROUNDS)
        _seconds_until(
            lambda: len(bench.stream.rounds) > rejected.stop, bench, 'more image sets sent'
        )
        return rejected
    _seconds_until(
        lambda: len(_as_expected(bench, case, injected)) >= ANSWERS,
        bench,
        f'{case.published} published',
    )
    return range(sent, sent)


def _as_expected(bench: Bench, case: Case, injected: float) -> list:
    """Return the newest results in a row that are as expected."""
    missing = '' if case.published == ALL else case.published.removeprefix('without ')
    cameras = frozenset(CAMERAS) - set(missing.split(', '))

    def is_expected(record: Record) -> bool:
        return not record.fused if case.published == UNFUSED else record.cameras == cameras

    return list(takewhile(is_expected, reversed(bench.answers(injected))))
