from __future__ import annotations

import threading

import numpy as np
import pytest

from bevdepth_ros.rig import decoding
from bevdepth_ros.rig.compressed_images import DecodedImage
from bevdepth_ros.rig.conversions import decoded_image
from bevdepth_ros.rig.decoding import ImageDecoder
from tests.ros.rig.image_messages import LIMIT, compressed, encoded, noise, raw, smooth

CAMERAS = ('left', 'right')
TIMEOUT_S = 30.0


def jpegs() -> list:
    return [compressed(encoded(smooth() // (1 + index), 'JPEG')) for index in range(2)]


class SlowDecoder:
    """Simulates a slow codec: decoding of one message waits until ``finish``."""

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


def test_an_invalid_image_only_removes_its_camera_from_the_set(decoder: ImageDecoder):
    left, right = decoder(CAMERAS, [compressed(b'noise'), jpegs()[1]], LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='is not a JPEG'):
        left()
    assert right().width == 160


def test_a_slow_decoder_only_removes_its_camera_from_the_sets_until_it_finishes(
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
def test_sides_of_an_image_are_bounded(decoder: ImageDecoder, size, is_accepted: bool):
    image = decoder(('left',), [raw('mono8', noise(*size)[..., :1], size[1])], LIMIT, TIMEOUT_S)[0]
    if is_accepted:
        assert (image().height, image().width) == size
    else:
        with pytest.raises(ValueError, match=f'is {size[1]}x{size[0]}; the sides'):
            image()


def test_images_may_be_decoded_at_a_reduced_size():
    decoder = ImageDecoder(min_width=80)
    image = decoder(('left',), jpegs()[:1], LIMIT, TIMEOUT_S)[0]()
    decoder.close()
    assert image.pixels.shape == (60, 80, 3)
    assert (image.width, image.height) == (160, 120)


def test_large_images_are_rejected(decoder: ImageDecoder):
    with pytest.raises(ValueError, match='more than max_image_megapixels'):
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


def test_on_a_cpu_only_images_of_a_set_are_decoded(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    counting = CountingDecoder()
    monkeypatch.setattr(decoding, 'decoded_image', counting)
    decoder.begin('left', jpegs()[0], LIMIT)
    assert decoder(('left',), [jpegs()[1]], LIMIT, TIMEOUT_S)[0]().width == 160
    assert counting.count == 1


def test_decoded_images_of_only_a_few_sets_are_kept(decoder: ImageDecoder):
    decoder.on_arrival = True
    for _ in range(2 * decoding.WAITING_SETS):
        decoder.begin('left', raw('rgb8', noise(), 40), LIMIT)
        decoder._started['left'][-1].future.result(TIMEOUT_S)
    assert len(decoder._started['left']) == decoding.WAITING_SETS


class RecordingDecoder:
    """Stands for the JPEG decoder of a GPU: notes how many files it gets, or rejects them."""

    def __init__(self, rejects: bool = False) -> None:
        self.rejects, self.counts = rejects, []

    def __call__(self, files):
        self.counts.append(len(files))
        if self.rejects:
            raise ValueError('image 0 is not a complete JPEG or PNG')
        return [np.full((120, 160, 3), index, np.uint8) for index in range(len(files))]


def test_jpegs_of_a_slow_camera_are_decoded_on_arrival(
    decoder: ImageDecoder, monkeypatch: pytest.MonkeyPatch
):
    clock = [5.0]
    monkeypatch.setattr(decoding.time, 'monotonic', lambda: clock[0])
    decoder.on_arrival, decoder._gpu_decoder = True, RecordingDecoder()
    started = []
    for step_s in (0.0, decoding.MIN_PERIOD_S, 0.5 * decoding.MIN_PERIOD_S):
        clock[0] += step_s
        message = jpegs()[0]
        decoder.begin('left', message, LIMIT)
        started.append(decoder._find('left', message) is not None)
    assert started == [False, True, False]
    [image] = decoder(('left',), [decoder._started['left'][-1].message], LIMIT, TIMEOUT_S)
    assert image().width == 160
    assert decoder._gpu_decoder.counts == []


def test_the_color_jpegs_of_a_set_are_decoded_together_if_they_arrive_fast(decoder: ImageDecoder):
    decoder.on_arrival, decoder._gpu_decoder = True, RecordingDecoder()
    gray = compressed(encoded(smooth()[..., 0], 'JPEG'))
    messages = [jpegs()[0], gray, jpegs()[1]]
    decoder.begin('left', messages[0], LIMIT)
    assert not decoder._started
    images = [image() for image in decoder(('left', 'gray', 'right'), messages, LIMIT, TIMEOUT_S)]
    assert decoder._gpu_decoder.counts == [2]
    assert [image.pixels[0, 0, 0] for image in (images[0], images[2])] == [0, 1]
    assert np.array_equal(images[1].pixels, decoded_image(gray, LIMIT).pixels)


def test_jpegs_that_a_gpu_rejects_are_decoded_by_the_threads(decoder: ImageDecoder):
    decoder._gpu_decoder = RecordingDecoder(rejects=True)
    broken = compressed(encoded(smooth(), 'JPEG')[:-900])
    left, right = decoder(CAMERAS, [broken, jpegs()[1]], LIMIT, TIMEOUT_S)
    with pytest.raises(ValueError, match='JPEG'):
        left()
    assert np.array_equal(right().pixels, decoded_image(jpegs()[1], LIMIT).pixels)
