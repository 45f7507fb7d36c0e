"""Image files of datasets: exact and fast crops, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bevdepth_core.nuscenes import images
from bevdepth_core.nuscenes.images import read_crop, read_crop_fast, read_image
from bevdepth_core.preprocess import ImageTransform
from tests.sample import sample_paths, synthetic_sample

TRANSFORMS = [
    ImageTransform(0.386, 0, 91, 704, 256),
    ImageTransform(0.47, 43, 167, 704, 256, flip=True, rotation_deg=-5.4),
    ImageTransform(0.55, 88, 239, 704, 256, rotation_deg=3.0),
    ImageTransform(0.8, 100, 200, 704, 256, flip=True),
    ImageTransform(0.2, 0, 40, 352, 128, flip=True),
    ImageTransform(0.275, 40, 119, 352, 128, rotation_deg=-2.0),
    ImageTransform(0.44, -30, -20, 800, 500),
    ImageTransform(0.44, 5000, 0, 32, 32),
]


def image_path() -> Path:
    return sample_paths(synthetic_sample())[1]


@pytest.mark.parametrize('transform', TRANSFORMS)
def test_the_fast_crop_is_nearly_equal_to_the_exact_crop(transform):
    exact, fast = (
        read(image_path(), transform).astype(int) for read in (read_crop, read_crop_fast)
    )
    assert fast.shape == exact.shape == (transform.height, transform.width, 3)
    difference = np.abs(fast - exact)
    assert difference.mean() < 2 and np.quantile(difference, 0.999) <= 40


def test_a_shift_by_one_pixel_exceeds_the_mean_difference_that_is_allowed_for_the_fast_crop():
    exact = read_crop(image_path(), TRANSFORMS[0]).astype(int)
    assert np.abs(exact - np.roll(exact, 1, axis=1)).mean() > 2


def test_both_crop_functions_read_a_lossless_image_at_full_size_exactly(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'image.png')
    transform = ImageTransform(1.0, 10, 20, 100, 60, flip=True)
    for read in (read_crop, read_crop_fast):
        assert np.array_equal(
            read(tmp_path / 'image.png', transform), pixels[20:80, 10:110][:, ::-1]
        )


@pytest.mark.parametrize('read', [read_image, lambda path: read_crop_fast(path, TRANSFORMS[0])])
@pytest.mark.parametrize('size', [0, 50_000])
def test_a_truncated_image_is_reported_by_name(tmp_path, read, size):
    path = tmp_path / 'image.jpg'
    path.write_bytes(image_path().read_bytes()[:size])
    with pytest.raises(OSError, match=r'image\.jpg cannot be read as an image .*unpack it again'):
        read(path)


def test_a_missing_image_is_reported_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'nothing\.jpg'):
        read_image(tmp_path / 'nothing.jpg')


def test_an_image_with_too_many_pixels_and_a_gif_image_are_rejected(tmp_path, monkeypatch):
    pixels = Image.new('RGB', (160, 90))
    pixels.save(tmp_path / 'image.png')
    monkeypatch.setattr(images, 'MAX_PIXELS', 160 * 90)
    assert read_image(tmp_path / 'image.png').shape == (90, 160, 3)
    monkeypatch.setattr(images, 'MAX_PIXELS', 160 * 90 - 1)
    with pytest.raises(OSError, match=r'too large \(160x90 pixels\); reduce it to'):
        read_image(tmp_path / 'image.png')
    pixels.resize((8, 8)).save(tmp_path / 'image.gif')
    with pytest.raises(OSError, match=r'image\.gif cannot be read as an image'):
        read_image(tmp_path / 'image.gif')


def test_a_gray_image_becomes_three_equal_channels(tmp_path):
    Image.new('L', (16, 9), 77).save(tmp_path / 'image.png')
    assert (read_image(tmp_path / 'image.png') == np.full((9, 16, 3), 77)).all()
