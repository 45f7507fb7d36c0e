from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.config import ImageSpec
from bevdepth_core.synthetic.sensors.rig import nuscenes_like_rig
from bevdepth_core.types import CameraRig
from bevdepth_ros.detector.rig_check import RigCheck, unlike_training

SIZES = [(1600, 900)] * 6


def changed(
    camera: int,
    focal_factor: float = 1.0,
    up_m: float = 0.0,
    about_z_deg: float = 0.0,
    about_y_deg: float = 0.0,
    about_x_deg: float = 0.0,
) -> CameraRig:
    rig = nuscenes_like_rig()
    intrinsics, poses = rig.intrinsics.copy(), rig.ego_from_camera.copy()
    intrinsics[camera, (0, 1), (0, 1)] *= focal_factor
    poses[camera, 2, 3] += up_m
    z, y, x = np.radians((about_z_deg, about_y_deg, about_x_deg))
    about_z = np.array(((np.cos(z), -np.sin(z), 0), (np.sin(z), np.cos(z), 0), (0, 0, 1)))
    about_y = np.array(((np.cos(y), 0, np.sin(y)), (0, 1, 0), (-np.sin(y), 0, np.cos(y))))
    about_x = np.array(((1, 0, 0), (0, np.cos(x), -np.sin(x)), (0, np.sin(x), np.cos(x))))
    poses[camera, :3, :3] = about_z @ about_y @ about_x @ poses[camera, :3, :3]
    return CameraRig(rig.names, intrinsics, poses)


@pytest.mark.parametrize('log_seed', [None, 0, 1, 2])
def test_simulated_rigs_of_nuscenes_logs_are_not_reported(log_seed: int | None):
    assert unlike_training(nuscenes_like_rig(log_seed=log_seed), SIZES, ImageSpec()) == []


def test_smaller_images_of_the_same_cameras_are_not_reported():
    assert unlike_training(nuscenes_like_rig(800, 450), [(800, 450)] * 6, ImageSpec()) == []


@pytest.mark.parametrize(
    ('change', 'clause'),
    [
        (
            {'focal_factor': 2.0},
            'CAM_FRONT has a focal length of 1114 px in the network input, training had 350 to '
            '560',
        ),
        ({'up_m': 1.0}, 'CAM_FRONT is 2.51 m above the ground, training had 1.48 to 1.61'),
        ({'about_y_deg': 30.0}, 'CAM_FRONT is tilted by 30 degrees, training had 0 to 1'),
        (
            {'about_z_deg': 140.0},
            'CAM_FRONT faces 140 degrees, the nearest training camera faced 108',
        ),
    ],
)
def test_the_report_of_a_difference_contains_the_value_of_the_camera_and_of_training(
    change: dict, clause: str
):
    assert unlike_training(changed(1, **change), SIZES, ImageSpec()) == [clause]


def test_changed_warning_returns_none_if_the_warning_is_the_same_as_in_the_last_call():
    check = RigCheck(ImageSpec())
    assert check.changed_warning(nuscenes_like_rig(), SIZES) == ''
    assert check.changed_warning(nuscenes_like_rig(), SIZES) is None
    warning = check.changed_warning(changed(4, up_m=2.0), SIZES)
    assert 'CAM_BACK is 3.58 m above the ground' in warning
    assert warning.endswith('; if base_frame is not on the ground, set base_frame_height_m')
    assert check.changed_warning(changed(4, up_m=2.0), SIZES) is None
    assert check.changed_warning(nuscenes_like_rig(), SIZES) == ''


@pytest.mark.parametrize(('up_m', 'count'), [(-0.25, 0), (-0.45, 6), (0.25, 0), (0.45, 6)])
def test_the_camera_heights_are_reported_if_the_base_frame_is_far_above_or_below_the_ground(
    up_m: float, count: int
):
    rig = nuscenes_like_rig()
    poses = rig.ego_from_camera.copy()
    poses[:, 2, 3] += up_m
    moved = CameraRig(rig.names, rig.intrinsics, poses)
    assert len(unlike_training(moved, SIZES, ImageSpec())) == count


@pytest.mark.parametrize(
    ('change', 'count'),
    [
        ({'about_z_deg': 137.0}, 0),  # differs from CAM_BACK_LEFT by 29 degrees
        ({'about_z_deg': 138.5}, 1),
        ({'about_y_deg': 14.5}, 0),
        ({'about_y_deg': -15.5}, 1),
        ({'about_x_deg': 14.5}, 0),
        ({'about_x_deg': 15.5}, 1),
        ({'about_x_deg': 180.0}, 1),
        ({'focal_factor': 1.29}, 0),
        ({'focal_factor': 1.31}, 1),
        ({'focal_factor': 0.49}, 0),
        ({'focal_factor': 0.47}, 1),
    ],
)
def test_a_difference_is_reported_only_beyond_its_limit(change: dict, count: int):
    assert len(unlike_training(changed(1, **change), SIZES, ImageSpec())) == count


def test_a_focal_length_outside_the_limits_is_reported_without_advice_about_the_base_frame():
    check = RigCheck(ImageSpec())
    assert check.changed_warning(changed(1, focal_factor=1.28), SIZES) == ''
    warning = check.changed_warning(changed(1, focal_factor=1.31), SIZES)
    assert 'CAM_FRONT has a focal length' in warning
    assert 'base_frame' not in warning
