"""The soak of a minute that every run of the tests has; `python -m tests.soak` goes on for
hours."""

from tests.soak.soak import Result, run

SECONDS = 50.0
MOST_GROWTH_MB = 25.0
"""In the second half, for the first is the warm-up; usual are 1 to 2. A leaked picture per round
would be 80 MB."""


def test_a_minute_of_random_faults_leaves_the_node_as_it_was(domain_id: int):
    result: Result = run(
        SECONDS, hold_s=(0.3, 1.2), rest_s=(0.2, 0.5), seed=1, tell=lambda line: None
    )
    assert result.failures == []
    assert len(result.outcomes) >= 10
    first, middle, last = (
        result.samples[0],
        result.samples[len(result.samples) // 2],
        result.samples[-1],
    )
    assert last[1] - middle[1] < MOST_GROWTH_MB
    assert last[3] <= first[3] + 2
