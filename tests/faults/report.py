"""Updates docs/RELIABILITY.md from the times of the fault matrix: ``python -m
tests.faults.report``.
"""

from __future__ import annotations

import json
import re

from tests.faults.cases import CASES, Case
from tests.reference import ROOT

TIMES = ROOT / 'out' / 'faults'
"""Folder with one file per case, so that several processes can run parts of the matrix."""
PAGE = ROOT / 'docs' / 'RELIABILITY.md'
BEGIN, END = '<!-- table: made by python -m tests.faults.report -->', '<!-- end of table -->'


def save_times(case: Case, seen_s: float, recovery_s: float) -> None:
    """Write the times of a case that passed."""
    TIMES.mkdir(parents=True, exist_ok=True)
    row = {'case': case.name, 'seen_s': round(seen_s, 2), 'recovery_s': round(recovery_s, 2)}
    name = re.sub('[^A-Za-z0-9]+', '_', case.name)
    (TIMES / f'{name}.json').write_text(json.dumps(row))


def saved_times() -> list[dict]:
    """Return the rows of all cases that have passed."""
    return [json.loads(path.read_text()) for path in TIMES.glob('*.json')]


def table(rows: list[dict]) -> str:
    """Return the table of all cases; ``rows`` contains the times of the cases that passed."""
    found = {row['case']: row for row in rows}
    lines = [
        '| fault | published during the fault | reported in `/diagnostics` | detection time '
        '| recovery time |',
        '| --- | --- | --- | --- | --- |',
    ]
    return '\n'.join([*lines, *(_line(case, found.get(case.name)) for case in CASES)])


def _line(case: Case, row: dict | None) -> str:
    reported = 'nothing'
    if case.diagnosis is not None:
        level, area, words = case.diagnosis
        reported = f'{level} in {area}' + (f': …{words}…' if words else '')
    if row is None:
        return f'| {case.name} | {case.published} | {reported} | did not pass | did not pass |'
    detected = '' if case.diagnosis is None else f'{row["seen_s"]:.1f} s'
    return (
        f'| {case.name} | {case.published} | {reported} | {detected} | {row["recovery_s"]:.1f} s |'
    )


def main() -> None:
    """Replace the table on the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f'{before}{BEGIN}\n\n{table(saved_times())}\n\n{END}{after}')


if __name__ == '__main__':
    main()
