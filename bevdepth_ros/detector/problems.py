"""Stores the active problems, which are logged and published in /diagnostics.

A problem has a key, which identifies the problem, an area, which selects its diagnostic status, a
level, and a sentence, which is its message. A problem is active from the first call of ``report``
with its key until the call of ``solved`` with this key.

The sentence is logged when the problem begins, when its level rises, when the words of the
sentence change (changed numbers do not count), and every ``LOG_PERIOD_S`` while the problem is
active. If a problem ends and begins again with the same words, its beginning is logged at most
once per ``FLAPPING_PERIOD_S``. When a problem ends whose beginning was logged, the first clause of
the sentence is logged.

Problems can change faster than the diagnostic statuses are published. A problem that began and
ended between two publications is therefore published once after its end.
"""

from __future__ import annotations

import math
import re
import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

LOG_PERIOD_S = 10.0
"""An active problem is logged again at this interval, in seconds."""
FLAPPING_PERIOD_S = 60.0
"""If a problem has ended and begins again, its beginning is logged only if the last log entry with
the same words is at least this number of seconds old."""
MOST_WORDINGS = 20
"""Largest number of sentences with different words whose log times are stored per problem."""
LONGEST_SENTENCE = 600
"""Sentences with more characters are cut to this number."""


@dataclass
class Problem:
    """A problem. ``sentence`` is its message, which includes the remedy. ``level`` is WARN or
    ERROR. ``shown`` is True after ``collect`` has returned this problem, which is then published.
    """

    area: str
    level: bytes
    sentence: str
    shown: bool = False


class Problems:
    """The active problems; every method may be called from any thread."""

    def __init__(self, logger: Any) -> None:
        """Start without problems; ``logger`` is the logger of the node."""
        self._logger = logger
        self._lock = threading.Lock()
        self._active: dict[str, Problem] = {}
        self._ended_unpublished: dict[str, Problem] = {}
        self._logged_at: dict[str, dict[str, float]] = {}
        self._logged: set[str] = set()
        self._changed = True

    def report(self, key: str, area: str, level: bytes, sentence: str) -> None:
        """Add or update an active problem. Log the sentence if the problem is new, if its level
        rises, if the sentence has new words, or if the last log entry with these words is old.

        Args:
            key: identifies the problem.
            area: area of the diagnostic status that contains the problem.
            level: WARN or ERROR.
            sentence: what is wrong, where, and how to fix it.
        """
        sentence = _in_one_line(sentence)
        now = time.monotonic()
        with self._lock:
            known = self._active.get(key)
            same = known if known is not None and known.level == level else None
            shown = same is not None and same.shown
            self._active[key] = Problem(area, level, sentence, shown)
            self._changed |= same is None
            worse = known is not None and level > known.level
            due = worse or self._is_due(key, sentence, now, returns=known is None)
            if due:
                self._logged_at.setdefault(key, {})[_words(sentence)] = now
                self._logged.add(key)
        if due:
            self._log(level, sentence)

    def _is_due(self, key: str, sentence: str, now: float, returns: bool) -> bool:
        """Return True if the sentence must be logged, because no log entry of this problem has the
        same words, or because the last such entry is old enough. ``returns`` is True if the
        problem was not active before.
        """
        logged = self._logged_at.get(key, {})
        if len(logged) >= MOST_WORDINGS:
            logged.clear()
        period_s = FLAPPING_PERIOD_S if returns else LOG_PERIOD_S
        return now - logged.get(_words(sentence), -math.inf) >= period_s

    def solved(self, *keys: str, quietly: bool = False) -> None:
        """End problems, if they are active. The end is logged if the beginning was logged and
        ``quietly`` is False.
        """
        with self._lock:
            gone = {key: self._active.pop(key) for key in keys if key in self._active}
            ended = [
                problem.sentence
                for key, problem in gone.items()
                if key in self._logged and not quietly
            ]
            self._logged.difference_update(gone)
            self._ended_unpublished.update(
                {
                    key: problem
                    for key, problem in gone.items()
                    if not problem.shown and not quietly
                }
            )
            self._changed |= bool(gone)
        for sentence in ended:
            self._logger.info(f'solved: {_subject(sentence)}')

    def _log(self, level: bytes, sentence: str) -> None:
        """Write a line to the log. An exception of the logger must not end the calling thread.
        rclpy requires a separate line of code for each severity.
        """
        try:
            if level == ERROR:
                self._logger.error(sentence)
            else:
                self._logger.warning(sentence)
        except Exception as error:
            print(f'{sentence} (this message could not be logged: {error})', file=sys.stderr)

    def drop_all_but(self, area: str) -> None:
        """Drop the active problems of all areas except ``area``, without logging. Also drop the
        problems of all areas that have ended but have not been published.
        """
        with self._lock:
            self._active = {
                key: problem for key, problem in self._active.items() if problem.area == area
            }
            self._ended_unpublished.clear()
            self._logged_at = {
                key: logged_at for key, logged_at in self._logged_at.items() if key in self._active
            }
            self._logged &= set(self._active)
            self._changed = True

    def changed(self) -> bool:
        """Return True if problems have changed since the last call of this method, or if
        ``collect`` has returned a problem that is no longer active.
        """
        with self._lock:
            changed, self._changed = self._changed, False
            return changed

    def collect(self) -> list[Problem]:
        """Return the active problems, and the problems that began and ended since the last call,
        except if they ended with ``quietly``. The worst problems are first.
        """
        with self._lock:
            found = [
                *self._active.values(),
                *(
                    problem
                    for key, problem in self._ended_unpublished.items()
                    if key not in self._active
                ),
            ]
            self._changed |= bool(self._ended_unpublished)
            self._ended_unpublished.clear()
            for problem in found:
                problem.shown = True
        return sorted(found, key=lambda problem: problem.level, reverse=True)


def _subject(sentence: str) -> str:
    """Return the first clause of ``sentence``, which names the problem. The remaining clauses
    explain the problem.
    """
    return re.split(r': |; |, (?:although|so) ', sentence, maxsplit=1)[0]


def _words(sentence: str) -> str:
    """Return ``sentence`` without the characters of numbers. Two sentences that differ only in
    their numbers give the same result.
    """
    return ''.join(character for character in sentence if character not in '0123456789+-.')


def _in_one_line(sentence: str) -> str:
    """Return ``sentence`` in one line, cut to ``LONGEST_SENTENCE`` characters, with a space for
    each character that cannot be printed. A sentence may contain tf frames and encodings from
    messages, which may be any text.
    """
    cut = sentence if len(sentence) <= LONGEST_SENTENCE else f'{sentence[:LONGEST_SENTENCE]} ...'
    return ''.join(character if character.isprintable() else ' ' for character in cut)
