"""Compares images decoded on a GPU by ``ImageDecoder`` with images decoded on the CPU. The tests
need ROS 2.

python -m pytest tests/gpu/check_decoding.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bevdepth_ros.rig.conversions import decoded_image
from bevdepth_ros.rig.decoding import ImageDecoder
from tests.ros.messages import compressed, encoded
from tests.ros.rig.image_messages import LIMIT, noise, raw, smooth

CAMERAS = ('left', 'right')
TIMEOUT_S = 30.0
JPEG_DIFFERENCE = 3.0
"""Largest accepted mean absolute difference between images decoded with nvJPEG and with Pillow, in
gray levels."""


@pytest.fixture
def decoder():
    decoder = ImageDecoder(torch.device('cuda'))
    yield decoder
    decoder.close()


def on_host(image) -> np.ndarray:
    assert image.pixels.is_cuda
    return image.pixels.cpu().numpy()


def test_gpu_and_cpu_give_equal_raw_images_and_nearly_equal_jpegs(
    decoder: ImageDecoder,
):
    messages = [raw('bgr8', noise(), 40), compressed(encoded(smooth(), 'JPEG'))]
    left, right = (image() for image in decoder(CAMERAS, messages, LIMIT, TIMEOUT_S))
    assert np.array_equal(on_host(left), decoded_image(messages[0], LIMIT).pixels)
    expected = decoded_image(messages[1], LIMIT).pixels.astype(int)
    assert np.abs(on_host(right) - expected).mean() < JPEG_DIFFERENCE


def test_images_decoded_during_another_gpu_computation_equal_images_decoded_on_the_cpu(
    decoder: ImageDecoder,
):
    busy = torch.randn(4096, 4096, device='cuda')
    for index in range(30):
        messages = [raw('rgb8', np.roll(noise(), index + place, 0), 40) for place in range(2)]
        for camera, message in zip(CAMERAS, messages, strict=True):
            decoder.begin(camera, message, LIMIT)
        busy = torch.tanh(busy @ busy)
        images = [image() for image in decoder(CAMERAS, messages, LIMIT, TIMEOUT_S)]
        copies = [image.pixels.clone() for image in images]
        del images  # so that the decoder may use their memory for the next images
        for pixels, message in zip(copies, messages, strict=True):
            assert np.array_equal(pixels.cpu().numpy(), decoded_image(message, LIMIT).pixels)


def test_a_damaged_jpeg_raises_an_error_only_for_its_own_camera(decoder: ImageDecoder):
    complete = encoded(smooth(), 'JPEG')
    messages = [compressed(complete[: len(complete) // 2]), compressed(complete)]
    left, right = decoder(CAMERAS, messages, LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='JPEG'):
        left()
    difference = on_host(right()).astype(int) - decoded_image(messages[1], LIMIT).pixels
    assert np.abs(difference).mean() < JPEG_DIFFERENCE


def test_jpegs_that_are_decoded_together_equal_jpegs_that_are_decoded_one_by_one(
    decoder: ImageDecoder,
):
    cameras = [f'camera_{index}' for index in range(6)]
    messages = [compressed(encoded(smooth() // (1 + index), 'JPEG')) for index in range(6)]
    alone = [
        decoder((c,), [m], LIMIT, TIMEOUT_S)[0]() for c, m in zip(cameras, messages, strict=True)
    ]
    expected = [on_host(image) for image in alone]
    for _ in range(20):
        again = [compressed(bytes(message.data)) for message in messages]
        for camera, message in zip(cameras, again, strict=True):
            decoder.begin(camera, message, LIMIT)
        images = [image() for image in decoder(cameras, again, LIMIT, TIMEOUT_S)]
        for image, pixels in zip(images, expected, strict=True):
            assert np.array_equal(on_host(image), pixels)


def test_data_that_is_not_an_image_is_rejected(decoder: ImageDecoder):
    left, right = decoder(
        CAMERAS, [compressed(b'noise'), raw('rgb8', noise(), 40)], LIMIT, TIMEOUT_S
    )
    with pytest.raises(ValueError, match='is not a JPEG'):
        left()
    assert np.array_equal(on_host(right()), noise())
