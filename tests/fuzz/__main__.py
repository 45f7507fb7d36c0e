"""Fuzzing: passes damaged input to all code that reads untrusted data.

    python -m tests.fuzz                                   # every target, 10,000 executions each
    python -m tests.fuzz --target bag_mcap --seconds 600
    python -m tests.fuzz --target bag_mcap --seed 3 --first 12 --executions 1  # only execution 12

For each finding, the program prints the target, and the values of --seed and --first with which
the execution can be repeated.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser

from tests.fuzz.runner import run
from tests.fuzz.targets import TARGETS


def main() -> None:
    """Run the command line; the exit status is 1 if there are findings."""
    parser = ArgumentParser(prog='python -m tests.fuzz', description=__doc__.splitlines()[0])
    parser.add_argument('--target', nargs='+', choices=sorted(TARGETS), default=sorted(TARGETS))
    parser.add_argument(
        '--executions',
        type=int,
        help='number of executions of each target; default: 10,000, or no limit with --seconds',
    )
    parser.add_argument('--seconds', type=float, help='time for each target, seconds')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--first', type=int, default=0, help='number of the first execution')
    options = parser.parse_args()
    executions = options.executions if options.executions or options.seconds else 10_000
    findings, total = [], 0
    for name in options.target:
        report = run(name, options.seed, options.first, executions, options.seconds)
        rate = report.executions / max(report.seconds, 1e-9)
        print(
            f'{name:20} {report.executions:9,} executions, {report.accepted:9,} accepted, '
            f'{rate:7,.0f} per second, '
            f'{len(report.findings)} findings', flush=True,
        )  # fmt: skip
        total += report.executions
        findings += report.findings
    print(f'{total:,} executions, {len(findings)} findings', *findings, sep='\n')
    sys.exit(bool(findings))


if __name__ == '__main__':
    main()
