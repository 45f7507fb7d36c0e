"""Runs the node for a long time under random faults and prints the outcome.

Usage: python -m tests.soak --minutes 60 [--seed 0]
"""

from __future__ import annotations

import sys
import time
from argparse import ArgumentParser

import numpy as np

from bevdepth_ros.launching import isolate
from tests.soak.soak import Result, run

LEVELS = ('OK', 'WARN', 'ERROR', 'STALE')
WARM_UP = 0.1
"""Duration of the warm-up divided by the duration of the soak test."""


def memory_slope(samples: list[tuple[float, float, int, int]]) -> float:
    """Return the growth of memory after the warm-up in MiB per hour, from a least-squares line."""
    times, memory = np.array([sample[:2] for sample in samples]).T
    late = times >= WARM_UP * times[-1]
    return float(np.polyfit(times[late], memory[late], 1)[0] * 3600)


def table(result: Result) -> str:
    """Return the outcome of each kind of fault as a Markdown table."""
    lines = [
        '| fault | injections | seconds | results during the fault | worst diagnostics | median '
        '/ longest recovery, s |',
        '|' + ' --- |' * 6,
    ]
    for name, outcome in sorted(result.outcomes.items()):
        if outcome.recoveries_s:
            recovery = f'{np.median(outcome.recoveries_s):.2f} / {max(outcome.recoveries_s):.2f}'
            worst = LEVELS[max(outcome.worst)]
            lines.append(
                f'| {name} | {len(outcome.worst)} | {outcome.seconds:.0f} | {outcome.results} | '
                f'{worst} | {recovery} |'
            )
    return '\n'.join(lines)


def summary(result: Result) -> str:
    """Return the counts, the resources and the failures of a soak test as text."""
    samples = np.array(result.samples)
    settled = samples[samples[:, 0] >= WARM_UP * samples[-1, 0]]
    dropped = ', '.join(
        f'{count} {name.removeprefix("dropped_")}'
        for name, count in result.counts.items()
        if 'dropped_' in name
    )
    return '\n'.join((
        f'{result.seconds / 60:.1f} minutes, {result.sent} rounds of images, sets: '
        f'{result.counts.get("received", 0)} received, '
        f'{result.counts.get("processed", 0)} processed, dropped: {dropped}',
        f'memory: {settled[0, 1]:.1f} MiB after the warm-up, {settled[-1, 1]:.1f} at the end, at '
        f'most {samples[:, 1].max():.1f}; '
        f'slope {memory_slope(result.samples):+.2f} MiB/h',
        f'threads {settled[0, 2]:.0f} -> {settled[-1, 2]:.0f}, open files {settled[0, 3]:.0f} -> '
        f'{settled[-1, 3]:.0f}, '
        f'exit code {result.exit_code}',
        '\n'.join(f'FAILED: {failure}' for failure in result.failures) or 'no failure',
    ))  # fmt: skip


def main() -> None:
    """Run the soak test with the options of the command line; exit with 1 after a failure."""
    parser = ArgumentParser(prog='python -m tests.soak', description=__doc__.splitlines()[0])
    parser.add_argument(
        '--minutes', type=float, default=60.0, help='duration in minutes (default: 60)'
    )
    parser.add_argument(
        '--seed',
        type=int,
        default=int(time.time()),
        help='seed of the random faults (default: the current time)',
    )
    options = parser.parse_args()
    print(f'seed {options.seed}', flush=True)
    isolate()
    result = run(
        options.minutes * 60, seed=options.seed, report=lambda line: print(line, flush=True)
    )
    print(table(result), summary(result), sep='\n\n')
    sys.exit(bool(result.failures))


if __name__ == '__main__':
    main()
