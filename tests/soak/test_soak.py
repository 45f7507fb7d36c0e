"""A short soak test with two injections of each fault; `python -m tests.soak` runs for longer."""

from tests.soak.faults import FAULTS
from tests.soak.soak import Result, run

KINDS = len(FAULTS) + 3
"""Number of kinds of faults: the faults in FAULTS, changes of parameters, and two sequences of
transitions."""
MAX_GROWTH_MIB = 25.0
"""Largest allowed growth of memory in the second half of the test, MiB. A growth of 1 to 2 MiB is
usual. A leak of one image per trigger cycle would be a growth of 80 MiB."""


def test_the_node_recovers_from_every_fault_if_the_order_of_the_faults_is_random(
    domain_id: int,
) -> None:
    result: Result = run(
        faults=2 * KINDS,
        hold_s=(0.3, 1.2),
        rest_s=(0.2, 0.5),
        seed=1,
        report=lambda line: None,
    )
    assert result.failures == []
    assert [len(outcome.worst) for outcome in result.outcomes.values()] == [2] * KINDS
    first, middle, last = (
        result.samples[0],
        result.samples[len(result.samples) // 2],
        result.samples[-1],
    )
    assert last[1] - middle[1] < MAX_GROWTH_MIB
    assert last[3] <= first[3] + 2
