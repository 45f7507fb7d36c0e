"""The JPEG and PNG files of an image set are decoded."""

import io

import numpy as np
import pytest
from PIL import Image

from bevdepth_core.jpeg import JpegDecoder


def encoded(image_format: str, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(
        np.random.default_rng(seed).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    ).save(buffer, image_format)
    return buffer.getvalue()


def test_images_keep_their_order_and_have_the_pixels_that_pillow_decodes():
    files = [encoded('JPEG', seed) for seed in range(6)] + [encoded('PNG', 7)]
    images = JpegDecoder('cpu')(files)
    assert all(
        np.array_equal(image, np.asarray(Image.open(io.BytesIO(file))))
        for image, file in zip(images, files, strict=True)
    )


def test_the_error_about_a_damaged_file_contains_the_index_of_the_file():
    files = [encoded('JPEG'), encoded('JPEG')[:200], b'']
    with pytest.raises(ValueError, match='image 1 is not a complete JPEG or PNG'):
        JpegDecoder('cpu')(files)


def test_an_empty_list_of_files_gives_no_images():
    assert JpegDecoder('cpu')([]) == []
