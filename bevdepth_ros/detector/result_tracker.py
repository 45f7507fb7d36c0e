"""Tracks the objects in successive detection results, and stores their trails."""

from __future__ import annotations

from collections import deque

import numpy as np

from bevdepth_core.geometry import invert_rigid
from bevdepth_core.tracking import Tracker, TrackerConfig, Tracks3D
from bevdepth_core.types import Detections3D, Frame
from bevdepth_core.uncertainty import BoxCovariance
from bevdepth_ros.detector.pose_check import PoseCheck

TRAIL_S = 3.0
"""Duration of a trail, seconds."""
TRAIL_STEP_S = 0.25
"""Shortest time between two positions of a trail, seconds. Only the time between the last two
positions may be shorter."""


class ResultTracker:
    """Tracks objects and stores their trails. Only the publishing thread may use this object.

    If a newer result replaced a result before its publication, the tracker does not receive the
    replaced result. The tracker then predicts the tracks over a longer time.
    """

    def __init__(self) -> None:
        self._tracker = Tracker()
        self._pose_check = PoseCheck()
        self._trails = Trails()

    def update(
        self,
        detections: Detections3D,
        frame: Frame,
        covariance: BoxCovariance,
        config: TrackerConfig,
    ) -> Tracks3D | None:
        """Update the tracks with ``detections`` and return the tracks. Return None if the frame
        has no ego poses.

        If the localization jumps, the transform from the expected to the new ego pose moves all
        tracks and trails, so that objects keep their ids.
        """
        pose = ego_pose(frame)
        jump = self._pose_check.jump(frame.stamp_ns, pose)
        if pose is None:
            return None
        if jump is not None:
            new_world_from_world = pose @ invert_rigid(jump.expected_pose)
            self._tracker.move(new_world_from_world)
            self._trails.move(new_world_from_world)
        self._tracker.config = config
        tracks = self._tracker.update(detections, pose, covariance)
        self._trails.add(tracks, pose)
        return tracks

    def trails(self, tracks: Tracks3D, frame: Frame) -> list[np.ndarray]:
        """Return the (k, 3) past and present positions of each track that ``update`` returned, the
        oldest position first, in the ego frame of ``frame``, meters.
        """
        pose = ego_pose(frame)
        assert pose is not None  # otherwise there are no tracks
        return self._trails.points(tracks.ids, pose)


def ego_pose(frame: Frame) -> np.ndarray | None:
    """Return the (4, 4) ego pose at the exposure of the camera whose stamp is nearest to the stamp
    of the frame; None if the frame has no ego poses.
    """
    if frame.world_from_ego is None:
        return None
    return frame.world_from_ego[np.abs(frame.stamps_ns - frame.stamp_ns).argmin()]


class Trails:
    """Recent positions of tracks in the world frame, at the last moment and at earlier moments
    that are at least ``TRAIL_STEP_S`` apart.
    """

    def __init__(self) -> None:
        self._moments: deque[tuple[int, np.ndarray, np.ndarray]] = deque()  # stamp, ids, centers

    def add(self, tracks: Tracks3D, world_from_ego: np.ndarray) -> None:
        """Add the current positions, and drop positions that are older than ``TRAIL_S``. If the
        stamp is before the last stamp, drop all stored positions first.
        """
        moments, stamp_ns = self._moments, tracks.stamp_ns
        if moments and stamp_ns < moments[-1][0]:
            moments.clear()
        # Replace the newest moment if it is less than TRAIL_STEP_S after the moment before it.
        if len(moments) > 1 and (moments[-1][0] - moments[-2][0]) * 1e-9 < TRAIL_STEP_S:
            moments.pop()
        centers = tracks.boxes.center @ world_from_ego[:3, :3].T + world_from_ego[:3, 3]
        moments.append((stamp_ns, tracks.ids, centers))
        while (stamp_ns - moments[0][0]) * 1e-9 > TRAIL_S:
            moments.popleft()

    def move(self, new_world_from_world: np.ndarray) -> None:
        """Move all positions by a (4, 4) rigid transform, after the localization jumped."""
        turn, shift = new_world_from_world[:3, :3], new_world_from_world[:3, 3]
        for _, _, centers in self._moments:
            centers[:] = centers @ turn.T + shift

    def points(self, track_ids: np.ndarray, world_from_ego: np.ndarray) -> list[np.ndarray]:
        """Return the (k, 3) positions of each track in the ego frame, oldest first."""
        ids = np.concatenate([ids for _, ids, _ in self._moments])
        centers = np.concatenate([centers for _, _, centers in self._moments])
        order = np.argsort(ids, kind='stable')
        begins, ends = (np.searchsorted(ids[order], track_ids, side) for side in ('left', 'right'))
        local = (centers[order] - world_from_ego[:3, 3]) @ world_from_ego[:3, :3]
        return [local[begin:end] for begin, end in zip(begins, ends, strict=True)]
