from __future__ import annotations

import dataclasses

import numpy as np

from bevdepth_core.uncertainty import BoxCovariance
from bevdepth_ros.detections.placement import Placement
from tests.ros.detections.objects import detections, tracks

QUARTER_TURN = np.array(
    [[0.0, -1, 0, 500_000.25], [1, 0, 0, 4_000_000.5], [0, 0, 1, 30], [0, 0, 0, 1]]
)
MAP = Placement('map', QUARTER_TURN)
POSE = np.diag((1.0, 4, 9, 16))
POSE[0, 3] = POSE[3, 0] = 0.5
TURNED = np.diag((4.0, 1, 9, 16))
TURNED[1, 3] = TURNED[3, 1] = 0.5


def test_boxes_published_in_the_base_frame_do_not_change() -> None:
    base, found, covariance = Placement('base_link'), detections(), np.ones((3, 2, 2))
    assert np.array_equal(base.detections(found).boxes.center, found.boxes.center)
    both = base.covariance(BoxCovariance(np.stack([POSE] * 3), covariance))
    assert np.array_equal(both.pose[0], POSE)
    assert np.array_equal(both.velocity, covariance)
    trail = np.ones((2, 3))
    assert np.array_equal(base.trails([trail])[0], trail)


def test_boxes_far_from_the_origin_of_the_map_are_exact_to_a_micrometer() -> None:
    placed, boxes = MAP.detections(detections()).boxes, detections().boxes
    x, y, z = boxes.center.astype(np.float64).T
    expected = np.column_stack((500_000.25 - y, 4_000_000.5 + x, 30 + z))
    assert np.abs(placed.center - expected).max() < 1e-6
    assert np.abs(placed[1:].center - expected[1:]).max() < 1e-6
    assert np.array_equal(placed.size, boxes.size)


def test_headings_and_velocities_are_rotated_and_headings_stay_between_minus_pi_and_pi() -> None:
    placed, boxes = MAP.detections(detections()).boxes, detections().boxes
    expected = [0.5 + np.pi / 2, -2 + np.pi / 2, -np.pi / 2]
    assert np.allclose(placed.yaw, expected, atol=1e-6)
    vx, vy = boxes.velocity.T
    assert np.allclose(placed.velocity, np.column_stack((-vy, vx)))


def test_covariances_are_rotated_to_the_axes_of_the_map() -> None:
    velocity = np.array([[2.0, 0.3], [0.3, 5]])
    both = MAP.covariance(BoxCovariance(POSE[None], velocity[None]))
    assert np.allclose(both.pose[0], TURNED)
    assert np.allclose(both.velocity[0], [[5, -0.3], [-0.3, 2]])


def test_tracks_and_trails_are_transformed_like_detections() -> None:
    found = dataclasses.replace(
        tracks((5, 6), (1, 0)),
        pose_covariance=np.stack((POSE, POSE)),
        velocity_covariance=np.stack([np.diag((2.0, 5))] * 2),
    )
    placed = MAP.tracks(found)
    assert np.array_equal(placed.boxes.center, MAP.detections(detections()).boxes.center[[1, 0]])
    assert np.allclose(placed.pose_covariance[1], TURNED)
    assert np.allclose(placed.velocity_covariance[1], np.diag((5.0, 2)))
    assert placed.ids.tolist() == [5, 6]
    (trail,) = MAP.trails([np.array([(1.0, 2, 3)])])
    assert np.allclose(trail, [(499_998.25, 4_000_001.5, 33)])
