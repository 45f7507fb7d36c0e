"""Tests the conversion of CameraInfo messages and calibration files to intrinsics."""

from __future__ import annotations

import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import RegionOfInterest

from bevdepth_ros.rig.conversions import intrinsics_from_file
from bevdepth_ros.rig.intrinsics import intrinsics_from_info
from bevdepth_ros.rig.undistortion import Distortion
from tests.ros.rig.image_messages import K, P, camera_info

LENS = (-0.3, 0.1, 0.0, 0.0, 0.0)
FULL = np.array([[1000.0, 0, 800], [0, 1000, 600], [0, 0, 1]])
CORNER = K * np.array([[1, 1, 0], [1, 1, 0], [1, 1, 1]])
"""K with a principal point of (0, 0), as in a calibration that is not filled in."""


def image(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def changed(matrix: np.ndarray, **values: float) -> np.ndarray:
    """Return a copy of the camera ``matrix`` in which the named entries are replaced."""
    places = {
        'fx': (0, 0),
        'fy': (1, 1),
        'skew': (0, 1),
        'lower_left': (1, 0),
        'cx': (0, 2),
        'cy': (1, 2),
    }
    result = matrix.copy()
    for name, value in values.items():
        result[places[name]] = value
    return result


def test_the_projection_matrix_of_a_rectified_image_is_p():
    assert np.array_equal(intrinsics_from_info(camera_info(), rectified=True).matrix, P[:, :3])


@pytest.mark.parametrize('p', [np.zeros((3, 4)), P * np.nan])
def test_the_projection_matrix_of_a_rectified_image_is_k_if_p_is_not_filled_in(p: np.ndarray):
    assert np.array_equal(intrinsics_from_info(camera_info(p=p), rectified=True).matrix, K)


def test_the_projection_matrix_of_an_unrectified_image_is_k_and_distortion_is_kept():
    intrinsics = intrinsics_from_info(camera_info(d=LENS), rectified=False)
    assert np.array_equal(intrinsics.matrix, K)
    assert intrinsics.distortion == Distortion('plumb_bob', LENS)
    assert intrinsics_from_info(camera_info(), rectified=False).distortion is None
    assert intrinsics_from_info(camera_info(d=()), rectified=False).distortion is None
    assert intrinsics_from_info(camera_info(d=LENS), rectified=True).distortion is None


@pytest.mark.parametrize('rectified', [True, False])
@pytest.mark.parametrize(
    ('binning', 'roi', 'size', 'principal'),
    [
        ((2, 2), (0, 0, 0, 0), (800, 600), (400, 300)),
        ((0, 1), (0, 0, 0, 0), (1600, 1200), (800, 600)),
        ((1, 2), (0, 0, 0, 0), (1600, 600), (800, 300)),
        ((0, 0), (0, 300, 1600, 900), (1600, 900), (800, 300)),
        ((2, 2), (400, 300, 800, 600), (400, 300), (200, 150)),
        ((0, 0), (0, 0, 1600, 1200), (1600, 1200), (800, 600)),
        ((0, 0), (600, 200, 0, 0), (1000, 1000), (200, 400)),
        ((0, 0), (600, 200, 1, 1), (1, 1), (200, 400)),
    ],
)
def test_region_of_interest_and_binning_change_the_matrix_and_the_expected_image_size(
    binning, roi, size, principal, rectified: bool
):
    x, y, width, height = roi
    region = RegionOfInterest(x_offset=x, y_offset=y, width=width, height=height)
    message = camera_info(
        FULL, np.column_stack((FULL, np.zeros(3))), (), (1600, 1200), roi=region,
        binning_x=binning[0], binning_y=binning[1],
    )  # fmt: skip
    found = intrinsics_from_info(message, rectified)
    columns, rows = (max(count, 1) for count in binning)
    expected = [[1000 / columns, 0, principal[0]], [0, 1000 / rows, principal[1]], [0, 0, 1]]
    assert np.allclose(found.matrix, expected)
    found.require_size(image(*size))
    with pytest.raises(ValueError, match=f'but its calibration is for {size[0]}x{size[1]}'):
        found.require_size(image(size[0] + 1, size[1]))


def test_a_region_that_exceeds_the_image_is_rejected():
    region = RegionOfInterest(x_offset=1, width=1600, height=900)
    with pytest.raises(ValueError, match=r'region of interest .1600x900 at 1, 0. exceeds'):
        intrinsics_from_info(camera_info(roi=region), rectified=True)


def test_the_principal_point_of_camera_info_without_a_size_is_compared_with_the_image_size():
    binned = intrinsics_from_info(
        camera_info(FULL, np.zeros(12), (), (0, 0), binning_x=2, binning_y=2), rectified=True
    )
    assert np.allclose(binned.matrix[:2], FULL[:2] / 2)
    binned.require_size(image(800, 600))
    full = intrinsics_from_info(camera_info(FULL, np.zeros(12), (), (0, 0)), rectified=True)
    full.require_size(image(1600, 1200))
    with pytest.raises(ValueError, match=r'values for an image 2\.0 times the size of 800x600'):
        full.require_size(image(800, 600))


def test_if_camera_info_has_no_size_the_region_of_interest_defines_the_expected_image_size():
    region = RegionOfInterest(x_offset=400, y_offset=300, width=800, height=600)
    found = intrinsics_from_info(
        camera_info(FULL, np.zeros(12), (), (0, 0), roi=region), rectified=True
    )
    assert (found.width, found.height) == (800, 600)


@pytest.mark.parametrize(
    'k', [np.zeros((3, 3)), K * np.nan, -K, K + np.eye(3)[[2, 1, 0]], CORNER, K * 1e4]
)
def test_a_camera_that_is_not_calibrated_is_rejected(k: np.ndarray):
    with pytest.raises(ValueError, match='is not calibrated: its camera matrix K'):
        intrinsics_from_info(camera_info(k, np.zeros(12)), rectified=True)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'skew': 1000}, 'K has a skew of 1000 px'),
        ({'lower_left': -30}, 'K has a skew of 30 px'),
        ({'fy': 3 * 1266.4}, 'fx = 1266 px and fy = 3799 px'),
        ({'fx': 3 * 1266.4}, 'fx = 3799 px and fy = 1266 px'),
        ({'cx': 816.2 + 4000}, 'principal point .4816, 492. outside of the 1600x900 image'),
        ({'cy': -300}, 'principal point .816, -300. outside'),
    ],
)
def test_the_message_about_an_implausible_camera_matrix_names_the_implausible_values(
    values: dict, words: str
):
    with pytest.raises(ValueError, match=f'is not calibrated correctly: .*{words}'):
        intrinsics_from_info(camera_info(changed(K, **values)), rectified=False)


