"""What the view in the browser shows of one moment, and the moments of the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import cv2

from bevdepth_core.types import Detections3D
from bevdepth_core.visualization import GroundTruth, camera_panel
from bevdepth_ros.rendering.scene import Scene

PANEL_SIZE = (640, 360)
"""Largest width and height of a camera's picture, pixels."""
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)


@dataclass(frozen=True)
class Moment:
    """One moment, small enough to keep hundreds.

    Attributes:
        stamp_ns: when.
        detections: None when nothing looked for any.
        ground_truth: None when unknown.
        panels: JPEG files by camera, boxes drawn into them.
        figures: latency and rate in words.
    """

    stamp_ns: int
    detections: Detections3D | None
    ground_truth: GroundTruth | None
    panels: Mapping[str, bytes]
    figures: str


def moment_of(scene: Scene, figures: str) -> Moment:
    """Return what is shown and kept of a scene."""
    panels = {}
    for index, name in enumerate(scene.frame.rig.names):
        panel = camera_panel(
            scene.frame, index, scene.detections, scene.ground_truth, None, PANEL_SIZE
        )
        panels[name] = cv2.imencode('.jpg', panel[..., ::-1], _JPEG)[1].tobytes()
    return Moment(scene.stamp_ns, scene.detections, scene.ground_truth, panels, figures)


class MomentHistory:
    """The moments of the last seconds."""

    def __init__(self, seconds: float):
        """Keep what is at most ``seconds`` older than the newest."""
        self._span_ns = round(seconds * 1e9)
        self._moments: deque[Moment] = deque()

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, moment: Moment) -> None:
        """Take the newest moment; one that lies before the last begins a new recording."""
        if self._moments and moment.stamp_ns < self._moments[-1].stamp_ns:
            self._moments.clear()
        self._moments.append(moment)
        while self._moments[0].stamp_ns < moment.stamp_ns - self._span_ns:
            self._moments.popleft()

    def at(self, seconds_back: float) -> Moment | None:
        """Return the moment nearest to ``seconds_back`` before the newest, None before the
        first.
        """
        if not self._moments:
            return None
        wanted_ns = self._moments[-1].stamp_ns - round(seconds_back * 1e9)
        return min(self._moments, key=lambda moment: abs(moment.stamp_ns - wanted_ns))
