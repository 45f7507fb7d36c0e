"""Updates docs/RELIABILITY.md from the last run of the fault matrix: ``python -m
tests.faults.report``.
"""

from __future__ import annotations

import json

from tests.faults.cases import CASES, Case
from tests.reference import ROOT

OUTCOME = ROOT / 'out' / 'faults.json'
PAGE = ROOT / 'docs' / 'RELIABILITY.md'
BEGIN, END = '<!-- table: made by python -m tests.faults.report -->', '<!-- end of table -->'


def table(rows: list[dict]) -> str:
    """Return the table of all cases; ``rows`` are the results of the run."""
    found = {row['case']: row for row in rows}
    lines = [
        '| fault | published during the fault | reported in `/diagnostics` | detection time '
        '| recovery time |',
        '| --- | --- | --- | --- | --- |',
    ]
    return '\n'.join([*lines, *(_line(case, found[case.name]) for case in CASES)])


def _line(case: Case, row: dict) -> str:
    reported = 'nothing' if case.diagnosis is None else '{} in {}: …{}…'.format(*case.diagnosis)
    detected = '' if case.diagnosis is None else f'{row["seen_s"]:.1f} s'
    return (
        f'| {case.name} | {case.published} | {reported} | {detected} | {row["recovery_s"]:.1f} s |'
    )


def main() -> None:
    """Replace the table on the page."""
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f'{before}{BEGIN}\n\n{table(json.loads(OUTCOME.read_text()))}\n\n{END}{after}')


if __name__ == '__main__':
    main()
