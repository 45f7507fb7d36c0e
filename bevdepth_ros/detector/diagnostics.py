"""Problems, counts and times of the node, published in /diagnostics.

The terms of this module:

* Activation: time from an activation of the node to its deactivation.
* Moment: a pair of the time of the steady clock and the time of the node's clock, in seconds. The
  time since a moment is the shorter of the times that the two clocks give, because a replay can be
  slow or paused. If the second value is -inf, only the steady clock is used.
* Startup time: time that the cameras may take to send their first image after the activation, or
  after the start of the node's clock.
* Pause: time in which no camera sends an image. The cameras resume with the next image.
* Fact: a value that is published until it is set again.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import psutil
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from bevdepth_ros.detector.problems import OK, Problem, Problems

AREAS = ('node', 'cameras', 'sets', 'tf', 'latency')
"""Each area has one diagnostic status; every problem belongs to one area."""

DROP_REASONS = (
    'replaced',
    'bad_image',
    'no_camera_info',
    'no_extrinsics',
    'too_few_cameras',
    'no_output_frame',
    'error',
)
"""Reasons why an image set has no result. ``replaced``: a newer image set replaced it.
``bad_image``, ``no_camera_info``, ``no_extrinsics``: too few cameras of the set can be used,
because a camera has an invalid image, no valid CameraInfo or no extrinsics. During the startup
time, a single camera without CameraInfo or extrinsics is enough. ``too_few_cameras``: the set has
too few images, although all of them can be used. ``no_output_frame``: tf does not contain the
frame of the outputs. ``error``: the detection failed."""

RATE_WINDOW_S = 5.0
"""Time, in seconds, from which rates are computed. If no image set was formed for longer than
this, the status of the area ``sets`` reports it, unless this area has a problem."""
LATENCY_WINDOW = 100
"""Number of newest results from which the percentiles of the latency are computed."""


class Monitor:
    """Collects counts, times and problems; every method may be called from any thread.

    Attributes:
        report: method ``report`` of the ``Problems`` of this object.
        solved: method ``solved`` of the same ``Problems``.
        changed: method ``changed`` of the same ``Problems``.
    """

    def __init__(
        self,
        logger: Any,
        cameras: tuple[str, ...] = (),
        ros_now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start without counts and problems.

        Args:
            logger: logger of the node.
            cameras: names of the cameras.
            ros_now_s: returns the time of the node's clock in seconds.
        """
        self._ros_now_s = ros_now_s
        self._problems = Problems(logger)
        self.report, self.solved, self.changed = (
            self._problems.report,
            self._problems.solved,
            self._problems.changed,
        )
        self._lock = threading.Lock()
        self._facts: dict[str, dict[str, str]] = {area: {} for area in AREAS}
        self._process = psutil.Process()
        self.start(cameras, 0.0)

    def start(self, cameras: tuple[str, ...], startup_s: float) -> None:
        """Begin a new activation of the node. Drop the counts, rates and problems of the last
        activation, except the problems of the area ``node``.

        Args:
            cameras: names of the cameras.
            startup_s: length of the startup time, seconds.
        """
        self.stop()
        with self._lock:
            self._facts = {
                area: facts if area == 'node' else {} for area, facts in self._facts.items()
            }
            self._arrivals: dict[str, deque[float]] = {
                camera: deque(maxlen=512) for camera in cameras
            }
            self._received = Counter(dict.fromkeys(cameras, 0))
            self._ignored = Counter(dict.fromkeys(cameras, 0))
            self._unusable = Counter(dict.fromkeys(cameras, 0))
            self._newest_ns = dict.fromkeys(cameras, 0)
            self._sets = Counter(received=0, processed=0, unpublished=0)
            self._dropped = Counter(dict.fromkeys(DROP_REASONS, 0))
            self._spreads: deque[float] = deque(maxlen=LATENCY_WINDOW)
            self._begins_at = time.monotonic() + startup_s
            self._last_image_of_any = (self._begins_at, -math.inf)
            self._last_image = dict.fromkeys(cameras, self._last_image_of_any)
            self._last_set = self._resumed = self._last_image_of_any
            self._latencies: dict[str, deque[float]] = {}
            self._published: deque[float] = deque(maxlen=512)
            self._delays: deque[float] = deque(maxlen=LATENCY_WINDOW)

    def stop(self) -> None:
        """End an activation of the node. Keep the counts, and drop all problems except the
        problems of the area ``node``.
        """
        self._problems.drop_all_but('node')

    def fact(self, area: str, **values: object) -> None:
        """Set facts of ``area``. The next activation drops all facts, except in area ``node``."""
        with self._lock:
            self._facts[area].update({key: str(value) for key, value in values.items()})

    def image_arrived(self, camera: str, stamp_ns: int) -> None:
        """Count an image of ``camera``, and store its arrival time and its stamp."""
        with self._lock:
            wall_s, ros_s = moment = self._moment()
            self._arrivals[camera].append(wall_s)
            self._last_image[camera] = self._last_image_of_any = moment
            self._delays.append(ros_s - stamp_ns * 1e-9)
            self._received[camera] += 1
            self._newest_ns[camera] = stamp_ns

    def cameras_resumed(self) -> None:
        """Measure the silence of cameras and the time without image sets from now on, because a
        camera has sent the first image after a pause of all cameras.
        """
        with self._lock:
            self._resumed = self._moment()

    def images_ignored(self, camera: str, count: int) -> None:
        """Store how many images of ``camera`` have been ignored so far, because they repeated an
        earlier image or had no stamp.
        """
        with self._lock:
            self._ignored[camera] = count

    def cameras_used(self, used: Iterable[str], faulty: Iterable[str]) -> None:
        """Store the names of the used cameras, and count an unusable image for each camera in
        ``faulty``.
        """
        with self._lock:
            used = tuple(used)
            self._unusable.update(list(faulty))
            left_out = [camera for camera in self._received if camera not in used]
            self._facts['cameras'].update(
                used=', '.join(used) or 'none', left_out=', '.join(left_out) or 'none'
            )

    def set_arrived(self, spread_s: float) -> None:
        """Count a complete image set; ``spread_s`` is the time between its first and its last
        image, seconds.
        """
        with self._lock:
            self._sets['received'] += 1
            self._spreads.append(spread_s)
            self._last_set = self._moment()

    def sets_received(self) -> int:
        """Return the number of complete sets."""
        with self._lock:
            return self._sets['received']

    def unseen(self) -> set[str]:
        """Return the names of the cameras that have sent no image in this activation."""
        with self._lock:
            return {camera for camera, count in self._received.items() if not count}

    def set_dropped(self, reason: str) -> None:
        """Count an image set without a result; ``reason`` is one of DROP_REASONS."""
        with self._lock:
            self._dropped[reason] += 1

    def set_processed(self) -> None:
        """Count an image set with a result."""
        with self._lock:
            self._sets['processed'] += 1

    def result_unpublished(self) -> None:
        """Count a result that a newer result replaced, or that was not published because of the
        rate limit.
        """
        with self._lock:
            self._sets['unpublished'] += 1

    def result_published(self, stage_seconds: Mapping[str, float]) -> None:
        """Count a published result, and store the duration of each of its stages, seconds."""
        with self._lock:
            self._published.append(time.monotonic())
            for stage, seconds in stage_seconds.items():
                self._latencies.setdefault(stage, deque(maxlen=LATENCY_WINDOW)).append(seconds)

    def clock_began(self, startup_s: float) -> None:
        """Begin the startup time again, because the node's clock has started. Otherwise, the
        startup time could end before a replay begins, because the process of the player takes
        seconds to start. Cameras that have already sent images have no new startup time.
        """
        with self._lock:
            wall_s, ros_s = self._moment()
            self._begins_at = wall_s + startup_s
            begin = self._begins_at, ros_s + startup_s
            unseen = [camera for camera, count in self._received.items() if not count]
            self._last_image.update(dict.fromkeys(unseen, begin))
            if len(unseen) == len(self._received):
                self._last_image_of_any = begin
            if not self._sets['received']:
                self._last_set = self._resumed = begin

    def startup_is_over(self) -> bool:
        """Return True if the startup time is over."""
        with self._lock:
            return time.monotonic() > self._begins_at

    def silence_s(self, camera: str) -> float:
        """Return the time since the camera's last image, seconds. If there was no image, return
        the time since the end of the startup time.
        """
        with self._lock:
            return self._since(self._last_image[camera])

    def has_paused(self, limit_s: float) -> bool:
        """Return True if no camera sent an image for more than ``limit_s`` seconds. The time is
        measured in the same way as in ``silence_s``.
        """
        with self._lock:
            wall_s, _ = moment = self._last_image_of_any
            # While images arrive, the steady clock is enough. A call of the node's clock takes
            # 10 us.
            return time.monotonic() - wall_s > limit_s and self._since(moment) > limit_s

    def is_silent(self, camera: str, timeout_s: float) -> bool:
        """Return True if the camera sent no image for more than ``timeout_s`` seconds. The time of
        a pause of all cameras is not counted.
        """
        with self._lock:
            moments = (self._last_image[camera], self._resumed)
            return min(map(self._since, moments)) > timeout_s

    def seconds_since_last_set(self) -> float:
        """Return the shortest of these times, seconds: since the last complete set, since the
        cameras resumed, since the startup time ended.
        """
        with self._lock:
            return min(self._since(self._last_set), self._since(self._resumed))

    def clock_jumped(self) -> None:
        """Measure durations that have already begun only with the steady clock, because the node's
        clock went back.
        """
        with self._lock:
            self._last_image = {
                camera: (wall_s, -math.inf) for camera, (wall_s, _) in self._last_image.items()
            }
            self._last_image_of_any = (self._last_image_of_any[0], -math.inf)
            self._last_set = (self._last_set[0], -math.inf)
            self._resumed = (self._resumed[0], -math.inf)

    def _moment(self) -> tuple[float, float]:
        """Return the current moment."""
        return time.monotonic(), self._ros_now_s()

    def _since(self, moment: tuple[float, float]) -> float:
        """Return the time since ``moment``, seconds."""
        return min(now - then for now, then in zip(self._moment(), moment, strict=True))

    def counts(self) -> dict[str, int]:
        """Return the numbers of image sets by name: received, processed, unpublished, dropped,
        and dropped_<reason> for each of DROP_REASONS.
        """
        with self._lock:
            return self._counts()

    def summary(self) -> str:
        """Return the counts that are not 0 as text."""
        return (
            ', '.join(f'{count} {name}' for name, count in self.counts().items() if count)
            or 'none'
        )

    def statuses(self, node_name: str, now_ns: int) -> list[DiagnosticStatus]:
        """Return one status per area; ``now_ns`` is the time of the node's clock, from which the
        ages of images are computed.
        """
        problems = self._problems.collect()
        with self._lock:
            values: dict[str, Mapping[str, object]] = {
                'node': {
                    **self._facts['node'],
                    'memory_mb': f'{self._process.memory_info().rss / 2**20:.0f}',
                },
                'cameras': {**self._facts['cameras'], **self._camera_values(now_ns)},
                'sets': {
                    **self._facts['sets'],
                    **self._counts(),
                    **self._spread_values(),
                    **self._frequency_values(),
                },
                'tf': self._facts['tf'],
                'latency': {**self._facts['latency'], **self._latency_values()},
            }
            return [
                _status(
                    f'{node_name}: {area}',
                    [problem for problem in problems if problem.area == area],
                    values[area],
                    self._idle_text() if area == 'sets' else '',
                )
                for area in AREAS
            ]

    def _idle_text(self) -> str:
        """Return a text with the time since the last complete image set, or an empty string if
        this time is at most ``RATE_WINDOW_S``.
        """
        seconds = self._since(self._last_set)
        return f'no image set for {seconds:.0f} s' if seconds > RATE_WINDOW_S else ''

    def _counts(self) -> dict[str, int]:
        reasons = {f'dropped_{reason}': count for reason, count in self._dropped.items()}
        return {**self._sets, 'dropped': sum(self._dropped.values()), **reasons}

    def _camera_values(self, now_ns: int) -> dict[str, str]:
        values = {}
        for camera, arrivals in self._arrivals.items():
            newest_ns = self._newest_ns[camera]
            values[f'{camera}.rate_hz'] = f'{_rate_hz(arrivals):.2f}'
            values[f'{camera}.age_s'] = (
                f'{(now_ns - newest_ns) * 1e-9:.3f}' if newest_ns else 'none'
            )
            values[f'{camera}.received'] = str(self._received[camera])
            values[f'{camera}.ignored'] = str(self._ignored[camera])
            values[f'{camera}.unusable'] = str(self._unusable[camera])
        return values

    def _spread_values(self) -> dict[str, str]:
        return {
            'spread_p50_ms': _percentile_ms(self._spreads, 50),
            'spread_max_ms': _percentile_ms(self._spreads, 100),
        }

    def _frequency_values(self) -> dict[str, str]:
        """Return the rate of the results and the delays of the images. The keys are the same as in
        FrequencyStatus and TimeStampStatus of diagnostic_updater.
        """
        return {
            'Actual frequency (Hz)': f'{_rate_hz(self._published):f}',
            'Events since startup': str(self._sets['processed']),
            'Earliest timestamp delay:': f'{min(self._delays, default=0.0):f}',
            'Latest timestamp delay:': f'{max(self._delays, default=0.0):f}',
        }

    def _latency_values(self) -> dict[str, str]:
        return {
            f'{stage}_p{percent}_ms': _percentile_ms(seconds, percent)
            for stage, seconds in self._latencies.items()
            for percent in (50, 95)
        }


def _status(
    name: str, problems: list[Problem], values: Mapping[str, object], idle_text: str
) -> DiagnosticStatus:
    """Return the status of one area. The message of the status contains the ``problems``, which
    must be sorted with the worst problem first. Without problems, the message is ``idle_text``, or
    ok if this text is empty.
    """
    return DiagnosticStatus(
        level=problems[0].level if problems else OK,
        name=name,
        message='; '.join(problem.sentence for problem in problems) or idle_text or 'ok',
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def _rate_hz(arrivals: deque[float]) -> float:
    """Return the mean rate of ``arrivals`` in the last RATE_WINDOW_S seconds, in Hz. Return 0 if
    this time contains fewer than two arrivals.
    """
    recent = [arrival for arrival in arrivals if arrival > time.monotonic() - RATE_WINDOW_S]
    return (
        (len(recent) - 1) / (recent[-1] - recent[0])
        if len(recent) > 1 and recent[-1] > recent[0]
        else 0.0
    )


def _percentile_ms(seconds: deque[float], percent: float) -> str:
    return f'{np.percentile(seconds, percent) * 1e3:.1f}' if seconds else 'none'
