"""Two published trackers, implemented from their papers, for comparison. Both trackers ignore the
heights, sizes and headings of the detections.

The arguments of ``update`` are the first two arguments of ``Tracker.update``. The result contains
only boxes of the current frame. ``frame_s`` is the time between two frames, seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Boxes3D, Detections3D

REACH_M = {
    'car': 4.0, 'truck': 4.0, 'construction_vehicle': 4.0, 'bus': 5.5, 'trailer': 3.0,
    'pedestrian': 1.0, 'motorcycle': 13.0, 'bicycle': 3.0, 'barrier': 1.0, 'traffic_cone': 1.0,
}  # fmt: skip
"""Largest distance between a track and a detection that is matched to the track, meters, by class.
CenterPoint published these values for key frames."""
KEY_FRAME_S = 0.5
"""Time between two frames in the published settings, seconds. If ``frame_s`` differs, the
trackers keep a track without detections for the published time, not for the published number of
frames."""


@dataclass
class _Track:
    id: int
    label: int
    position: np.ndarray
    velocity: np.ndarray
    hits: int = 1
    missed: int = 0
    covariance: np.ndarray | None = None


class CenterPointTracker:
    """Greedy matching (Yin et al., 2021, "Center-based 3D object detection and tracking"): each
    detection is moved back by one frame with its velocity, and matched to the nearest track.
    Unmatched tracks move with their velocity for three key frames, and then end.
    """

    def __init__(self, frame_s: float = KEY_FRAME_S) -> None:
        self._frame_s = frame_s
        self._longest_missed = round(3 * KEY_FRAME_S / frame_s)
        self._tracks: list[_Track] = []
        self._next_id = 1

    def update(self, detections: Detections3D, world_from_ego: np.ndarray) -> Tracks3D:
        """Return the detections with the ids of their tracks."""
        center, velocity = _in_world(detections, world_from_ego)
        past = center - self._frame_s * velocity
        labels = np.array([track.label for track in self._tracks], np.int64)
        positions = np.reshape([track.position for track in self._tracks], (-1, 2))
        is_free = np.ones(len(labels), bool)
        tracks = []
        for row, label in enumerate(detections.labels.tolist()):
            same = np.flatnonzero(is_free & (labels == label))
            distance = np.linalg.norm(past[row] - positions[same], axis=1)
            reach = REACH_M[detections.class_names[label]]
            if len(same) and distance.min() <= reach:
                old = same[distance.argmin()]
                is_free[old] = False
                track_id = self._tracks[old].id
            else:
                track_id = self._next_id
                self._next_id += 1
            tracks.append(_Track(track_id, label, center[row], velocity[row]))
        free = [track for track, is_left in zip(self._tracks, is_free, strict=True) if is_left]
        ids = np.array([track.id for track in tracks], np.int64)
        for track in free:
            track.missed += 1
            track.position = track.position + self._frame_s * track.velocity
        self._tracks = tracks + [one for one in free if one.missed <= self._longest_missed]
        return _tracks(detections, np.arange(len(detections)), ids, detections.boxes)


class ConstantVelocityTracker:
    """Kalman filters with constant velocity, and optimal assignment (Weng et al., 2020, "3D
    multi-object tracking: a baseline and new evaluation metrics"). The filters ignore the detected
    velocities. The assignment uses the distance of centers, as is usual on nuScenes. The unit of
    time is a frame, and the noise has the published values.
    """

    MIN_HITS = 3
    STEP = np.block([[np.eye(2), np.eye(2)], [np.zeros((2, 2)), np.eye(2)]])
    NOISE = np.diag((1.0, 1.0, 0.01, 0.01))
    START = np.diag((10.0, 10.0, 10_000.0, 10_000.0))

    def __init__(self, frame_s: float = KEY_FRAME_S) -> None:
        self._longest_missed = round(2 * KEY_FRAME_S / frame_s)
        self._tracks: list[_Track] = []
        self._next_id = 1
        self._frames = 0

    def update(self, detections: Detections3D, world_from_ego: np.ndarray) -> Tracks3D:
        """Return the filtered boxes of the tracks that have a detection in this frame and at least
        ``MIN_HITS`` hits. In the first two frames, one hit per frame is enough.
        """
        self._frames += 1
        center, _ = _in_world(detections, world_from_ego)
        for track in self._tracks:
            state = self.STEP @ np.concatenate((track.position, track.velocity))
            track.position, track.velocity = state[:2], state[2:]
            track.covariance = self.STEP @ track.covariance @ self.STEP.T + self.NOISE
            track.missed += 1
        of_row = self._assigned(detections, center)
        for row, label in enumerate(detections.labels.tolist()):
            if row in of_row:
                self._correct(of_row[row], center[row])
            else:
                new = _Track(self._next_id, label, center[row], np.zeros(2))
                new.covariance = self.START
                self._next_id += 1
                self._tracks.append(new)
                of_row[row] = new
        self._tracks = [one for one in self._tracks if one.missed <= self._longest_missed]
        fewest = min(self.MIN_HITS, self._frames)
        rows = np.array(sorted(row for row, one in of_row.items() if one.hits >= fewest), int)
        found = [of_row[row] for row in rows.tolist()]
        boxes = _moved(
            detections.boxes[rows], np.array([one.position for one in found]), world_from_ego
        )
        return _tracks(detections, rows, np.array([one.id for one in found], np.int64), boxes)

    def _assigned(self, detections: Detections3D, center: np.ndarray) -> dict[int, _Track]:
        result: dict[int, _Track] = {}
        for label in np.unique(detections.labels).tolist():
            rows = np.nonzero(detections.labels == label)[0]
            same = [track for track in self._tracks if track.label == label]
            if not same:
                continue
            positions = np.array([track.position for track in same])
            distance = np.linalg.norm(center[rows, None] - positions, axis=2)
            reach = REACH_M[detections.class_names[label]]
            for first, second in zip(*linear_sum_assignment(distance), strict=True):
                if distance[first, second] <= reach:
                    result[int(rows[first])] = same[second]
        return result

    @staticmethod
    def _correct(track: _Track, center: np.ndarray) -> None:
        state = np.concatenate((track.position, track.velocity))
        gain = track.covariance[:, :2] @ np.linalg.inv(track.covariance[:2, :2] + np.eye(2))
        state = state + gain @ (center - track.position)
        track.covariance = track.covariance - gain @ track.covariance[:2]
        track.position, track.velocity = state[:2], state[2:]
        track.hits += 1
        track.missed = 0


def _in_world(detections: Detections3D, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the (n, 2) positions and the (n, 2) velocities of detections in the world frame."""
    center = detections.boxes.center @ pose[:3, :3].T + pose[:3, 3]
    return center[:, :2], detections.boxes.velocity @ pose[:2, :2].T


def _moved(boxes: Boxes3D, position: np.ndarray, pose: np.ndarray) -> Boxes3D:
    """Move ``boxes``, which are in the ego frame, to the (n, 2) positions in the world frame."""
    if not len(boxes):
        return boxes
    center = boxes.center @ pose[:3, :3].T + pose[:3, 3]
    center[:, :2] = position
    ego = (center - pose[:3, 3]) @ pose[:3, :3]
    return Boxes3D(ego, boxes.size, boxes.yaw, boxes.velocity)


def _tracks(
    detections: Detections3D, rows: np.ndarray, ids: np.ndarray, boxes: Boxes3D
) -> Tracks3D:
    count = len(rows)
    return Tracks3D(
        boxes, ids, detections.scores[rows], detections.labels[rows],
        np.zeros((count, 4, 4)), np.zeros((count, 2, 2)), np.zeros(count), np.zeros(count),
        rows, detections.class_names, detections.stamp_ns,
    )  # fmt: skip
