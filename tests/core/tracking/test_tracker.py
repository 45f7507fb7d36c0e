"""Tests birth, motion and end of tracks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from bevdepth_core.tracking import Tracker, TrackerConfig
from bevdepth_core.tracking.config import PEDESTRIAN as WALKING
from bevdepth_core.tracking.config import VEHICLE
from bevdepth_core.tracking.tracker import COMMON_ERROR
from bevdepth_core.types import Detections3D
from bevdepth_core.uncertainty import BoxCovariance, default_covariance
from tests.core.tracking.scenes import BARRIER, CAR, PEDESTRIAN, START_NS, detections, pose

HERE = pose()


def run(tracker: Tracker, frames: list[Detections3D], world_from_ego: np.ndarray = HERE) -> list:
    return [tracker.update(frame, world_from_ego) for frame in frames]


def test_an_object_keeps_its_id_while_the_object_moves_and_the_vehicle_moves_and_turns():
    tracker, ids = Tracker(), []
    for index in range(20):
        time_s = index / 10
        ego = pose(12 * time_s, 3, 0.5, 0.4 * time_s)
        car = np.array((30 + 8 * time_s, 5 - 2 * time_s, 1.2, 1))
        seen = detections([(np.linalg.inv(ego) @ car)[:3]], time_s)
        tracks = tracker.update(seen, ego)
        ids.append(tracks.ids.tolist())
    assert ids == [[1]] * 20
    turn = ego[:2, :2]
    np.testing.assert_allclose(tracks.boxes.velocity[0], turn.T @ (8, -2), atol=0.3)
    np.testing.assert_allclose(tracks.boxes.center[0], seen.boxes.center[0], atol=0.2)


def test_two_objects_that_pass_each_other_keep_their_ids():
    tracker = Tracker()
    for index in range(21):
        time_s = index / 10
        cars = [(-10 + 10 * time_s, 1.5), (10 - 10 * time_s, -1.5)]
        order = [0, 1] if index % 2 else [1, 0]
        velocities = np.array(((10.0, 0), (-10, 0)))[order]
        seen = detections([cars[i] for i in order], time_s, velocities=velocities)
        tracks = tracker.update(seen, HERE)
        by_id = dict(zip(tracks.ids.tolist(), tracks.boxes.center[:, 1].tolist(), strict=True))
        assert {i: y > 0 for i, y in by_id.items()} == {1: False, 2: True}


def test_a_track_that_starts_with_a_low_score_is_published_after_its_second_detection():
    first, second = run(Tracker(), [detections([(10, 0)], t, scores=[0.3]) for t in (0, 0.1)])
    assert len(first) == 0
    assert second.ids.tolist() == [1]


def test_a_track_that_starts_with_a_high_score_is_published_after_its_first_detection():
    [tracks] = run(Tracker(), [detections([(10, 0)], scores=[0.5])])
    assert tracks.ids.tolist() == [1]


def test_a_detection_below_the_birth_score_continues_a_track_but_starts_no_track():
    tracker = Tracker()
    run(tracker, [detections([(10, 0)], 0)])
    tracks = tracker.update(detections([(10, 0), (30, 0)], 0.1, scores=[0.19, 0.19]), HERE)
    assert tracks.ids.tolist() == [1]
    assert tracks.detections.tolist() == [0]
    tracks = tracker.update(detections([(10, 0), (30, 0)], 0.2, scores=[0.2, 0.2]), HERE)
    tracks = tracker.update(detections([(10, 0), (30, 0)], 0.3, scores=[0.2, 0.2]), HERE)
    assert sorted(tracks.ids.tolist()) == [1, 2]


def test_a_track_without_detections_coasts_then_is_not_published_and_later_returns_with_its_id():
    config = TrackerConfig(coast_s=0.5, keep_s=2.0)
    tracker = Tracker(config)
    moving = [detections([(10 + 5 * t, 0)], t, velocities=[(5, 0)]) for t in (0, 0.1, 0.2, 0.3)]
    run(tracker, moving)
    coasting = tracker.update(detections([], 0.8), HERE)
    assert coasting.ids.tolist() == [1]
    assert coasting.detections.tolist() == [-1]
    np.testing.assert_allclose(coasting.boxes.center[0, 0], 14, atol=0.2)
    np.testing.assert_allclose(coasting.coasted_s, 0.5)
    assert len(tracker.update(detections([], 0.9), HERE)) == 0
    returned = tracker.update(detections([(10 + 5 * 1.5, 0)], 1.5, velocities=[(5, 0)]), HERE)
    assert returned.ids.tolist() == [1]
    assert returned.coasted_s.tolist() == [0]
    np.testing.assert_allclose(returned.age_s, 1.5)


def test_a_track_ends_after_keep_s_and_its_id_is_not_used_again():
    tracker = Tracker(TrackerConfig(keep_s=2.0))
    run(tracker, [detections([(10, 0)], 0), detections([], 1.0), detections([], 2.0)])
    assert tracker.update(detections([(10, 0)], 2.01), HERE).ids.tolist() == [2]


def test_a_tentative_track_ends_after_tentative_s():
    frames = [detections([(10, 0)], t, scores=[0.3]) for t in (0, 0.61, 1.21)]
    assert [len(tracks) for tracks in run(Tracker(), frames)] == [0, 0, 1]


@pytest.mark.parametrize('time_s', [-0.1, 3.1])
def test_a_backward_stamp_or_a_long_gap_between_stamps_ends_all_tracks(time_s):
    tracker = Tracker()
    run(tracker, [detections([(10, 0)], 0)])
    assert tracker.update(detections([(10, 0)], time_s), HERE).ids.tolist() == [2]


def test_a_repeated_stamp_does_not_end_tracks():
    tracker = Tracker()
    assert [t.ids.tolist() for t in run(tracker, [detections([(10, 0)])] * 2)] == [[1], [1]]


def test_reset_ends_all_tracks():
    tracker = Tracker()
    run(tracker, [detections([(10, 0)], 0)])
    tracker.reset()
    assert tracker.update(detections([(10, 0)], 0.1), HERE).ids.tolist() == [2]


def test_tracks_keep_their_ids_and_boxes_if_the_world_frame_jumps():
    tracker, jump = Tracker(), pose(100, -50, 2, 1.0)
    frames = [detections([(10, 4, 1)], t, velocities=[(3, 0)], yaws=[0.5]) for t in (0, 0.1)]
    run(tracker, frames)
    tracker.move(jump)
    tracks = tracker.update(frames[1], jump)
    assert tracks.ids.tolist() == [1]
    np.testing.assert_allclose(tracks.boxes.center[0], (10, 4, 1), atol=0.15)
    np.testing.assert_allclose(tracks.boxes.velocity[0], (3, 0), atol=0.1)
    np.testing.assert_allclose(tracks.boxes.yaw, 0.5, atol=1e-6)


def test_a_detection_too_near_to_a_better_detection_starts_no_track():
    near = VEHICLE.separation_m - 0.1
    [tracks] = run(Tracker(), [detections([(10, 0), (10 + near, 0), (10 + 2 * near, 0)])])
    assert tracks.detections.tolist() == [0, 2]


def test_pedestrians_may_be_closer_together_than_cars():
    gap = (WALKING.separation_m + VEHICLE.separation_m) / 2
    for label, count in ((PEDESTRIAN, 2), (CAR, 1)):
        [tracks] = run(Tracker(), [detections([(10, 0), (10 + gap, 0)], labels=label)])
        assert len(tracks) == count


def test_objects_of_different_classes_are_tracked_separately():
    tracker = Tracker()
    run(tracker, [detections([(10, 0)], 0, labels=CAR)])
    tracks = tracker.update(detections([(10, 0)], 0.1, labels=BARRIER), HERE)
    assert tracks.ids.tolist() == [1, 2]
    assert tracks.labels.tolist() == [CAR, BARRIER]
    assert tracks.detections.tolist() == [-1, 0]


def test_headings_are_averaged_correctly_near_pi_and_minus_pi():
    yaws = (np.pi - 0.05, -np.pi + 0.05)
    *_, tracks = run(
        Tracker(), [detections([(10, 0)], i / 10, yaws=[yaws[i % 2]]) for i in range(10)]
    )
    assert abs(tracks.boxes.yaw[0]) > np.pi - 0.05


def test_a_single_reversed_heading_is_ignored_and_a_lasting_reversal_is_followed():
    tracker = Tracker()
    run(tracker, [detections([(10, 0)], i / 10) for i in range(5)])
    once = tracker.update(detections([(10, 0)], 0.5, yaws=[np.pi - 0.01]), HERE)
    np.testing.assert_allclose(once.boxes.yaw, 0, atol=0.05)
    *_, lasting = run(
        tracker, [detections([(10, 0)], 0.6 + i / 10, yaws=[np.pi - 0.01]) for i in range(5)]
    )
    np.testing.assert_allclose(np.abs(lasting.boxes.yaw), np.pi, atol=0.1)


def test_velocities_without_a_past_frame_are_ignored():
    tracker = Tracker()
    frame = dataclasses.replace(detections([(10, 0)], 0, velocities=[(20, 0)]), past_stamp_ns=None)
    [tracks] = run(tracker, [frame])
    assert tracks.boxes.velocity.tolist() == [[0, 0]]
    assert tracks.velocity_covariance[0, 0, 0] == VEHICLE.speed**2


def test_the_score_of_a_track_is_smoothed_over_half_a_second_at_every_rate():
    for rate_hz in (2, 12):
        times = np.arange(0, 3 + 1e-9, 1 / rate_hz)
        frames = [detections([(10, 0)], t, scores=[0.8 if t <= 2 else 0.4]) for t in times]
        *_, tracks = run(Tracker(), frames)
        np.testing.assert_allclose(tracks.scores, 0.4 + 0.4 * np.exp(-1 / 0.5), atol=1e-3)


def test_the_position_covariance_of_a_track_with_many_detections_keeps_a_minimum():
    frames = [detections([(20, 0)], i / 12, velocities=[(0, 0)]) for i in range(60)]
    *_, tracks = run(Tracker(), frames)
    single = default_covariance(frames[0]).pose[0, :2, :2]
    assert (np.diag(tracks.pose_covariance[0])[:2] > COMMON_ERROR * np.diag(single)).all()
    turned = Tracker()
    run(turned, frames)
    turned.move(pose(0, 0, 0, np.pi / 2))
    after = turned.update(frames[-1], pose(0, 0, 0, np.pi / 2))
    np.testing.assert_allclose(
        after.pose_covariance[0, :2, :2], tracks.pose_covariance[0, :2, :2], rtol=0.1, atol=1e-9
    )


def test_size_height_and_score_of_a_track_are_means_of_its_detections():
    tracker = Tracker()
    first, second = detections([(10, 0, 1.0)], 0), detections([(10, 0, 2.0)], 0.1, scores=[0.5])
    larger = dataclasses.replace(second.boxes, size=np.array(((5.0, 3.0, 2.5),)))
    _, tracks = run(tracker, [first, dataclasses.replace(second, boxes=larger)])
    np.testing.assert_allclose(tracks.boxes.center[0, 2], 1.5)
    np.testing.assert_allclose(tracks.boxes.size[0], (4.5, 2.5, 2.0))
    np.testing.assert_allclose(tracks.scores, 0.7)


def test_the_covariance_of_a_track_is_in_the_ego_frame_and_shrinks_with_detections():
    ego = pose(5, 6, 0, np.pi / 2)
    wide = BoxCovariance(np.diag((4.0, 1.0, 0.2, 0.1))[None], np.diag((9.0, 1.0))[None])
    tracker = Tracker()
    first = tracker.update(detections([(10, 0)], 0, velocities=[(0, 0)]), ego, wide)
    np.testing.assert_allclose(first.pose_covariance[0], wide.pose[0], atol=1e-9)
    assert first.velocity_covariance[0, 0, 0] > first.velocity_covariance[0, 1, 1]
    second = tracker.update(detections([(10, 0)], 0.05, velocities=[(0, 0)]), ego, wide)
    assert (np.diag(second.pose_covariance[0]) < np.diag(first.pose_covariance[0])).all()


def test_the_default_covariance_is_widest_along_the_line_of_sight_and_grows_with_range():
    near, far = default_covariance(detections([(0, 10), (0, 40)])).pose
    assert near[1, 1] > near[0, 0]
    assert (np.diag(far)[:3] > np.diag(near)[:3]).all()
    np.testing.assert_allclose(near[0, 1], 0, atol=1e-9)


def test_the_same_detections_give_the_same_tracks():
    rng = np.random.default_rng(3)
    frames = [
        detections(rng.uniform(-40, 40, (50, 2)), i / 10, scores=rng.uniform(0.1, 1, 50))
        for i in range(10)
    ]
    first, second = (run(Tracker(), frames)[-1] for _ in range(2))
    assert first.ids.tolist() == second.ids.tolist()
    np.testing.assert_array_equal(first.boxes.center, second.boxes.center)


def test_an_empty_first_frame_gives_no_tracks():
    tracks = Tracker().update(detections([]), HERE)
    assert len(tracks) == 0
    assert tracks.stamp_ns == START_NS


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'coast_s': 0.0}, 'coast_s must be positive'),
        ({'gate': float('nan')}, 'gate must be positive'),
        ({'birth_score': 1.5}, 'birth_score must be between 0 and 1'),
        ({'min_hits': 0}, 'min_hits must be at least 1'),
        ({'keep_s': 0.5, 'coast_s': 1.0}, 'keep_s .* must be at least coast_s'),
    ],
)
def test_invalid_and_contradictory_values_of_the_config_are_rejected(values, message):
    with pytest.raises(ValueError, match=message):
        TrackerConfig(**values)
