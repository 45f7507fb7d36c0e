"""Executes a target many times in a child process, which may crash, hang or use too much
memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.fuzz.targets import TARGETS

HANG_S = 60.0
"""An execution that takes longer than this number of seconds is a finding. The limit is long,
because machines can be slow."""
MEMORY_BYTES = 6 << 30
"""Number of bytes by which the address space of the process may grow after the target is
ready."""
MAX_FINDINGS = 20
"""Number of findings after which the run of a target is stopped."""
_MAX_EXECUTIONS = 1 << 40
"""Upper limit of the number of executions of a run. The seed is multiplied by this number, so two
executions with different seeds never have the same random generator."""


@dataclass
class Report:
    """Result of a run.

    Attributes:
        executions: number of executions.
        accepted: number of executions whose input was accepted.
        seconds: duration.
        findings: one message per finding, with the number of the execution.
    """

    executions: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


def rng_for(seed: int, number: int) -> Random:
    """Return the random generator of one execution."""
    return Random(seed * _MAX_EXECUTIONS + number)


def execute_here(name: str, seed: int, first: int, count: int, folder: Path) -> tuple[int, int]:
    """Execute a target in this process, and return the number of executions and the number of
    accepted inputs. The exception of a finding is not caught.
    """
    execute = TARGETS[name](folder)
    return count, sum(
        bool(execute(rng_for(seed, number))) for number in range(first, first + count)
    )


def run(
    name: str,
    seed: int = 0,
    first: int = 0,
    executions: int | None = None,
    seconds: float | None = None,
) -> Report:
    """Execute a target until ``executions``, ``seconds`` or ``MAX_FINDINGS`` is reached. After a
    finding, a new process continues with the next execution.
    """
    context = multiprocessing.get_context('fork')
    report, began = Report(), time.monotonic()
    number, end = first, first + (executions or _MAX_EXECUTIONS)
    deadline = began + seconds if seconds else None
    while (
        number < end
        and (not deadline or time.monotonic() < deadline)
        and len(report.findings) < MAX_FINDINGS
    ):
        current, accepted = context.Value('q', number), context.Value('q', 0)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work,
            args=(name, seed, number, end, deadline, current, accepted, sender),
            daemon=True,
        )
        process.start()
        sender.close()
        finding = _watch(process, current, receiver)
        # The execution with the finding is not counted in ``current`` yet.
        report.executions += current.value - number + bool(finding)
        report.accepted += accepted.value
        number = current.value + 1
        if finding:
            report.findings.append(f'{name}, --seed {seed} --first {current.value}: {finding}')
        else:
            break
    report.seconds = time.monotonic() - began
    return report


def _watch(process, current, receiver) -> str:
    """Return the finding of the process, or an empty string if the process ended without a
    finding.
    """
    last, since = current.value, time.monotonic()
    while process.is_alive():
        process.join(0.2)
        if current.value != last:
            last, since = current.value, time.monotonic()
        elif time.monotonic() - since > HANG_S and process.is_alive():
            process.kill()
            process.join()
            return f'hangs for more than {HANG_S:.0f} s'
    finding = ''
    try:
        if receiver.poll():
            finding = receiver.recv()
    except EOFError:
        pass
    return finding or (
        f'the process ended with exit code {process.exitcode}' if process.exitcode else ''
    )


def _work(
    name: str, seed: int, number: int, end: int, deadline: float | None, current, accepted, sender
) -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # C libraries print a message for each invalid input
        os.dup2(silence, stream)
    with tempfile.TemporaryDirectory(
        dir='/dev/shm' if Path('/dev/shm').is_dir() else None
    ) as folder:
        execute: Callable[[Random], bool] = TARGETS[name](Path(folder))
        _limit_memory()
        while number < end and (not deadline or time.monotonic() < deadline):
            current.value = number
            try:
                accepted.value += bool(execute(rng_for(seed, number)))
            except BaseException:
                sender.send(traceback.format_exc(limit=-4))
                return
            number += 1
        current.value = number


def _limit_memory() -> None:
    """Limit the address space of this process to its current size plus ``MEMORY_BYTES``."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
