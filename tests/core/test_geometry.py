"""Rigid transforms."""

import numpy as np
import pytest

from bevdepth_core.geometry import invert_rigid, require_rigid, rigid_from_quaternion, to_4x4


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


def test_quaternion_gives_a_rotation_and_its_sign_does_not_matter():
    transform = rigid_from_quaternion((np.cos(0.3), 0, 0, np.sin(0.3)), (1, 2, 3))
    assert np.allclose(transform @ (1, 0, 0, 1), (1 + np.cos(0.6), 2 + np.sin(0.6), 3, 1))
    assert np.array_equal(
        transform, rigid_from_quaternion((-np.cos(0.3), 0, 0, -np.sin(0.3)), (1, 2, 3))
    )
    require_rigid('all', random_transforms(50))


@pytest.mark.parametrize('quaternion', [(0, 0, 0, 0), (2, 0, 0, 0), (np.nan, 0, 0, 1)])
def test_quaternion_far_from_unit_length_is_refused(quaternion):
    with pytest.raises(ValueError, match='unit length'):
        rigid_from_quaternion(quaternion, (0, 0, 0))


def test_slightly_rounded_quaternion_is_normalised():
    require_rigid('rounded', rigid_from_quaternion(np.array((0.7071, 0, 0, 0.7071)), (0, 0, 0)))


def test_inverse_undoes():
    transforms = random_transforms(20)
    assert np.allclose(invert_rigid(transforms) @ transforms, np.eye(4), atol=1e-9)


def test_scale_mirror_and_projective_rows_are_refused():
    for wrong in (
        np.diag([2.0, 2, 2, 1]),
        np.diag([-1.0, 1, 1, 1]),
        np.eye(4) + np.eye(4)[:, ::-1] * 0.1,
    ):
        with pytest.raises(ValueError, match='pose must be rigid'):
            require_rigid('pose', wrong[None])


def test_padded_intrinsics_carry_depth_along():
    intrinsics = np.array([((600.0, 0.5, 400.0), (0.0, 610.0, 250.0), (0.0, 0.0, 1.0))] * 2)
    padded = to_4x4(intrinsics)
    assert padded.shape == (2, 4, 4) and padded.dtype == np.float64
    assert (padded[1] @ (1.0, 2.0, 4.0, 1.0)).tolist() == [2201.0, 2220.0, 4.0, 1.0]
