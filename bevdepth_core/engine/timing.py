"""Measures the time per step with CUDA events."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch


def device_seconds(work: Callable[[], object], runs: int = 5) -> float:
    """Return the shortest time of ``work`` on the current CUDA device, without the first two runs,
    in which libraries choose kernels.
    """
    times = []
    for _ in range(2 + runs):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(1e-3 * begin.elapsed_time(end))
    return min(times[2:])


class StageTimer:
    """Measures consecutive stages on a GPU. The CPU waits only for the end of the last stage.

    If ``device`` is the CPU, every time is 0.
    """

    def __init__(self, device: torch.device) -> None:
        self._on = device.type == 'cuda'
        self._events: list[torch.cuda.Event] = []
        self._stages: list[str] = []

    def start(self) -> None:
        """Begin the first stage."""
        self._stages = []
        self._record()

    def stage_done(self, stage: str) -> None:
        """Mark the end of ``stage``, which began at the previous mark."""
        self._stages.append(stage)
        self._record()

    def _record(self) -> None:
        if not self._on:
            return
        if len(self._events) <= len(self._stages):
            self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[len(self._stages)].record()

    def wait(self) -> dict[str, float]:
        """Wait for the end of the last stage and return seconds per stage."""
        if not self._on:
            return dict.fromkeys(self._stages, 0.0)
        self._events[len(self._stages)].synchronize()
        pairs = itertools.pairwise(self._events)
        return {
            stage: 1e-3 * before.elapsed_time(after)
            for stage, (before, after) in zip(self._stages, pairs, strict=False)
        }