@pytest.mark.parametrize('values', [{'skew': 20}, {'fy': 1.9 * 1266.4}, {'fy': 0.6 * 1266.4}])
def test_a_camera_matrix_with_unusual_but_allowed_values_is_accepted(values: dict):
    k = changed(K, **values)
    assert np.array_equal(intrinsics_from_info(camera_info(k), rectified=False).matrix, k)


@pytest.mark.parametrize('factor', [0.5, 2.0])
def test_a_camera_matrix_for_another_image_size_is_rejected(factor: float):
    other = np.diag((factor, factor, 1)) @ K
    with pytest.raises(ValueError, match=f'K has values for an image {factor:.0f}.. times'):
        intrinsics_from_info(camera_info(other), rectified=False)
    with pytest.raises(ValueError, match='P has values for an image'):
        intrinsics_from_info(camera_info(p=np.diag((factor, factor, 1)) @ P), rectified=True)


def test_an_implausible_p_is_rejected_instead_of_being_replaced_by_k():
    p = P.copy()
    p[0, 1] = 1000
    with pytest.raises(ValueError, match='P has a skew'):
        intrinsics_from_info(camera_info(p=p), rectified=True)
    assert np.array_equal(intrinsics_from_info(camera_info(p=p), rectified=False).matrix, K)


def test_the_principal_point_may_be_outside_of_a_cropped_image():
    cropped = K - np.array([[0, 0, 0], [0, 0, 600], [0, 0, 0]])
    found = intrinsics_from_info(camera_info(k=cropped), rectified=False)
    assert np.array_equal(found.matrix, cropped)


def stereo(tx: float = 0.0, ty: float = 0.0, r=None):
    p = P.copy()
    p[:2, 3] = tx, ty
    rotation = np.eye(3) if r is None else r
    return camera_info(p=p, r=np.ravel(rotation))


