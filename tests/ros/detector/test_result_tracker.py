"""Tests the class ``ResultTracker`` of the node without a running node."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.tracking import TrackerConfig
from bevdepth_core.types import Boxes3D, CameraRig, Detections3D, Frame
from bevdepth_core.uncertainty import default_covariance
from bevdepth_ros.detector.result_tracker import TRAIL_S, ResultTracker, ego_pose

PERIOD_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
CAR = np.array((20.0, 3.0, 0.8))
"""Position of the parked car in the world frame, meters."""


def pose(x: float, y: float = 0.0, yaw: float = 0.0) -> np.ndarray:
    result = np.eye(4)
    result[:2, :2] = [[np.cos(yaw), -np.sin(yaw)], [np.sin(yaw), np.cos(yaw)]]
    result[:2, 3] = x, y
    return result


def frame(stamp_ns: int, world_from_ego: np.ndarray | None) -> Frame:
    rig = CameraRig(
        ('a', 'b'), np.tile(np.diag((100.0, 100, 1)), (2, 1, 1)), np.tile(np.eye(4), (2, 1, 1))
    )
    stamps = np.array((stamp_ns - 10_000_000, stamp_ns + 10_000_000))
    poses = None if world_from_ego is None else np.stack((world_from_ego, world_from_ego))
    return Frame((np.zeros((32, 32, 3), np.uint8),) * 2, rig, stamps, poses)


class Drive:
    """A vehicle that passes a parked car, and a tracker that receives the true box of the car in
    each step.
    """

    def __init__(self) -> None:
        self.tracker, self.stamp_ns = ResultTracker(), START_NS
        self.frame = frame(START_NS, None)

    def step(
        self, true_pose: np.ndarray, reported_pose: np.ndarray | None, step_ns: int = PERIOD_NS
    ):
        self.stamp_ns += step_ns
        self.frame = frame(self.stamp_ns, reported_pose)
        center = (CAR - true_pose[:3, 3]) @ true_pose[:3, :3]
        boxes = Boxes3D(center[None], [[4.5, 1.9, 1.6]], [0.0], [[0.0, 0.0]])
        found = Detections3D(boxes, [0.9], [0], ('car',), self.frame.stamp_ns)
        return self.tracker.update(
            found, self.frame, default_covariance(found), TrackerConfig(instant_score=0.5)
        )

    def trail(self, tracks) -> np.ndarray:
        (trail,) = self.tracker.trails(tracks, self.frame)
        return trail


def test_without_a_pose_a_step_has_no_tracks_and_the_next_step_has_the_same_ids_as_before():
    drive = Drive()
    first = drive.step(pose(0), pose(0))
    assert drive.step(pose(1), None) is None
    assert drive.step(pose(2), pose(2)).ids.tolist() == first.ids.tolist() == [1]


@pytest.mark.parametrize('jump', [pose(500, -300), pose(0, 0, 2.0), pose(40, 7, -1.3)])
def test_tracks_and_trails_stay_at_the_object_when_the_localization_jumps(jump: np.ndarray):
    drive, ids = Drive(), []
    for number in range(20):
        true = pose(0.8 * number, 0.0, 0.03 * number)
        tracks = drive.step(true, true if number < 10 else jump @ true)
        ids += tracks.ids.tolist()
    assert set(ids) == {1}
    assert np.abs(tracks.boxes.velocity).max() < 0.3
    expected = (CAR - true[:3, 3]) @ true[:3, :3]
    np.testing.assert_allclose(tracks.boxes.center[0], expected, atol=0.05)
    assert np.abs(drive.trail(tracks) - expected).max() < 0.2
    assert len(drive.trail(tracks)) > 5


def test_a_stamp_that_goes_backward_ends_tracks_and_trails():
    drive = Drive()
    for number in range(10):
        drive.step(pose(number), pose(number))
    tracks = drive.step(pose(0), pose(0), -5_000_000_000)
    assert tracks.ids.tolist() == [2]
    assert len(drive.trail(tracks)) == 1


def test_a_trail_ends_at_the_box_of_its_track_and_covers_at_most_three_seconds():
    drive = Drive()
    for number in range(80):
        tracks = drive.step(pose(0.0), pose(-0.5 * number))
    trail = drive.trail(tracks)
    np.testing.assert_allclose(trail[-1], tracks.boxes.center[0], atol=1e-4)
    assert 8 <= len(trail) <= 14
    length = np.linalg.norm(trail[-1] - trail[0])
    assert 5.0 * (TRAIL_S - 0.5) < length <= 5.0 * TRAIL_S + 0.1


def test_the_ego_pose_of_a_frame_is_the_pose_of_the_image_nearest_to_the_mean_stamp():
    rig = CameraRig(
        ('a', 'b', 'c'),
        np.tile(np.diag((100.0, 100, 1)), (3, 1, 1)),
        np.tile(np.eye(4), (3, 1, 1)),
    )
    stamps = np.array((0, 5, 50)) * 10**6 + START_NS
    poses = np.stack((pose(1), pose(2), pose(3)))
    images = (np.zeros((32, 32, 3), np.uint8),) * 3
    assert ego_pose(Frame(images, rig, stamps, poses))[0, 3] == 2
    assert ego_pose(Frame(images, rig, stamps, None)) is None


def test_a_trail_has_a_point_every_quarter_of_a_second_for_three_seconds():
    drive = Drive()
    for _ in range(20):
        tracks = drive.step(pose(0), pose(0), 250_000_000)
    assert len(drive.trail(tracks)) == 13
