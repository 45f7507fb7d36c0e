"""Tracks that the tracker returns."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from bevdepth_core.types import Boxes3D, Detections3D


@dataclass(frozen=True)
class Tracks3D:
    """Tracked objects of one frame, in the ego frame at ``stamp_ns``.

    Attributes:
        boxes: n smoothed boxes; velocity is over ground, in ego axes.
        ids: (n,) int64, positive; an id is never given to another object.
        scores: (n,) float32 in [0, 1], the mean of the detection scores of about the last 0.5 s.
        labels: (n,) int64, index into ``class_names``.
        pose_covariance: (n, 4, 4) float64 covariance of x, y, z (m) and yaw (rad).
        velocity_covariance: (n, 2, 2) float64 covariance of the velocity, (m/s)^2.
        age_s: (n,) float64, time since the first detection, seconds.
        coasted_s: (n,) float64, time since the last detection, seconds; 0 if the track has a
            detection in this frame.
        detections: (n,) int64, index of the matched detection of this frame, -1 if there is none.
        class_names: classes of the detector.
        stamp_ns: stamp of the detections.
    """

    boxes: Boxes3D
    ids: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    pose_covariance: np.ndarray
    velocity_covariance: np.ndarray
    age_s: np.ndarray
    coasted_s: np.ndarray
    detections: np.ndarray
    class_names: tuple[str, ...]
    stamp_ns: int

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: slice | np.ndarray) -> Tracks3D:
        """Return the selected tracks; ``index`` is a slice, a mask or an index array."""
        return replace(self, **{name: getattr(self, name)[index] for name in PER_TRACK})

    def as_detections(self) -> Detections3D:
        """Return the tracks as detections.

        If ``past_stamp_ns`` of detections is None, their velocities are not valid. The velocities
        of tracks are valid, so ``past_stamp_ns`` of the result must not be None. It is set to
        ``stamp_ns``.
        """
        return Detections3D(
            self.boxes, self.scores, self.labels, self.class_names, self.stamp_ns, self.stamp_ns
        )

    def detection_ids(self, count: int) -> np.ndarray:
        """Return the (count,) int64 track id of each detection of this frame, 0 for no track."""
        result = np.zeros(count, np.int64)
        is_seen = self.detections >= 0
        result[self.detections[is_seen]] = self.ids[is_seen]
        return result


PER_TRACK = (
    'boxes', 'ids', 'scores', 'labels', 'pose_covariance', 'velocity_covariance', 'age_s',
    'coasted_s', 'detections',
)  # fmt: skip
"""Attributes of ``Tracks3D`` with one row per track."""
