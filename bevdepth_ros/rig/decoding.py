"""Decodes the images of a set in parallel, in one thread per camera and with a common deadline."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_core.jpeg import JpegDecoder
from bevdepth_core.page_locked import PageLockedCopy
from bevdepth_ros.rig.compressed_images import DecodedImage, is_color_jpeg
from bevdepth_ros.rig.conversions import decoded_image

SHORTEST_SIDE_PX, LARGEST_SIDE_RATIO = 16, 16
WAITING_SETS = 3
"""Decoded images that are kept per camera: of the set in progress, of the set that waits, and of
the set that arrives."""


class _Started(NamedTuple):
    """An image whose decoding has been started."""

    message: CompressedImage | Image
    future: Future[DecodedImage]


class ImageDecoder:
    """Decodes in one thread per camera, for a GPU as soon as an image arrives.

    With a GPU, an image is decoded and copied to it faster than a camera sends the next one, so
    that only the last image of a set is left to do when the set is complete. A CPU may be too slow
    for every image and decodes those of the sets alone.

    A thread cannot be interrupted. If an image is not decoded at the deadline, its camera is left
    out of this set and of all further sets until the thread is done. The other cameras have
    separate threads.
    """

    def __init__(self, device: torch.device | None = None, min_width: int = 0) -> None:
        """Prepare the decoder.

        Args:
            device: a GPU decodes JPEG files itself and receives the pixels of other images; with a
                CPU or None, images stay in host memory.
            min_width: see ``decoded_image``; a GPU always decodes at full size.
        """
        self.on_arrival = device is not None and device.type == 'cuda'
        self._device, self._min_width = device, min_width
        self._uploads: dict[str, _Upload] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._started: dict[str, deque[_Started]] = {}

    def close(self) -> None:
        """End the threads, without waiting for those that still decode."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def begin(self, camera: str, message: CompressedImage | Image, max_pixels: int) -> None:
        """Start to decode an image that has arrived, if a GPU decodes."""
        if self.on_arrival:
            self._start(camera, message, max_pixels)

    def __call__(
        self,
        cameras: Sequence[str],
        messages: Sequence[CompressedImage | Image],
        max_pixels: int,
        timeout_s: float,
    ) -> list[Callable[[], DecodedImage]]:
        """Return one function per camera that waits for its image.

        The functions raise ValueError as ``decoded_image`` does, and if the image is late.

        Args:
            cameras: names.
            messages: one of each camera.
            max_pixels: larger images are rejected before they are decoded.
            timeout_s: time for all of them from now on, seconds.
        """
        deadline = time.monotonic() + timeout_s
        started = [
            self._start(camera, message, max_pixels)
            for camera, message in zip(cameras, messages, strict=True)
        ]
        return [partial(_result, future, deadline, timeout_s) for future in started]

    def _start(
        self, camera: str, message: CompressedImage | Image, max_pixels: int
    ) -> Future[DecodedImage] | None:
        """Return the future image of ``message``; None while an earlier one of the camera is still
        being decoded.
        """
        started = self._started.setdefault(camera, deque(maxlen=WAITING_SETS))
        for earlier in tuple(started):  # another thread may add an image
            if earlier.message is message:
                return earlier.future
        if started and not started[-1].future.done():
            return None
        if camera not in self._threads:
            self._threads[camera] = ThreadPoolExecutor(1, thread_name_prefix=f'decode_{camera}')
        future = self._threads[camera].submit(self._decode, camera, message, max_pixels)
        started.append(_Started(message, future))
        return future

    def _decode(
        self, camera: str, message: CompressedImage | Image, max_pixels: int
    ) -> DecodedImage:
        if self._device is None or not self.on_arrival:
            return decoded_image(message, max_pixels, self._min_width)
        if camera not in self._uploads:
            self._uploads[camera] = _Upload(self._device)
        return self._uploads[camera](message, max_pixels)


class _Upload:
    """Decodes the images of one camera to a GPU.

    It has a stream of its own. On the network's stream, the steps of the network would wait for
    the images of the next set.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream = device, torch.cuda.Stream(device)
        self._decode_jpeg, self._copy = JpegDecoder(device), PageLockedCopy(device)

    def __call__(self, message: CompressedImage | Image, max_pixels: int) -> DecodedImage:
        """Return the image on the GPU, complete."""
        with torch.cuda.stream(self._stream):
            image = self._decoded(message, max_pixels)
        self._stream.synchronize()
        if isinstance(image.pixels, torch.Tensor):
            # Its memory may be used again when the network's stream has read it.
            image.pixels.record_stream(torch.cuda.default_stream(self._device))
        return image

    def _decoded(self, message: CompressedImage | Image, max_pixels: int) -> DecodedImage:
        """Decode a color JPEG on the GPU; the CPU decodes all others, and those that the GPU
        rejects, and reports what is wrong with them.
        """
        if isinstance(message, CompressedImage) and is_color_jpeg(message, max_pixels):
            with suppress(ValueError):
                [pixels] = self._decode_jpeg([message.data])
                return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])
        image = decoded_image(message, max_pixels)
        return replace(image, pixels=self._copy(np.asarray(image.pixels)))


def _result(
    future: Future[DecodedImage] | None, deadline: float, timeout_s: float
) -> DecodedImage:
    """Return the image once it is decoded; raise ValueError at the ``deadline``."""
    if future is None:
        raise ValueError('is skipped, since an earlier image is still being decoded')
    try:
        return _checked(future.result(max(0.0, deadline - time.monotonic())))
    except FutureTimeoutError:
        raise ValueError(
            f'is not decoded within {timeout_s:g} s (decode_timeout_s); check its size and codec'
        ) from None


def _checked(image: DecodedImage) -> DecodedImage:
    """Raise ValueError if the image is too small for detection, or so thin that resizing it to the
    network's input would need too much memory.
    """
    short, long = sorted((image.height, image.width))
    if short < SHORTEST_SIDE_PX or long > LARGEST_SIDE_RATIO * short:
        raise ValueError(
            f'is {image.width}x{image.height}; the sides of an image must have at least '
            f'{SHORTEST_SIDE_PX} px and a ratio of at most {LARGEST_SIDE_RATIO}'
        )
    return image
