"""Tests rigid transforms, their quaternions, and padded intrinsics."""

import numpy as np
import pytest

from bevdepth_core.geometry import (
    RIGID_TOLERANCE,
    invert_rigid,
    quaternion_from_rotation,
    require_rigid,
    rigid_from_quaternion,
    to_4x4,
)


def random_transforms(count: int) -> np.ndarray:
    generator = np.random.default_rng(3)
    quaternions = generator.normal(size=(count, 4))
    quaternions /= np.linalg.norm(quaternions, axis=1, keepdims=True)
    return np.stack(
        [
            rigid_from_quaternion(q, t)
            for q, t in zip(quaternions, generator.normal(size=(count, 3)) * 1000, strict=True)
        ]
    )


def test_a_quaternion_and_its_negative_give_the_same_rotation():
    transform = rigid_from_quaternion((np.cos(0.3), 0, 0, np.sin(0.3)), (1, 2, 3))
    assert np.allclose(transform @ (1, 0, 0, 1), (1 + np.cos(0.6), 2 + np.sin(0.6), 3, 1))
    assert np.array_equal(
        transform, rigid_from_quaternion((-np.cos(0.3), 0, 0, -np.sin(0.3)), (1, 2, 3))
    )
    require_rigid('all', random_transforms(50))


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (2, 0, 0, 0), (np.nan, 0, 0, 1)])
def test_a_quaternion_far_from_unit_length_is_rejected(quaternion):
    with pytest.raises(ValueError, match='unit length'):
        rigid_from_quaternion(quaternion, (0, 0, 0))


def test_a_slightly_rounded_quaternion_is_normalized():
    require_rigid('rounded', rigid_from_quaternion(np.array((0.7071, 0, 0, 0.7071)), (0, 0, 0)))


def test_a_transform_times_its_inverse_is_the_identity():
    transforms = random_transforms(20)
    assert np.allclose(invert_rigid(transforms) @ transforms, np.eye(4), atol=1e-9)


def test_scaled_mirrored_and_projective_transforms_are_rejected():
    projective = np.eye(4)
    projective[3, 0] = 0.1
    for wrong in (np.diag([2.0, 2, 2, 1]), np.diag([-1.0, 1, 1, 1]), projective):
        with pytest.raises(ValueError, match='pose must be rigid'):
            require_rigid('pose', wrong[None])


def test_padded_intrinsics_keep_the_depth():
    intrinsics = np.array([((600.0, 0.5, 400.0), (0.0, 610.0, 250.0), (0.0, 0.0, 1.0))] * 2)
    padded = to_4x4(intrinsics)
    assert padded.shape == (2, 4, 4) and padded.dtype == np.float64
    assert (padded[1] @ (1.0, 2.0, 4.0, 1.0)).tolist() == [2201.0, 2220.0, 4.0, 1.0]


def test_quaternion_from_rotation_returns_the_quaternion_whose_w_is_not_negative():
    generator = np.random.default_rng(5)
    noise = generator.normal(size=(50, 4))
    unit = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    for quaternion in (*unit, *np.eye(4), -np.eye(4)[0]):
        found = quaternion_from_rotation(rigid_from_quaternion(quaternion, (0, 0, 0))[:3, :3])
        assert len(found) == 4 and found[0] >= 0
        sign = 1 if np.dot(found, quaternion) > 0 else -1
        assert np.allclose(found, sign * np.asarray(quaternion), atol=1e-9)


def test_the_quaternion_of_a_half_turn_about_x_is_0_1_0_0_or_its_negative():
    found = quaternion_from_rotation(np.diag([1.0, -1.0, -1.0]))
    assert np.allclose(np.abs(found), (0, 1, 0, 0))


@pytest.mark.parametrize(('length', 'accepted'), [(1.0099, True), (0.9901, True), (1.011, False)])
def test_a_quaternion_length_within_one_percent_of_1_is_accepted(length, accepted):
    if accepted:
        assert np.allclose(rigid_from_quaternion((length, 0, 0, 0), (1, 2, 3))[:3, :3], np.eye(3))
    else:
        with pytest.raises(ValueError, match='unit length'):
            rigid_from_quaternion((length, 0, 0, 0), (1, 2, 3))


@pytest.mark.parametrize('part', [float('nan'), float('inf')])
def test_a_quaternion_that_is_not_finite_is_rejected(part):
    with pytest.raises(ValueError, match='unit length'):
        rigid_from_quaternion((part, 0, 0, 1), (0, 0, 0))


def test_a_quarter_turn_about_x_rotates_y_to_z_and_so_on_cyclically():
    half = np.sqrt(0.5)
    for axis in range(3):
        quaternion = [half, 0, 0, 0]
        quaternion[1 + axis] = half
        rotation = rigid_from_quaternion(quaternion, (1, 2, 3))
        following, last = (axis + 1) % 3, (axis + 2) % 3
        assert np.allclose(rotation[:3, :3] @ np.eye(3)[following], np.eye(3)[last])
        assert rotation[:3, 3].tolist() == [1, 2, 3] and rotation[3].tolist() == [0, 0, 0, 1]


def test_deviations_from_a_rotation_are_accepted_up_to_the_tolerance():
    for deviation, accepted in ((0.4, True), (0.6, False)):
        pose = np.eye(4)
        pose[0, 0] += deviation * RIGID_TOLERANCE  # R^T R deviates by twice as much
        if accepted:
            require_rigid('pose', pose[None])
        else:
            with pytest.raises(ValueError, match='pose must be rigid: its rotation'):
                require_rigid('pose', pose[None])
    assert RIGID_TOLERANCE == 1e-4


def test_a_single_invalid_transform_among_valid_transforms_is_reported():
    poses = random_transforms(5)
    poses[3, 3, 2] = 1e-9
    with pytest.raises(ValueError, match='last row'):
        require_rigid('poses', poses)
    poses = random_transforms(5)
    poses[4, :3, 0] *= -1
    with pytest.raises(ValueError, match='rotation part'):
        require_rigid('poses', poses)
