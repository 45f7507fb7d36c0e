"""Preprocessing equals the official pipeline. The matrix of a transform maps a pixel of the source
image to its position in the network input."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from bevdepth_core.config import ImageSpec
from bevdepth_core.preprocess import ImageTransform, normalize, preprocess
from tests.reference import golden

TRAIN = dict(enumerate(golden('pipeline')[0]['train_aug']['per_cam']))


def transform_of(entry: dict) -> ImageTransform:
    left, top, right, bottom = entry['crop']
    return ImageTransform(
        entry['resize'], left, top, right - left, bottom - top, entry['flip'], entry['rotate']
    )


@pytest.mark.parametrize('index', range(6))
def test_matrices_equal_the_official_matrices(index):
    arrays = golden('pipeline')[1]
    validation = ImageTransform.for_inference(1600, 900, ImageSpec())
    assert np.allclose(validation.matrix(), arrays['val/ida'][0, index], atol=1e-4)
    assert np.allclose(
        transform_of(TRAIN[index]).matrix(), arrays['train/ida'][0, index], atol=1e-4
    )


@pytest.mark.parametrize(
    ('spec', 'scale', 'top'),
    [
        (ImageSpec(), 0.44, 140),
        (ImageSpec(512, 1408), 0.88, 280),
        (ImageSpec(640, 1600), 1.0, 260),
    ],
)
def test_official_sizes_give_the_official_resize_and_crop(spec, scale, top):
    transform = ImageTransform.for_inference(1600, 900, spec)
    assert (transform.scale, transform.crop_x, transform.crop_y) == (scale, 0, top)


@pytest.mark.parametrize(
    ('width', 'height'), [(1600, 900), (640, 480), (1920, 1080), (100, 700), (3000, 100)]
)
def test_an_image_of_any_size_fills_the_network_input(width, height):
    crops, matrices = preprocess([np.full((height, width, 3), 200, np.uint8)], ImageSpec())
    assert crops.shape == (1, 256, 704, 3) and matrices.shape == (1, 4, 4)
    assert (crops > 100).all()


def test_an_image_too_thin_for_the_input_is_rejected_before_it_is_resized():
    with pytest.raises(
        ValueError, match='20000x2 pixels is too extreme for a network input of 704x256'
    ):
        ImageTransform.for_inference(20_000, 2, ImageSpec())
    assert ImageTransform.for_inference(200, 2, ImageSpec()).scale == 128


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('rotation', [0.0, 5.0])
def test_the_matrix_maps_a_marked_pixel_to_its_position_in_the_transformed_image(flip, rotation):
    image = np.zeros((300, 500, 3), np.uint8)
    image[198:203, 318:323] = 255
    transform = ImageTransform(0.5, 20, 30, 200, 100, flip, rotation)
    rows, columns = np.nonzero(transform.apply(image)[..., 0] > 100)
    shown = (columns.mean() + 0.5, rows.mean() + 0.5)
    assert np.allclose((transform.matrix() @ (320.5, 200.5, 7, 1))[:3], (*shown, 7), atol=0.6)


def test_the_channels_of_the_network_input_are_b_g_r_but_mean_and_std_have_the_order_r_g_b():
    spec = ImageSpec()
    pixel = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(2, 16, 16, 3)
    expected = [
        (value - mean) / std
        for value, mean, std in zip((30, 20, 10), spec.mean, spec.std, strict=True)
    ]
    assert torch.allclose(normalize(pixel, spec)[1, :, 3, 5], torch.tensor(expected), atol=1e-6)


def test_several_threads_give_the_same_crops_in_the_same_order():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (90 + 7 * index, 160, 3), np.uint8) for index in range(5)]
    spec = ImageSpec(32, 96)
    with ThreadPoolExecutor(3) as pool:
        crops, matrices = preprocess(images, spec, pool)
    expected, expected_matrices = preprocess(images, spec)
    assert np.array_equal(crops, expected) and np.array_equal(matrices, expected_matrices)
    assert not np.array_equal(crops[0], crops[1])
