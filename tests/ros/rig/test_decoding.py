from __future__ import annotations

import threading

import numpy as np
import pytest
import torch

from bevdepth_ros.rig import decoding
from bevdepth_ros.rig.compressed_images import DecodedImage
from bevdepth_ros.rig.conversions import decoded_image
from bevdepth_ros.rig.decoding import ImageDecoder
from bevdepth_ros.rig.gpu_images import JpegBatches
from tests.ros.messages import compressed, encoded
from tests.ros.rig.image_messages import LIMIT, noise, raw, smooth

CAMERAS = ('left', 'right')
TIMEOUT_S = 30.0


def jpegs() -> list:
    return [compressed(encoded(smooth() // (1 + index), 'JPEG')) for index in range(2)]


class SlowDecoder:
    """Simulates a slow codec: decoding ``slow_message`` waits until the test calls ``finish``."""

    def __init__(self, slow_message) -> None:
        self._slow_message, self._may_finish = slow_message, threading.Event()

    def __call__(self, message, max_pixels: int, min_width: int = 0) -> DecodedImage:
        if message is self._slow_message:
            self._may_finish.wait(TIMEOUT_S)
        return decoded_image(message, max_pixels, min_width)

    def finish(self) -> None:
        self._may_finish.set()


@pytest.fixture
def decoder():
    decoder = ImageDecoder()
    yield decoder
    decoder.close()


def test_each_camera_gets_its_own_image(decoder: ImageDecoder):
    messages = [jpegs()[0], raw('rgb8', noise(), 40)]
    images = [image() for image in decoder(CAMERAS, messages, LIMIT, TIMEOUT_S)]
    assert np.array_equal(images[0].pixels, decoded_image(messages[0], LIMIT).pixels)
    assert np.array_equal(images[1].pixels, noise())
    assert [(image.width, image.height) for image in images] == [(160, 120), (40, 24)]


def test_an_invalid_image_removes_only_its_camera_from_the_set(decoder: ImageDecoder):
    left, right = decoder(CAMERAS, [compressed(b'noise'), jpegs()[1]], LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='is not a JPEG'):
        left()
    assert right().width == 160


def test_while_an_image_is_being_decoded_slowly_only_its_camera_is_missing_in_sets(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    late, prompt = jpegs()
    slow = SlowDecoder(late)
    monkeypatch.setattr(decoding, 'decoded_image', slow)
    left, right = decoder(CAMERAS, [late, prompt], LIMIT, 0.2)
    with pytest.raises(ValueError, match=r'is not decoded within 0\.2 s .decode_timeout_s'):
        left()
    right()
    left, right = decoder(CAMERAS, jpegs(), LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='an earlier image is still being decoded'):
        left()
    right()
    slow.finish()
    decoder._started['left'][-1].future.result(TIMEOUT_S)
    assert [image().width for image in decoder(CAMERAS, jpegs(), LIMIT, TIMEOUT_S)] == [160, 160]


def test_closing_does_not_wait_for_a_slow_decoder(monkeypatch: pytest.MonkeyPatch):
    late = jpegs()[0]
    slow = SlowDecoder(late)
    monkeypatch.setattr(decoding, 'decoded_image', slow)
    decoder = ImageDecoder()
    decoder(('left',), [late], LIMIT, 0.0)
    decoder.close()
    assert not decoder._started['left'][-1].future.done()
    slow.finish()


@pytest.mark.parametrize(
    ('size', 'is_accepted'),
    [
        ((15, 16), False),
        ((16, 15), False),
        ((16, 16), True),
        ((16, 256), True),
        ((16, 257), False),
    ],
)
def test_an_image_side_that_is_too_short_or_too_long_is_rejected(
    decoder: ImageDecoder, size, is_accepted: bool
):
    image = decoder(('left',), [raw('mono8', noise(*size)[..., :1], size[1])], LIMIT, TIMEOUT_S)[0]
    if is_accepted:
        assert (image().height, image().width) == size
    else:
        with pytest.raises(ValueError, match=f'is {size[1]}x{size[0]} pixels; the shorter'):
            image()


def test_with_min_width_images_are_decoded_at_a_reduced_size():
    decoder = ImageDecoder(min_width=80)
    image = decoder(('left',), jpegs()[:1], LIMIT, TIMEOUT_S)[0]()
    decoder.close()
    assert image.pixels.shape == (60, 80, 3)
    assert (image.width, image.height) == (160, 120)


def test_images_with_more_than_the_allowed_pixels_are_rejected(decoder: ImageDecoder):
    with pytest.raises(ValueError, match=r'more than 0\.019199 megapixels'):
        decoder(('left',), jpegs()[:1], 160 * 120 - 1, TIMEOUT_S)[0]()


class CountingDecoder:
    """Counts the images that are decoded."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, message, max_pixels: int, min_width: int = 0) -> DecodedImage:
        self.count += 1
        return decoded_image(message, max_pixels, min_width)


def test_an_image_that_is_decoded_on_arrival_is_not_decoded_again_for_its_set(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    counting = CountingDecoder()
    monkeypatch.setattr(decoding, 'decoded_image', counting)
    decoder.on_arrival = True
    first, second = (raw('rgb8', noise() // (1 + index), 40) for index in range(2))
    for message in (first, second):
        decoder.begin('left', message, LIMIT)
        decoder._started['left'][-1].future.result(TIMEOUT_S)
    [image] = decoder(('left',), [first], LIMIT, TIMEOUT_S)
    assert np.array_equal(image().pixels, decoded_image(first, LIMIT).pixels)
    assert counting.count == 2


def test_on_a_cpu_images_are_decoded_only_when_their_set_is_processed(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    counting = CountingDecoder()
    monkeypatch.setattr(decoding, 'decoded_image', counting)
    decoder.begin('left', jpegs()[0], LIMIT)
    assert decoder(('left',), [jpegs()[1]], LIMIT, TIMEOUT_S)[0]().width == 160
    assert counting.count == 1


def test_the_constant_waiting_sets_limits_the_number_of_stored_images_per_camera(
    decoder: ImageDecoder,
):
    decoder.on_arrival = True
    for _ in range(2 * decoding.WAITING_SETS):
        decoder.begin('left', raw('rgb8', noise(), 40), LIMIT)
        decoder._started['left'][-1].future.result(TIMEOUT_S)
    assert len(decoder._started['left']) == decoding.WAITING_SETS


@pytest.fixture
def batching(decoder: ImageDecoder) -> ImageDecoder:
    """Return a decoder on the CPU that decodes on arrival and in batches, as on a GPU."""
    decoder.on_arrival, decoder._device = True, torch.device('cpu')
    decoder._jpeg_batches = JpegBatches(torch.device('cpu'))
    return decoder


class RecordingDecoder:
    """Replaces nvJPEG, and records the number of files of each call.

    A call returns only after ``finish`` has been called.
    """

    def __init__(self) -> None:
        self.counts, self._may_finish = [], threading.Event()
        self.has_begun = threading.Event()

    def __call__(self, files):
        self.counts.append(len(files))
        self.has_begun.set()
        self._may_finish.wait(TIMEOUT_S)
        return [np.full((120, 160, 3), file[-3], np.uint8) for file in files]

    def finish(self) -> None:
        self._may_finish.set()


def test_color_jpegs_that_arrive_during_a_call_of_nvjpeg_are_decoded_in_the_next_call(
    batching: ImageDecoder,
):
    recording = batching._jpeg_batches._decode = RecordingDecoder()
    cameras = ('front', 'gray', 'left', 'right')
    messages = [jpegs()[0], compressed(encoded(smooth()[..., 0], 'JPEG')), *jpegs()]
    batching.begin('front', messages[0], LIMIT)
    recording.has_begun.wait(TIMEOUT_S)
    for camera, message in zip(cameras[1:], messages[1:], strict=True):
        batching.begin(camera, message, LIMIT)
    recording.finish()
    images = [image() for image in batching(cameras, messages, LIMIT, TIMEOUT_S)]
    assert recording.counts == [1, 2]
    for place in (0, 2, 3):
        assert (np.asarray(images[place].pixels) == messages[place].data[-3]).all()
    assert np.array_equal(images[1].pixels, decoded_image(messages[1], LIMIT).pixels)


def test_a_damaged_jpeg_in_a_batch_removes_only_its_camera_from_the_set(batching: ImageDecoder):
    damaged = compressed(encoded(smooth(), 'JPEG')[:-900])
    messages = [damaged, jpegs()[1]]
    for camera, message in zip(CAMERAS, messages, strict=True):
        batching.begin(camera, message, LIMIT)
    left, right = batching(CAMERAS, messages, LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='JPEG'):
        left()
    difference = np.asarray(right().pixels, int) - decoded_image(messages[1], LIMIT).pixels
    assert np.abs(difference).max() <= 1


def test_an_error_of_the_decoding_device_is_not_reported_as_an_invalid_image(
    batching: ImageDecoder,
):
    def fail(files):
        raise MemoryError('no memory')

    batching._jpeg_batches._decode = fail
    [image] = batching(('left',), jpegs()[:1], LIMIT, TIMEOUT_S)
    with pytest.raises(MemoryError, match='no memory'):
        image()


def test_during_slow_decoding_later_images_wait_and_are_dropped_if_the_queue_is_full(
    batching: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    messages = [raw('rgb8', noise(), 40) for _ in range(decoding.WAITING_SETS + 1)]
    slow = SlowDecoder(messages[0])
    monkeypatch.setattr('bevdepth_ros.rig.gpu_images.decoded_image', slow)
    for message in messages:
        batching.begin('left', message, LIMIT)
    slow.finish()
    for message in messages[:-1]:
        [image] = batching(('left',), [message], LIMIT, TIMEOUT_S)
        assert np.array_equal(image().pixels, noise())
    assert all(image.message is not messages[-1] for image in batching._started['left'])


def test_after_a_timeout_the_camera_is_excluded_until_its_late_image_is_decoded(
    batching: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    late, next_one = (raw('rgb8', noise(), 40) for _ in range(2))
    slow = SlowDecoder(late)
    monkeypatch.setattr('bevdepth_ros.rig.gpu_images.decoded_image', slow)
    [image] = batching(('left',), [late], LIMIT, 0.0)
    with pytest.raises(ValueError, match='is not decoded within 0 s'):
        image()
    batching.begin('left', next_one, LIMIT)
    [image] = batching(('left',), [next_one], LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='an earlier image is still being decoded'):
        image()
    slow.finish()
    batching._started['left'][0].future.result(TIMEOUT_S)
    [image] = batching(('left',), [next_one], LIMIT, TIMEOUT_S)
    assert image().width == 40
