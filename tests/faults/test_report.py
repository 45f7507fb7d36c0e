from __future__ import annotations

from tests.faults.cases import CASES
from tests.faults.report import BEGIN, END, PAGE


def test_the_reliability_page_lists_every_fault_of_the_matrix():
    table = PAGE.read_text().split(BEGIN)[1].split(END)[0]
    rows = [line for line in table.splitlines() if line.startswith('| ')]
    assert [row.split(' | ')[0].removeprefix('| ') for row in rows[2:]] == [
        case.name for case in CASES
    ]
    assert len({case.name for case in CASES}) == len(CASES) >= 50
