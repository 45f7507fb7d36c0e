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
QUIET_S = 0.5
"""If nothing may be published, no result may arrive for this time, which is longer than one
detection."""


@pytest.fixture(scope='module')
def outcome() -> Iterator[list[dict]]:
    """Collect a row per case and write them at the end."""
    rows: list[dict] = []
    yield rows
    OUTCOME.parent.mkdir(exist_ok=True)
    OUTCOME.write_text(json.dumps(rows, indent=1))


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_the_node_reports_the_fault_publishes_nothing_false_and_recovers(
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
        _require_published(bench, case, injected)
    ended = time.monotonic()
    recovery_s = _seconds_until(lambda: bench.is_healthy(ended), bench, 'recovery')
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


def _require_published(bench: Bench, case: Case, injected: float) -> None:
    if case.published == NOTHING:
        _require_silence(bench)
        return
    _seconds_until(
        lambda: len(_as_expected(bench, case, injected)) >= ANSWERS,
        bench,
        f'{case.published} published',
    )


def _as_expected(bench: Bench, case: Case, injected: float) -> list:
    """Return the newest results in a row that are as expected."""
    missing = '' if case.published == ALL else case.published.removeprefix('without ')
    cameras = frozenset(CAMERAS) - set(missing.split(', '))

    def is_expected(record: Record) -> bool:
        return not record.fused if case.published == UNFUSED else record.cameras == cameras

    return list(takewhile(is_expected, reversed(bench.answers(injected))))


def _require_silence(bench: Bench) -> None:
    """Wait until nothing is published for QUIET_S; no image set of this time may get a result
    later."""
    _seconds_until(lambda: not bench.answers(time.monotonic() - QUIET_S), bench, 'silence')
