from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from bevdepth_ros.rig import undistortion
from bevdepth_ros.rig.undistortion import Distortion, Undistorter, undistortion_maps

K = np.array([[120.0, 0, 80], [0, 118, 45], [0, 0, 1]])
MODELS = [
    Distortion('plumb_bob', (-0.2, 0.05, 0.001, -0.002, 0.01)),
    Distortion('rational_polynomial', (-0.2, 0.05, 0.001, -0.002, 0.01, 0.1, 0.02, 0.0)),
    Distortion('equidistant', (0.05, -0.01, 0.002, 0.0)),
]


def distorted_pixels(rays: np.ndarray, distortion: Distortion) -> np.ndarray:
    """Return the (N, 2) pixels to which the lens projects the (N, 3) ``rays``."""
    coefficients = np.array(distortion.coefficients)
    if distortion.model == 'equidistant':
        return cv2.fisheye.projectPoints(rays[:, None], np.zeros(3), np.zeros(3), K, coefficients)[
            0
        ][:, 0]
    return cv2.projectPoints(rays, np.zeros(3), np.zeros(3), K, coefficients)[0][:, 0]


@pytest.mark.parametrize('distortion', MODELS, ids=lambda distortion: distortion.model)
def test_an_undistorted_pixel_is_read_from_the_point_to_which_the_lens_projects_its_ray(
    distortion: Distortion,
):
    columns, rows = undistortion_maps(K, distortion, 160, 90)
    pixels = np.array([(80, 45), (20, 10), (150, 80), (5, 85)])
    rays = np.column_stack((pixels, np.ones(4))) @ np.linalg.inv(K).T
    found = np.column_stack(
        (columns[pixels[:, 1], pixels[:, 0]], rows[pixels[:, 1], pixels[:, 0]])
    )
    assert np.allclose(found, distorted_pixels(rays, distortion), atol=1e-2)


@pytest.mark.parametrize('distortion', MODELS, ids=lambda distortion: distortion.model)
def test_a_tensor_and_an_array_have_nearly_the_same_undistorted_pixels(distortion: Distortion):
    image = cv2.resize(np.random.default_rng(0).integers(0, 256, (9, 16, 3), np.uint8), (160, 90))
    array = Undistorter()('front', image, K, distortion)
    tensor = Undistorter()('front', torch.from_numpy(image), K, distortion)
    # The pixels differ because OpenCV rounds the weights of the interpolation to 5 bits.
    assert np.abs(array.astype(int) - tensor.numpy()).max() <= 4


def test_undistortion_maps_are_computed_once_per_camera_and_calibration(
    monkeypatch: pytest.MonkeyPatch,
):
    made = []
    monkeypatch.setattr(
        undistortion,
        'undistortion_maps',
        lambda *arguments: made.append(1) or undistortion_maps(*arguments),
    )
    undistort, image = Undistorter(), np.zeros((90, 160, 3), np.uint8)
    for distortion in (MODELS[0], MODELS[0], MODELS[2], MODELS[2]):
        assert undistort('front', image, K, distortion).shape == image.shape
    undistort('back', image, K, MODELS[2])
    assert len(made) == 3


@pytest.mark.parametrize(
    ('model', 'coefficients', 'canonical'),
    [
        ('', (0.1, 0, 0, 0, 0), ('plumb_bob', (0.1, 0, 0, 0))),
        ('plumb_bob', (0.1, 0, 0, 0, 0.2, 0, 0, 0), ('plumb_bob', (0.1, 0, 0, 0, 0.2))),
        ('plumb_bob', (0.1, 0, 0, 0, 0, 0.3), ('plumb_bob', (0.1, 0, 0, 0, 0, 0.3, 0, 0))),
        ('rational_polynomial', (0.1, 0, 0, 0, 0.2), ('rational_polynomial', (0.1, 0, 0, 0, 0.2))),
        ('thin_prism', (0.1,) * 12, ('rational_polynomial', (0.1,) * 12)),
        ('fisheye', (0.1, 0, 0, 0), ('equidistant', (0.1, 0, 0, 0))),
        ('KANNALA_BRANDT4', (0.1, 0, 0, 0), ('equidistant', (0.1, 0, 0, 0))),
        ('Brown Conrady', (0.1, 0, 0, 0, 0), ('plumb_bob', (0.1, 0, 0, 0))),
        ('radtan', (0.1, 0, 0, 0), ('plumb_bob', (0.1, 0, 0, 0))),
        ('equidistant', (0.1, 0, 0, 0.2, 0), ('equidistant', (0.1, 0, 0, 0.2))),
    ],
)
def test_model_names_and_coefficients_are_converted_to_the_conventions_of_opencv(
    model: str, coefficients: tuple, canonical: tuple
):
    found = Distortion(model, coefficients)
    assert (found.model, found.coefficients) == canonical


def test_plumb_bob_with_eight_coefficients_equals_the_rational_model():
    coefficients = (-0.2, 0.05, 0.001, -0.002, 0.01, 0.1, 0.02, 0.01)
    rational = undistortion_maps(K, Distortion('rational_polynomial', coefficients), 160, 90)
    plumb_bob = undistortion_maps(K, Distortion('plumb_bob', coefficients), 160, 90)
    assert np.array_equal(rational, plumb_bob)


def test_distortion_coefficients_that_leave_few_valid_pixels_are_rejected():
    image = np.zeros((90, 160, 3), np.uint8)
    with pytest.raises(ValueError, match=r'leave \d+% of its image valid; calibrate the camera'):
        Undistorter()('front', image, K, Distortion('plumb_bob', (1e3, 0, 0, 0)))


@pytest.mark.parametrize(
    ('model', 'coefficients', 'words'),
    [
        ('mirror_ball', (0.1,), "distortion model 'mirror_ball'"),
        ('plumb_bob', (0.1,) * 3, 'invalid plumb_bob coefficients'),
        ('plumb_bob', (0.1,) * 15, 'invalid plumb_bob coefficients'),
        ('equidistant', (0.1,) * 5, 'invalid equidistant coefficients'),
        ('equidistant', (float('nan'),) * 4, 'invalid equidistant coefficients'),
    ],
)
def test_an_unknown_model_or_invalid_coefficients_are_rejected(
    model: str, coefficients: tuple, words: str
):
    with pytest.raises(ValueError, match=words):
        Distortion(model, coefficients)
