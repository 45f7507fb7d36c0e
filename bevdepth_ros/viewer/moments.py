"""Stores the contents that the viewer's page had during the last seconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

import cv2

from bevdepth_core.types import Detections3D
from bevdepth_core.visualization import GroundTruth, camera_panel
from bevdepth_ros.rendering.scene import SHOWN_SCORE, Scene

PANEL_SIZE = (640, 360)
"""Largest width and height of a camera image on the page, pixels."""
_JPEG = (cv2.IMWRITE_JPEG_QUALITY, 85)


@dataclass(frozen=True)
class Moment:
    """Content of the page at one time. The images are small JPEG files, because hundreds of
    moments are stored.

    Attributes:
        stamp_ns: time of the boxes.
        detections: detections of the images; None if no detections were received.
        ground_truth: annotated boxes, None if unknown.
        panels: for each camera, its image with boxes drawn into it, as a JPEG file.
        figures: latency and rate as text.
    """

    stamp_ns: int
    detections: Detections3D | None
    ground_truth: GroundTruth | None
    panels: Mapping[str, bytes]
    figures: str


def moment_of(scene: Scene, figures: str) -> Moment:
    """Return the content of the page for a scene. The camera images show only boxes with a score
    of at least SHOWN_SCORE.
    """
    shown = None if scene.detections is None else scene.detections.above(SHOWN_SCORE)
    panels = {}
    for index, name in enumerate(scene.frame.rig.names):
        panel = camera_panel(scene.frame, index, shown, scene.ground_truth, None, PANEL_SIZE)
        panels[name] = cv2.imencode('.jpg', panel[..., ::-1], _JPEG)[1].tobytes()
    return Moment(scene.stamp_ns, scene.detections, scene.ground_truth, panels, figures)


class MomentHistory:
    """Stores the moments of the last seconds."""

    def __init__(self, seconds: float):
        """Store moments that are at most ``seconds`` older than the newest moment."""
        self._span_ns = round(seconds * 1e9)
        self._moments: deque[Moment] = deque()

    def __len__(self) -> int:
        return len(self._moments)

    def add(self, moment: Moment) -> None:
        """Add a moment. If it is older than the newest stored moment, for example because a replay
        started again, remove the stored moments first.
        """
        if self._moments and moment.stamp_ns < self._moments[-1].stamp_ns:
            self._moments.clear()
        self._moments.append(moment)
        while self._moments[0].stamp_ns < moment.stamp_ns - self._span_ns:
            self._moments.popleft()

    def at(self, seconds_back: float) -> Moment | None:
        """Return the moment whose time is nearest to ``seconds_back`` before the newest moment;
        None if no moment is stored.
        """
        if not self._moments:
            return None
        wanted_ns = self._moments[-1].stamp_ns - round(seconds_back * 1e9)
        return min(self._moments, key=lambda moment: abs(moment.stamp_ns - wanted_ns))
