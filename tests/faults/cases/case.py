"""What a case of the fault matrix is."""

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
        name: what is wrong.
        inject: context in which it is.
        published: ALL, NOTHING, UNFUSED or what ``without`` returns.
        diagnosis: level, area and words of the status that must be seen; None when nothing may be
            reported.
        parameters: of the node, where they are not the usual ones.
        tolerated: words that may be said besides.
        overlapping: a rotation begins before the last one has ended, so that stamps do not tell
            them apart.
    """

    name: str
    inject: Callable[[Bench], AbstractContextManager]
    published: str = ALL
    diagnosis: tuple[str, str, str] | None = None
    parameters: dict = field(default_factory=dict)
    tolerated: str = 'nothing'
    overlapping: bool = False
