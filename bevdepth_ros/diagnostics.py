"""What the node knows about itself: problems, counts and times, told as log lines and as /diagnostics."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

AREAS = ('node', 'cameras', 'sets', 'tf', 'latency')
"""One diagnostic status each; every problem belongs to one."""

DROP_REASONS = ('replaced', 'bad_image', 'no_camera_info', 'no_extrinsics', 'error')
"""Why a set was not answered: a newer one came first, an image or its calibration was unusable, or detection failed."""

LOG_PERIOD_S = 10.0
"""A problem that lasts is logged again after this time."""
STARTUP_S = 5.0
"""After an activation, cameras have this time to begin."""
RATE_WINDOW_S = 5.0
LATENCY_WINDOW = 100
"""Answers that the latency percentiles look back on."""


@dataclass
class _Problem:
    area: str
    level: bytes
    sentence: str


class Monitor:
    """Collects what happens; every method may be called from any thread."""

    def __init__(self, logger, cameras: tuple[str, ...] = (), ros_now_s: Callable[[], float] = time.monotonic):
        """Start with nothing seen.

        Args:
            logger: of the node.
            cameras: names.
            ros_now_s: the node's time in seconds: in a slow or paused replay, silence lasts as long as it does there.
        """
        self._logger, self._ros_now_s = logger, ros_now_s
        self._lock = threading.RLock()
        self._problems: dict[str, _Problem] = {}
        self._logged_at: dict[str, float] = {}
        self._told: set[str] = set()
        self._facts: dict[str, dict[str, str]] = {area: {} for area in AREAS}
        self._changed = True
        self.start(cameras)

    def start(self, cameras: tuple[str, ...]) -> None:
        """Begin a new activation: the counts, rates and problems of the last one are dropped."""
        with self._lock:
            self._forget_problems()
            self._started_at = time.monotonic()
            self._arrivals = {camera: deque(maxlen=512) for camera in cameras}
            self._received = Counter(dict.fromkeys(cameras, 0))
            self._newest_ns = dict.fromkeys(cameras, 0)
            self._sets = Counter(received=0, answered=0)
            self._dropped = Counter(dict.fromkeys(DROP_REASONS, 0))
            self._spreads: deque[float] = deque(maxlen=LATENCY_WINDOW)
            self._beginning = (self._started_at + STARTUP_S, -math.inf)
            self._last_image = dict.fromkeys(cameras, self._beginning)
            self._last_set = self._beginning
            self._latencies: dict[str, deque[float]] = {}

    def report(self, key: str, area: str, level: bytes, sentence: str) -> None:
        """Note that a problem holds, and log it when it is new or was not logged for a while.

        Args:
            key: what the problem is about; the same key is the same problem.
            area: one of AREAS.
            level: WARN or ERROR.
            sentence: what is wrong and what to do.
        """
        now = time.monotonic()
        with self._lock:
            known = self._problems.get(key)
            worse = known is not None and level > known.level
            self._problems[key] = _Problem(area, level, sentence)
            self._changed |= known is None or known.level != level
            due = worse or now - self._logged_at.get(key, -LOG_PERIOD_S) >= LOG_PERIOD_S
            if due:
                self._logged_at[key] = now
                self._told.add(key)
        if due and level == ERROR:
            self._logger.error(sentence)
        elif due:
            self._logger.warning(sentence)

    def solved(self, *keys: str, quietly: bool = False) -> None:
        """Note that problems do not hold (any more); logged for those whose beginning was, unless ``quietly``."""
        with self._lock:
            gone = {key: self._problems.pop(key) for key in keys if key in self._problems}
            told = [problem.sentence for key, problem in gone.items() if key in self._told and not quietly]
            self._told.difference_update(gone)
            self._changed |= bool(gone)
        for sentence in told:
            self._logger.info(f'solved: {sentence}')

    def stop(self) -> None:
        """End an activation: its problems are dropped, its counts stay."""
        with self._lock:
            self._forget_problems()

    def _forget_problems(self) -> None:
        """Drop all problems but those of the node as a whole."""
        self._problems = {key: problem for key, problem in self._problems.items() if problem.area == 'node'}
        self._logged_at = {key: logged_at for key, logged_at in self._logged_at.items() if key in self._problems}
        self._told &= set(self._problems)
        self._changed = True

    def fact(self, area: str, **values) -> None:
        """Set values that are shown until they are set again."""
        with self._lock:
            self._facts[area].update({key: str(value) for key, value in values.items()})

    def image_arrived(self, camera: str, stamp_ns: int) -> None:
        """Count an image."""
        with self._lock:
            self._arrivals[camera].append(time.monotonic())
            self._last_image[camera] = self._moment()
            self._received[camera] += 1
            self._newest_ns[camera] = stamp_ns

    def set_arrived(self, spread_s: float) -> None:
        """Count a complete set."""
        with self._lock:
            self._sets['received'] += 1
            self._spreads.append(spread_s)
            self._last_set = self._moment()

    def set_dropped(self, reason: str) -> None:
        """Count a set that gets no answer, for one of DROP_REASONS."""
        with self._lock:
            self._dropped[reason] += 1

    def set_answered(self, stage_seconds: Mapping[str, float]) -> None:
        """Count an answer and the time it took by stage."""
        with self._lock:
            self._sets['answered'] += 1
            for stage, seconds in stage_seconds.items():
                self._latencies.setdefault(stage, deque(maxlen=LATENCY_WINDOW)).append(seconds)

    def begun(self) -> bool:
        """Return whether the time to begin is over."""
        with self._lock:
            return time.monotonic() > self._started_at + STARTUP_S

    def silence_s(self, camera: str) -> float:
        """Return how long ago the camera's last image came, or the time to begin ended if there was none, seconds."""
        with self._lock:
            return self._since(self._last_image[camera])

    def setless_s(self) -> float:
        """Return how long ago the last complete set came, or the time to begin ended, seconds."""
        with self._lock:
            return self._since(self._last_set)

    def _moment(self) -> tuple[float, float]:
        """Return the present on both clocks, seconds."""
        return time.monotonic(), self._ros_now_s()

    def _since(self, moment: tuple[float, float]) -> float:
        """Return how long ago ``moment`` was, on the clock where that is shorter, seconds."""
        return min(now - then for now, then in zip(self._moment(), moment, strict=True))

    def newest_stamps_ns(self) -> dict[str, int]:
        """Return the newest image stamp per camera; 0 where none came."""
        with self._lock:
            return dict(self._newest_ns)

    def counts(self) -> dict[str, int]:
        """Return received, answered, dropped and dropped_<reason> sets."""
        with self._lock:
            reasons = {f'dropped_{reason}': count for reason, count in self._dropped.items()}
            return {**self._sets, 'dropped': sum(self._dropped.values()), **reasons}

    def summary(self) -> str:
        """Return the counts that are not 0, in words."""
        return ', '.join(f'{count} {name}' for name, count in self.counts().items() if count) or 'none'

    def changed(self) -> bool:
        """Return whether the set of problems changed since the last call."""
        with self._lock:
            changed, self._changed = self._changed, False
            return changed

    def statuses(self, node_name: str, now_ns: int) -> list[DiagnosticStatus]:
        """Return one status per area; ``now_ns`` is the node's clock, which image ages are measured by."""
        with self._lock:
            values = {
                'node': {**self._facts['node'], 'memory_mb': f'{psutil.Process().memory_info().rss / 2**20:.0f}'},
                'cameras': {**self._facts['cameras'], **self._camera_values(now_ns)},
                'sets': {**self._facts['sets'], **self.counts(), **self._spread_values()},
                'tf': self._facts['tf'],
                'latency': {**self._facts['latency'], **self._latency_values()},
            }
            return [self._status(node_name, area, values[area]) for area in AREAS]

    def _status(self, node_name: str, area: str, values: dict) -> DiagnosticStatus:
        problems = [problem for problem in self._problems.values() if problem.area == area]
        problems.sort(key=lambda problem: problem.level, reverse=True)
        return DiagnosticStatus(
            level=problems[0].level if problems else OK,
            name=f'{node_name}: {area}',
            message='; '.join(problem.sentence for problem in problems) or 'ok',
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )

    def _camera_values(self, now_ns: int) -> dict[str, str]:
        values = {}
        for camera, arrivals in self._arrivals.items():
            newest_ns = self._newest_ns[camera]
            values[f'{camera}.rate_hz'] = f'{_rate_hz(arrivals):.2f}'
            values[f'{camera}.age_s'] = f'{(now_ns - newest_ns) * 1e-9:.3f}' if newest_ns else 'none'
            values[f'{camera}.received'] = str(self._received[camera])
        return values

    def _spread_values(self) -> dict[str, str]:
        return {'spread_p50_ms': _percentile_ms(self._spreads, 50), 'spread_max_ms': _percentile_ms(self._spreads, 100)}

    def _latency_values(self) -> dict[str, str]:
        return {
            f'{stage}_p{percent}_ms': _percentile_ms(seconds, percent) for stage, seconds in self._latencies.items() for percent in (50, 95)
        }


def _rate_hz(arrivals: deque[float]) -> float:
    """Return the mean rate over the last seconds."""
    recent = [arrival for arrival in arrivals if arrival > time.monotonic() - RATE_WINDOW_S]
    return (len(recent) - 1) / (recent[-1] - recent[0]) if len(recent) > 1 and recent[-1] > recent[0] else 0.0


def _percentile_ms(seconds: deque[float], percent: float) -> str:
    return f'{np.percentile(seconds, percent) * 1e3:.1f}' if seconds else 'none'
