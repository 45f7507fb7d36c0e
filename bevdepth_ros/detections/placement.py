"""Transforms detections, tracks and trails from the base frame to the frame of the outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import BoxCovariance


class FarBoxes3D(Boxes3D):
    """Boxes that may be far from the origin of their frame, for example in a map. Their centers
    are float64.
    """

    CENTER_TYPE = np.float64


@dataclass(frozen=True)
class Placement:
    """The tf frame of the outputs.

    Attributes:
        frame_id: name of the output frame.
        from_base: (4, 4) float64, rigid transform output_from_base at the stamp of the detections;
            None if the output frame is the base frame. Boxes stay upright: a tilt of the output
            frame changes the centers of the boxes, but does not tilt the boxes.
    """

    frame_id: str
    from_base: np.ndarray | None = None

    def detections(self, detections: Detections3D) -> Detections3D:
        """Return ``detections`` in this frame."""
        if self.from_base is None:
            return detections
        return replace(detections, boxes=self._boxes(detections.boxes))

    def covariance(self, covariance: BoxCovariance) -> BoxCovariance:
        """Return ``covariance`` along the axes of this frame."""
        return BoxCovariance(self._pose(covariance.pose), self._velocity(covariance.velocity))

    def tracks(self, tracks: Tracks3D) -> Tracks3D:
        """Return ``tracks`` in this frame."""
        if self.from_base is None:
            return tracks
        return replace(
            tracks,
            boxes=self._boxes(tracks.boxes),
            pose_covariance=self._pose(tracks.pose_covariance),
            velocity_covariance=self._velocity(tracks.velocity_covariance),
        )

    def trails(self, trails: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return ``trails``, each of (k, 3) points, in this frame."""
        return [self._points(trail) for trail in trails]

    def _points(self, points: np.ndarray) -> np.ndarray:
        if self.from_base is None:
            return points
        return points @ self.from_base[:3, :3].T + self.from_base[:3, 3]

    def _boxes(self, boxes: Boxes3D) -> Boxes3D:
        if self.from_base is None:
            return boxes
        yaw = np.arctan2(self.from_base[1, 0], self.from_base[0, 0])
        return FarBoxes3D(
            self._points(boxes.center),
            boxes.size,
            (boxes.yaw + yaw + np.pi) % (2 * np.pi) - np.pi,
            boxes.velocity @ self.from_base[:2, :2].T,
        )

    def _pose(self, covariance: np.ndarray) -> np.ndarray:
        """Return (n, 4, 4) covariances of x, y, z, yaw in this frame."""
        if self.from_base is None:
            return covariance
        rotation = np.eye(4)
        rotation[:3, :3] = self.from_base[:3, :3]
        return rotation @ covariance @ rotation.T

    def _velocity(self, covariance: np.ndarray) -> np.ndarray:
        if self.from_base is None:
            return covariance
        rotation = self.from_base[:2, :2]
        return rotation @ covariance @ rotation.T