def test_tx_and_ty_of_p_move_the_camera_in_its_tf_frame():
    pose = intrinsics_from_info(stereo(-1200 * 0.3, 1210 * 0.1), rectified=True).frame_from_camera
    assert np.allclose(pose, [[1, 0, 0, 0.3], [0, 1, 0, -0.1], [0, 0, 1, 0], [0, 0, 0, 1]])


def test_with_r_a_point_is_projected_to_the_pixel_that_camera_info_defines():
    r = Rotation.from_euler('y', 4, degrees=True).as_matrix()
    info = stereo(-1200 * 0.3, 0.0, r)
    found = intrinsics_from_info(info, rectified=True)
    point = np.array([1.0, -0.5, 8.0])
    expected = np.reshape(info.p, (3, 4)) @ (*(r @ point), 1)
    in_camera = np.linalg.inv(found.frame_from_camera) @ (*point, 1)
    projected = found.matrix @ in_camera[:3]
    assert np.allclose(projected / projected[2], expected / expected[2])
    assert found.warnings == ()


def test_r_and_tx_are_ignored_for_images_that_are_not_rectified():
    r = Rotation.from_euler('y', 4, degrees=True).as_matrix()
    pose = intrinsics_from_info(stereo(-360, 0.0, r), rectified=False).frame_from_camera
    assert np.array_equal(pose, np.eye(4))


@pytest.mark.parametrize('r', [np.zeros(9), np.array([1, 0, 0, 1, 0, 0, 1, 0, 0.0])])
def test_a_singular_r_is_treated_as_not_filled_in(r: np.ndarray):
    assert np.array_equal(
        intrinsics_from_info(stereo(r=r), rectified=True).frame_from_camera, np.eye(4)
    )


@pytest.mark.parametrize(
    ('message', 'words'),
    [
        (stereo(r=np.eye(3) * 1.1), 'not a rotation matrix'),
        (stereo(r=np.diag((1.0, 1.0, -1.0))), 'not a rotation matrix'),
        (stereo(r=np.full(9, np.nan)), 'R of its CameraInfo is not finite'),
        (stereo(-1200 * 11), 'Tx and Ty of P shift it by 11.0 m'),
    ],
)
def test_an_invalid_rectification_is_rejected_with_the_reason(message, words: str):
    with pytest.raises(ValueError, match=words):
        intrinsics_from_info(message, rectified=True)


def test_a_rectification_with_a_large_angle_is_used_and_reported():
    r = Rotation.from_euler('y', 20, degrees=True).as_matrix()
    found = intrinsics_from_info(stereo(r=r), rectified=True)
    assert np.allclose(found.frame_from_camera[:3, :3], r.T)
    assert 'is turned by 20 degrees by R' in found.warnings[0]


@pytest.mark.parametrize('p', [np.column_stack((K, np.zeros(3))), np.zeros((3, 4))])
def test_distortion_of_rectified_images_is_reported_if_p_equals_k_or_is_not_filled_in(
    p: np.ndarray,
):
    found = intrinsics_from_info(camera_info(p=p, d=LENS), rectified=True)
    assert 'images_rectified' in found.warnings[0]
    assert intrinsics_from_info(camera_info(p=p, d=LENS), rectified=False).warnings == ()
    assert intrinsics_from_info(camera_info(p=p), rectified=True).warnings == ()
    assert intrinsics_from_info(camera_info(d=LENS), rectified=True).warnings == ()


def test_an_image_of_another_size_than_its_calibration_is_rejected():
    intrinsics = intrinsics_from_info(camera_info(), rectified=True)
    intrinsics.require_size(image(1600, 900))
    with pytest.raises(ValueError, match='is 800x450, but its calibration is for 1600x900'):
        intrinsics.require_size(image(800, 450))
    with pytest.raises(ValueError, match='use the CameraInfo of the resized images'):
        intrinsics.require_size(image(1600, 450))


def calibration(**changes) -> dict:
    return {
        'image_width': 1600,
        'image_height': 900,
        'camera_name': 'cam_front',
        'camera_matrix': {'rows': 3, 'cols': 3, 'data': K.ravel().tolist()},
        'distortion_model': 'plumb_bob',
        'distortion_coefficients': {'rows': 1, 'cols': 5, 'data': list(LENS)},
        'rectification_matrix': {'rows': 3, 'cols': 3, 'data': np.eye(3).ravel().tolist()},
        'projection_matrix': {'rows': 3, 'cols': 4, 'data': P.ravel().tolist()},
    } | changes


