"""Makes docs/RELIABILITY.md of what the last run of the fault matrix wrote: ``python -m
tests.faults.report``."""

from __future__ import annotations

import json

from tests.faults.cases import CASES, Case
from tests.reference import ROOT

OUTCOME = ROOT / 'out' / 'faults.json'
PAGE = ROOT / 'docs' / 'RELIABILITY.md'
BEGIN, END = '<!-- table: made by python -m tests.faults.report -->', '<!-- end of table -->'


def table(rows: list[dict]) -> str:
    """Return the table of all cases; ``rows`` are what the run wrote."""
    found = {row['case']: row for row in rows}
    lines = [
        '| fault | published meanwhile | said in `/diagnostics` | seen after | well again after |',
        '| --- | --- | --- | --- | --- |',
    ]
    return '\n'.join([*lines, *(_line(case, found[case.name]) for case in CASES)])


def _line(case: Case, row: dict) -> str:
    said = 'nothing' if case.diagnosis is None else '{} in {}: …{}…'.format(*case.diagnosis)
    seen = '' if case.diagnosis is None else f'{row["seen_s"]:.1f} s'
    return f'| {case.name} | {case.published} | {said} | {seen} | {row["recovery_s"]:.1f} s |'


def main() -> None:
    """Put the table into the page, in place of the last one."""
    before, rest = PAGE.read_text().split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f'{before}{BEGIN}\n\n{table(json.loads(OUTCOME.read_text()))}\n\n{END}{after}')


if __name__ == '__main__':
    main()
