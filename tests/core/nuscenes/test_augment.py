"""Random transforms of images and of the bird's-eye view. Some tests compare the transforms with
the official code.
"""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.config import ImageSpec
from bevdepth_core.nuscenes.augment import BevAugmentation, BevTransform, ImageAugmentation
from bevdepth_core.preprocess import ImageTransform
from bevdepth_core.types import Boxes3D
from tests.reference import golden

OFFICIAL = golden('pipeline')[0]['bda_table']
SEEDS = range(200)


def bev_transform(entry: dict) -> BevTransform:
    return BevTransform(entry['rotate'], entry['scale'], entry['flip_dx'], entry['flip_dy'])


def boxes_of(rows: np.ndarray) -> Boxes3D:
    return Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 7:])


@pytest.mark.parametrize('index', range(len(OFFICIAL)))
def test_bev_matrices_and_boxes_agree_with_the_official_code(index):
    arrays = golden('pipeline')[1]
    transform = bev_transform(OFFICIAL[index])
    assert np.allclose(transform.matrix()[:3, :3], arrays[f'bda/{index}/mat3'], atol=1e-6)
    transformed, expected = (
        transform.apply(boxes_of(arrays['bda/input_boxes'])),
        boxes_of(arrays[f'bda/{index}/boxes']),
    )
    for name in ('center', 'size', 'yaw', 'velocity'):
        assert np.allclose(getattr(transformed, name), getattr(expected, name), atol=1e-5), name


@pytest.mark.parametrize('entry', OFFICIAL)
def test_the_corners_of_an_augmented_box_are_the_augmented_corners_of_the_box(entry):
    boxes, transform = boxes_of(golden('pipeline')[1]['bda/input_boxes']), bev_transform(entry)
    transformed = boxes.corners() @ transform.matrix()[:3, :3].T
    found = transform.apply(boxes).corners()
    nearest = np.linalg.norm(transformed[:, :, None] - found[:, None], axis=-1).min(axis=2)
    assert nearest.max() < 1e-4


def test_the_default_bev_transform_is_the_identity():
    assert np.array_equal(BevTransform().matrix(), np.eye(4))


def test_random_image_transforms_stay_in_their_ranges_and_inside_the_image():
    spec = ImageSpec()
    transforms = [
        ImageAugmentation().draw(np.random.default_rng(seed), (1600, 900), spec) for seed in SEEDS
    ]
    assert all(
        0.386 <= transform.scale <= 0.55 and abs(transform.rotation_deg) <= 5.4
        for transform in transforms
    )
    assert all(transform.crop_y == int(900 * transform.scale) - 256 for transform in transforms)
    assert all(
        0 <= transform.crop_x <= max(0, int(1600 * transform.scale) - 704)
        for transform in transforms
    )
    assert max(transform.crop_x for transform in transforms) > 100
    assert 70 < sum(transform.flip for transform in transforms) < 130


def test_the_random_numbers_of_an_image_transform_are_drawn_in_the_official_order():
    expected = np.random.default_rng(3)
    scale, bottom, side, flip, rotation = (expected.random() for _ in range(5))
    transform = ImageAugmentation(bottom_cut=(0.0, 0.2)).draw(
        np.random.default_rng(3), (1600, 900), ImageSpec()
    )
    width, height = int(1600 * transform.scale), int(900 * transform.scale)
    assert transform.scale == pytest.approx(0.386 + scale * 0.164)
    assert transform.crop_y == int((1 - 0.2 * bottom) * height) - 256
    assert transform.crop_x == int(side * max(0, width - 704))
    assert transform.flip == (flip < 0.5)
    assert transform.rotation_deg == pytest.approx(-5.4 + rotation * 10.8)


def test_random_bev_transforms_stay_in_their_ranges_and_flip_each_axis_with_probability_0_5():
    transforms = [BevAugmentation().draw(np.random.default_rng(seed)) for seed in SEEDS]
    assert all(
        abs(transform.rotation_deg) <= 22.5 and 0.95 <= transform.scale <= 1.05
        for transform in transforms
    )
    assert 70 < sum(transform.flip_x for transform in transforms) < 130
    assert 70 < sum(transform.flip_y for transform in transforms) < 130
    assert 20 < sum(transform.flip_x and transform.flip_y for transform in transforms) < 80


BOX = Boxes3D([[2.0, 1.0, 0.5]], [[4.0, 2.0, 1.5]], [0.3], [[3.0, 1.0]])


@pytest.mark.parametrize(
    ('transform', 'center', 'yaw', 'velocity'),
    [
        (BevTransform(rotation_deg=90), (-1, 2, 0.5), 0.3 + np.pi / 2, (-1, 3)),
        (BevTransform(flip_x=True), (-2, 1, 0.5), np.pi - 0.3, (-3, 1)),
        (BevTransform(flip_y=True), (2, -1, 0.5), -0.3, (3, -1)),
        (BevTransform(flip_x=True, flip_y=True), (-2, -1, 0.5), 0.3 - np.pi, (-3, -1)),
        (BevTransform(90, flip_x=True), (1, 2, 0.5), np.pi / 2 - 0.3, (1, 3)),
    ],
)
def test_a_box_is_rotated_first_and_then_mirrored(transform, center, yaw, velocity):
    transformed = transform.apply(BOX)
    assert transformed.center[0] == pytest.approx(center, abs=1e-6)
    assert transformed.velocity[0] == pytest.approx(velocity, abs=1e-6)
    assert transformed.yaw[0] == pytest.approx(yaw, abs=1e-6)
    assert transformed.size[0] == pytest.approx(BOX.size[0])


def test_a_scaled_box_has_scaled_center_size_and_velocity():
    transformed = BevTransform(scale=2.0).apply(BOX)
    for name in ('center', 'size', 'velocity'):
        assert getattr(transformed, name) == pytest.approx(2 * getattr(BOX, name)), name
    assert transformed.yaw == pytest.approx(BOX.yaw)


def test_a_relative_scale_is_multiplied_by_the_scale_of_inference():
    spec = ImageSpec(256, 704)
    augmentation = ImageAugmentation(scale=(1.0, 1.0), relative=True)
    for size in ((1600, 900), (1280, 720), (800, 450)):
        transform = augmentation.draw(np.random.default_rng(0), size, spec)
        inference = ImageTransform.for_inference(*size, spec)
        assert (transform.scale, transform.crop_y) == (inference.scale, inference.crop_y)


def test_the_random_numbers_of_a_bev_transform_are_drawn_in_the_official_order():
    expected = np.random.default_rng(5)
    rotation, scale, flip_x, flip_y = (expected.random() for _ in range(4))
    transform = BevAugmentation(flip_x_probability=0.8, flip_y_probability=0.1).draw(
        np.random.default_rng(5)
    )
    assert transform.rotation_deg == pytest.approx(-22.5 + 45 * rotation)
    assert transform.scale == pytest.approx(0.95 + 0.1 * scale)
    assert (transform.flip_x, transform.flip_y) == (flip_x < 0.8, flip_y < 0.1)


@pytest.mark.parametrize(('probability', 'flips'), [(0.0, False), (1.0, True)])
def test_flip_probability_0_gives_no_flips_and_flip_probability_1_gives_only_flips(
    probability, flips
):
    image = ImageAugmentation(flip_probability=probability)
    bev = BevAugmentation(flip_x_probability=probability, flip_y_probability=probability)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        assert image.draw(rng, (1600, 900), ImageSpec()).flip == flips
        transform = bev.draw(rng)
        assert (transform.flip_x, transform.flip_y) == (flips, flips)
