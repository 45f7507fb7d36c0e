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
"""An execution that takes longer is a finding; the limit allows for slow machines."""
MEMORY_BYTES = 6 << 30
"""Memory that the process may allocate after its start."""
MAX_FINDINGS = 20
"""Findings after which a target is stopped."""
_STRIDE = 1 << 40


@dataclass
class Report:
    """Result of a run.

    Attributes:
        executions: their number.
        accepted: number of executions whose input was accepted.
        seconds: duration.
        findings: messages, each with the execution number that reproduces it.
    """

    executions: int = 0
    accepted: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)


def generator(seed: int, number: int) -> Random:
    """Return the random generator of one execution."""
    return Random(seed * _STRIDE + number)


def execute_here(name: str, seed: int, first: int, count: int, folder: Path) -> tuple[int, int]:
    """Execute in this process; return the numbers of executions and of accepted inputs. A finding
    raises its exception.
    """
    execute = TARGETS[name](folder)
    return count, sum(
        bool(execute(generator(seed, number))) for number in range(first, first + count)
    )


def run(
    name: str,
    seed: int = 0,
    first: int = 0,
    executions: int | None = None,
    seconds: float | None = None,
) -> Report:
    """Execute until one of the limits is reached. After a finding, a new process continues with
    the next execution.
    """
    context = multiprocessing.get_context('fork')
    report, began = Report(), time.monotonic()
    number, end = first, first + (executions or _STRIDE)
    deadline = began + seconds if seconds else None
    while (
        number < end
        and (not deadline or time.monotonic() < deadline)
        and len(report.findings) < MAX_FINDINGS
    ):
        done, accepted = context.Value('q', number), context.Value('q', 0)
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_work,
            args=(name, seed, number, end, deadline, done, accepted, sender),
            daemon=True,
        )
        process.start()
        sender.close()
        sentence = _watch(process, done, receiver)
        report.executions += done.value - number + bool(sentence)
        report.accepted += accepted.value
        number = done.value + 1
        if sentence:
            report.findings.append(f'{name}, --seed {seed} --first {done.value}: {sentence}')
        else:
            break
    report.seconds = time.monotonic() - began
    return report


def _watch(process, done, receiver) -> str:
    """Return the finding of the process, or an empty string if it ended without one."""
    last, since = done.value, time.monotonic()
    while process.is_alive():
        process.join(0.2)
        if done.value != last:
            last, since = done.value, time.monotonic()
        elif time.monotonic() - since > HANG_S and process.is_alive():
            process.kill()
            process.join()
            return f'hangs for more than {HANG_S:.0f} s'
    sentence = ''
    try:
        if receiver.poll():
            sentence = receiver.recv()
    except EOFError:
        pass
    return sentence or (f'the process died with {process.exitcode}' if process.exitcode else '')


def _work(
    name: str, seed: int, number: int, end: int, deadline: float | None, done, accepted, sender
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
            done.value = number
            try:
                accepted.value += bool(execute(generator(seed, number)))
            except BaseException:
                sender.send(traceback.format_exc(limit=-4))
                return
            number += 1
        done.value = number


def _limit_memory() -> None:
    """Limit the address space of this process to its current size plus ``MEMORY_BYTES``."""
    pages = int(Path('/proc/self/statm').read_text().split()[0])
    limit = pages * os.sysconf('SC_PAGE_SIZE') + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))
