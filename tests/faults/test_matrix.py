"""Every fault of the matrix, one after the other, on one node that must live through all of them.

The outcome goes to out/faults.json, of which ``python -m tests.faults.report`` makes
docs/RELIABILITY.md.
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
"""Consecutive results that must show what is expected."""
QUIET_S = 0.5
"""Nothing must come for this time where nothing may be published; longer than an answer takes."""


@pytest.fixture(scope='module')
def outcome() -> Iterator[list[dict]]:
    """Collect a row per case and write them at the end."""
    rows: list[dict] = []
    yield rows
    OUTCOME.parent.mkdir(exist_ok=True)
    OUTCOME.write_text(json.dumps(rows, indent=1))


@pytest.mark.parametrize('case', CASES, ids=lambda case: case.name)
def test_the_node_says_what_is_wrong_publishes_nothing_false_and_recovers(
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
    assert case.overlapping or not bench.mixed(bench.answers(began)), 'a set mixed two rotations'
    if case.diagnosis is None:
        assert not {
            complaint for complaint in bench.complaints(began) if case.tolerated not in complaint
        }
    outcome.append(
        {'case': case.name, 'seen_s': round(seen_s, 2), 'recovery_s': round(recovery_s, 2)}
    )


def _seconds_until(condition: Callable[[], bool], bench: Bench, what: str) -> float:
    """Return how long it took until ``condition`` held; fail with what the node said and did
    instead."""
    began = time.monotonic()
    try:
        wait_until(condition, what, PATIENCE_S)
    except AssertionError as error:
        raise AssertionError(
            f'{error}; it said {bench.complaints(began)} and answered {bench.answers(began)[-3:]}'
        ) from None
    return time.monotonic() - began


def _is_diagnosed(bench: Bench, case: Case, since: float) -> bool:
    return case.diagnosis is None or bench.says(*case.diagnosis, since)


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
    """Return the newest results that show what must be published, back to the last other one."""
    missing = '' if case.published == ALL else case.published.removeprefix('without ')
    cameras = frozenset(CAMERAS) - set(missing.split(', '))

    def is_expected(record: Record) -> bool:
        return not record.fused if case.published == UNFUSED else record.cameras == cameras

    return list(takewhile(is_expected, reversed(bench.answers(injected))))


def _require_silence(bench: Bench) -> None:
    """Wait until nothing is published for QUIET_S, and no set of this time is answered later."""
    _seconds_until(lambda: not bench.answers(time.monotonic() - QUIET_S), bench, 'silence')
