"""Resizing with integer arithmetic gives exactly the pixels of Pillow."""

import numpy as np
import pytest
import torch
from PIL import Image

from bevdepth_core.ops.image_resize import ResizePlan, resize_images, resize_reference


@pytest.mark.parametrize(
    ('source', 'resized', 'crop'),
    [
        ((160, 90), (70, 39), (0, 7, 70, 32)),
        ((161, 93), (70, 40), (3, 8, 64, 32)),
        ((50, 40), (150, 120), (20, 10, 64, 96)),
        ((64, 48), (64, 48), (0, 16, 64, 32)),
        ((70, 30), (64, 31), (-3, -5, 70, 41)),
        ((40, 20), (16, 8), (100, 100, 8, 8)),
    ],
)
def test_resized_and_cropped_pixels_equal_the_pixels_of_pillow(source, resized, crop):
    image = np.random.default_rng(0).integers(0, 256, (source[1], source[0], 3), dtype=np.uint8)
    image[: source[1] // 3] = np.random.default_rng(1).choice(
        np.array([0, 255], np.uint8), image[: source[1] // 3].shape
    )
    left, top, width, height = crop
    expected = np.asarray(
        Image.fromarray(image).resize(resized).crop((left, top, left + width, top + height))
    )
    plan = ResizePlan.make(source, resized, crop, torch.device('cpu'))
    assert np.array_equal(resize_reference(torch.from_numpy(image), plan).numpy(), expected)


def test_the_network_input_has_normalized_bgr_channels_and_a_fourth_channel_of_zeros():
    image = torch.tensor([10, 20, 30], dtype=torch.uint8).expand(8, 8, 3)
    plan = ResizePlan.make((8, 8), (4, 4), (0, 0, 4, 4), torch.device('cpu'))
    out = torch.full((1, 4, 4, 4), 9.0)
    resize_images([image], [plan], (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), out)
    assert out[0, :, 2, 2].tolist() == [14.5, 4.5, 0.875, 0.0]
