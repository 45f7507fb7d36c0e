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
        inject: function of the bench that returns a context manager; inside the context, the fault
            is present.
        published: results that the node must publish during the fault: ALL, NOTHING, UNFUSED or a
            value of ``without``.
        diagnosis: level, area and words of the expected status; None if no problem may be
            reported.
        parameters: parameters of the node that differ from the usual values.
        tolerated: regular expression for problems that may be reported if ``diagnosis`` is None.
        overlapping: True if the trigger cycles overlap. The stamps of image sets can then not
            be checked.
    """

    name: str
    inject: Callable[[Bench], AbstractContextManager]
    published: str = ALL
    diagnosis: tuple[str, str, str] | None = None
    parameters: dict = field(default_factory=dict)
    tolerated: str = 'nothing'
    overlapping: bool = False