@pytest.mark.parametrize('rectified', [True, False])
def test_a_calibration_file_gives_the_same_intrinsics_as_camera_info(tmp_path, rectified: bool):
    path = tmp_path / 'camera.yaml'
    r = Rotation.from_euler('y', 4, degrees=True).as_matrix().ravel()
    path.write_text(yaml.safe_dump(calibration(rectification_matrix={'data': r.tolist()})))
    found = intrinsics_from_file(path, rectified)
    expected = intrinsics_from_info(
        camera_info(d=LENS, r=r, distortion_model='plumb_bob'), rectified
    )
    assert np.array_equal(found.matrix, expected.matrix)
    assert np.array_equal(found.frame_from_camera, expected.frame_from_camera)
    assert (found.width, found.height) == (1600, 900)
    assert found.distortion == expected.distortion


def test_a_calibration_file_needs_only_the_image_size_and_the_camera_matrix(tmp_path):
    path = tmp_path / 'camera.yaml'
    needed = ('image_width', 'image_height', 'camera_matrix')
    path.write_text(yaml.safe_dump({name: calibration()[name] for name in needed}))
    assert np.array_equal(intrinsics_from_file(path, rectified=True).matrix, K)
    assert intrinsics_from_file(path, rectified=False).distortion is None


def test_an_implausible_calibration_file_is_rejected(tmp_path):
    path = tmp_path / 'camera.yaml'
    skewed = changed(K, skew=1000).ravel().tolist()
    path.write_text(yaml.safe_dump(calibration(camera_matrix={'data': skewed})))
    with pytest.raises(ValueError, match='K has a skew of 1000 px'):
        intrinsics_from_file(path, rectified=False)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'a: [',
        '[1, 2]',
        'camera_matrix: 3',
        'camera_matrix: {data: [1]}\nimage_width: 1\nimage_height: 1',
        'camera_matrix: {data: [1, 0, 1, 0, 1, 1, 0, 0, 1]}\nimage_width: -1\nimage_height: 1',
        f'camera_matrix: {{data: {K.ravel().tolist()}}}\nimage_width: {2**32}\nimage_height: 1',
        '!!python/name:os.system',
    ],
)
def test_a_file_that_is_not_a_calibration_is_rejected(tmp_path, text: str):
    path = tmp_path / 'camera.yaml'
    path.write_text(text)
    with pytest.raises(ValueError, match='is not a calibration file'):
        intrinsics_from_file(path, rectified=True)


@pytest.mark.parametrize(('focal', 'is_plausible'), [(0.99, False), (1.0, True), (1.5, True)])
def test_a_focal_length_of_less_than_one_pixel_is_rejected(focal: float, is_plausible: bool):
    info = camera_info(changed(K, fx=focal, fy=focal))
    if is_plausible:
        assert intrinsics_from_info(info, rectified=False).matrix[0, 0] == focal
    else:
        with pytest.raises(ValueError, match='is not calibrated: its camera matrix K'):
            intrinsics_from_info(info, rectified=False)


@pytest.mark.parametrize(('degrees', 'count'), [(9.5, 0), (10.5, 1), (-10.5, 1)])
def test_a_rectification_of_more_than_ten_degrees_is_reported(degrees: float, count: int):
    r = Rotation.from_euler('y', degrees, degrees=True).as_matrix()
    assert len(intrinsics_from_info(stereo(r=r), rectified=True).warnings) == count


def test_a_resized_image_has_the_scaled_matrix_and_size():
    found = intrinsics_from_info(camera_info(), rectified=False).scaled(0.5, 0.25)
    assert np.array_equal(found.matrix, np.diag((0.5, 0.25, 1)) @ K)
    assert (found.width, found.height) == (800, 225)


def test_camera_info_with_a_width_but_no_height_is_checked_as_if_it_had_no_size():
    found = intrinsics_from_info(camera_info(size=(1600, 0)), rectified=False)
    found.require_size(image(1600, 900))
    with pytest.raises(ValueError, match='times the size of 800x450'):
        found.require_size(image(800, 450))
