from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bevdepth_ros.detector.pose_check import PoseCheck


def pose(x: float, yaw_deg: float = 0.0) -> np.ndarray:
    matrix = np.eye(4)
    yaw = math.radians(yaw_deg)
    matrix[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
    matrix[0, 3] = x
    return matrix


def jumps(*poses: np.ndarray, seconds: float = 0.1) -> list[bool]:
    check = PoseCheck()
    return [
        check.jump(round(number * seconds * 1e9), pose) is not None
        for number, pose in enumerate(poses)
    ]


@pytest.mark.parametrize('speed', [0.0, 1.0, 30.0, 99.0])
def test_a_steady_motion_is_not_a_jump(speed: float):
    assert not any(jumps(*(pose(speed * 0.1 * number) for number in range(5))))


@pytest.mark.parametrize('step_m', [3.0, 5.0, -3.0])
def test_a_step_that_differs_by_3_m_or_more_from_the_previous_step_is_a_jump(step_m: float):
    poses = [pose(1.0), pose(2.0), pose(3.0), pose(4.0 + step_m), pose(5.0 + step_m)]
    assert jumps(*poses) == [False, False, False, True, False]


def test_a_turn_by_a_right_angle_is_a_jump():
    poses = [pose(0), pose(0), pose(0, 90), pose(0, 90), pose(0, 90)]
    assert jumps(*poses) == [False, False, True, False, False]


def test_a_fast_but_steady_turn_is_not_a_jump():
    assert not any(jumps(*(pose(0, 15.0 * number) for number in range(10))))


@pytest.mark.parametrize(('speed', 'is_jump'), [(99.0, False), (101.0, True)])
def test_without_a_previous_motion_only_a_speed_above_100_m_s_is_a_jump(
    speed: float, is_jump: bool
):
    assert jumps(pose(0.0), pose(0.1 * speed)) == [False, is_jump]


def test_poses_more_than_a_second_apart_and_missing_poses_are_not_compared():
    check = PoseCheck()
    assert check.jump(0, pose(0.0)) is None
    assert check.jump(1_100_000_000, pose(500.0)) is None
    assert check.jump(1_200_000_000, None) is None
    assert check.jump(1_300_000_000, pose(0.0)) is None


def test_the_description_of_a_jump_contains_distance_time_and_angle():
    check = PoseCheck()
    check.jump(0, pose(0.0))
    jump = check.jump(10**9, pose(500.0, 90.0))
    assert jump is not None
    assert jump.description.startswith(
        'the ego pose moved by 500.0 m in 1.00 s and turned by 90 degrees'
    )


def test_the_expected_pose_continues_the_previous_translation_and_turn():
    check = PoseCheck()
    for number in range(3):
        assert check.jump(number * 10**8, pose(2.0 * number, 5.0 * number)) is None
    jump = check.jump(4 * 10**8, pose(300.0))
    assert jump is not None
    np.testing.assert_allclose(jump.expected_pose, pose(8.0, 20.0), atol=1e-9)
    second = check.jump(5 * 10**8, pose(600.0))
    assert second is not None
    np.testing.assert_allclose(second.expected_pose, pose(300.0), atol=1e-9)


def test_a_turn_that_reverses_suddenly_is_a_jump():
    assert jumps(*(pose(0, yaw) for yaw in (0, 14, 28, 12))) == [False, False, False, True]


def test_a_pose_whose_stamp_equals_or_precedes_the_last_stamp_is_not_compared():
    check = PoseCheck()
    assert check.jump(2 * 10**9, pose(0.0)) is None
    assert check.jump(2 * 10**9, pose(500.0)) is None
    assert check.jump(10**9, pose(0.0)) is None


@pytest.mark.parametrize(
    ('pose_after', 'seconds', 'is_jump'),
    [
        (pose(15.9), 1.0, False),
        (pose(16.1), 1.0, True),
        (pose(1.1), 0.1, False),
        (pose(1.2), 0.1, True),
        (pose(0, 94.8), 0.5, False),
        (pose(0, 95.2), 0.5, True),
        (pose(0, 22.9), 0.1, False),
        (pose(0, 23.1), 0.1, True),
    ],
)
def test_the_limit_of_a_step_or_turn_is_a_constant_plus_acceleration_times_squared_time(
    pose_after: np.ndarray, seconds: float, is_jump: bool
):
    assert jumps(pose(0), pose(0), pose_after, seconds=seconds) == [False, False, is_jump]


@pytest.mark.parametrize(('step_m', 'is_jump'), [(9.9, False), (10.1, True)])
def test_a_first_step_of_less_than_10_m_is_not_a_jump_even_within_10_ms(
    step_m: float, is_jump: bool
):
    assert jumps(pose(0), pose(step_m), seconds=0.01) == [False, is_jump]


def test_a_first_step_of_more_than_100_m_in_one_second_is_a_jump():
    assert jumps(pose(0), pose(99.9), seconds=1.0) == [False, False]
    assert jumps(pose(0), pose(100.1), seconds=1.0) == [False, True]


@pytest.mark.parametrize('degrees', [25.0, 90.0, 119.9, 120.1, 179.99, 180.0])
@pytest.mark.parametrize('axis', [(0, 0, 1), (1, 0, 0), (-0.6, 0.48, 0.64)])
def test_the_angle_of_a_turn_is_reported_and_the_expected_pose_continues_the_turn(
    axis: tuple, degrees: float
):
    first = Rotation.from_euler('xyz', (0.1, -0.2, 2.0))
    step = Rotation.from_rotvec(np.radians(degrees) * np.array(axis))
    poses = [pose(0.0) for _ in range(4)]
    for number, matrix in enumerate(poses):
        matrix[:3, :3] = (first * step**number).as_matrix()
    check = PoseCheck()
    assert not any(check.jump(number * 10**9, one) for number, one in enumerate(poses[:2]))
    jump = check.jump(2 * 10**9, pose(900.0) @ poses[2])
    assert jump is not None
    assert f'turned by {degrees:.0f} degrees' in jump.description
    np.testing.assert_allclose(jump.expected_pose, poses[2], atol=1e-6)
