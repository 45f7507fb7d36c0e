"""A case of the fault matrix."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from tests.faults.bench import Bench

ALL, NOTHING, UNFUSED = 'all cameras', 'nothing', 'without velocities'


def without(*cameras: str) -> str:
    return f'without {", ".join(sorted(cameras))}'


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: description of the fault.
        inject: context manager that causes it.
        published: ALL, NOTHING, UNFUSED or a value of ``without``.
        diagnosis: level, area and words of the expected status; None if no problem may be
            reported.
        parameters: of the node, if they differ from the usual ones.
        tolerated: regular expression for other problems that may also be reported.
        overlapping: trigger cycles overlap, so image sets cannot be checked by their stamps.
    """

    name: str
    inject: Callable[[Bench], AbstractContextManager]
    published: str = ALL
    diagnosis: tuple[str, str, str] | None = None
    parameters: dict = field(default_factory=dict)
    tolerated: str = 'nothing'
    overlapping: bool = False
