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
from bevdepth_ros.rig.compressed_images import DecodedImage, is_color_jpeg, is_jpeg
from bevdepth_ros.rig.conversions import decoded_image

MIN_SIDE_PX, MAX_SIDE_RATIO = 16, 16
MIN_PERIOD_S = 0.03
"""Shortest time between two JPEG files of a camera at which a GPU decodes each file as it arrives,
seconds."""
WAITING_SETS = 3
"""Decoded images that are kept per camera: of the set in progress, of the set that waits, and of
the set that arrives."""


class _Started(NamedTuple):
    """An image whose decoding has been started."""

    message: CompressedImage | Image
    future: Future[DecodedImage]


class ImageDecoder:
    """Decodes in one thread per camera, for a GPU as soon as an image arrives.

    For a GPU, the threads decode images and copy them to it as they arrive, so that only the last
    image of a set is left when the set is complete. Without a GPU, they decode only the images of
    sets, because a CPU may be too slow for every image.

    If a camera sends JPEG files faster than every ``MIN_PERIOD_S``, a GPU decodes those of a set
    together when the set is complete. One by one they take more time in total: at 60 Hz a sixth of
    the sets was lost.

    A thread cannot be interrupted. If an image is not decoded at the deadline, its camera is left
    out of this set and of all further sets until the thread is done. The other cameras have
    separate threads.
    """

    def __init__(self, device: torch.device | None = None, min_width: int = 0) -> None:
        """Prepare the decoder.

        Args:
            device: a GPU decodes color JPEG files itself and receives the pixels of other images;
                with a CPU or None, images stay in host memory.
            min_width: see ``decoded_image``; a GPU always decodes at full size.
        """
        self.on_arrival = device is not None and device.type == 'cuda'
        self._gpu_decoder = JpegDecoder(device) if self.on_arrival and device else None
        self._device, self._min_width = device, min_width
        self._uploads: dict[str, _Upload] = {}
        self._arrived: dict[str, float] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._started: dict[str, deque[_Started]] = {}

    def close(self) -> None:
        """End the threads, without waiting for those that still decode."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def begin(self, camera: str, message: CompressedImage | Image, max_pixels: int) -> None:
        """Start to decode an image that has arrived for a GPU, unless JPEG files of the camera
        arrive too fast for that.
        """
        now = time.monotonic()
        is_slow = now - self._arrived.get(camera, now) >= MIN_PERIOD_S
        self._arrived[camera] = now
        if self.on_arrival and (is_slow or not is_jpeg(message)):
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
        on_gpu = self._on_gpu(cameras, messages, max_pixels)
        return [
            partial(_checked, on_gpu[place])
            if place in on_gpu
            else partial(_result, self._start(camera, message, max_pixels), deadline, timeout_s)
            for place, (camera, message) in enumerate(zip(cameras, messages, strict=True))
        ]

    def _on_gpu(
        self,
        cameras: Sequence[str],
        messages: Sequence[CompressedImage | Image],
        max_pixels: int,
    ) -> dict[int, DecodedImage]:
        """Return the color JPEG files that are not yet started, decoded by the GPU, by place; none
        if it rejects one of them; the threads then report what is wrong.
        """
        files = {
            place: message.data
            for place, (camera, message) in enumerate(zip(cameras, messages, strict=True))
            if self._gpu_decoder is not None
            and isinstance(message, CompressedImage)
            and self._find(camera, message) is None
            and is_color_jpeg(message, max_pixels)
        }
        if self._gpu_decoder is None or not files:
            return {}
        try:
            images = self._gpu_decoder([*files.values()])
        except ValueError:
            return {}
        return {
            place: DecodedImage(pixels, pixels.shape[1], pixels.shape[0])
            for place, pixels in zip(files, images, strict=True)
        }

    def _start(
        self, camera: str, message: CompressedImage | Image, max_pixels: int
    ) -> Future[DecodedImage] | None:
        """Return the future image of ``message``; None while an earlier one of the camera is still
        being decoded.
        """
        found = self._find(camera, message)
        if found is not None:
            return found
        started = self._started.setdefault(camera, deque(maxlen=WAITING_SETS))
        if started and not started[-1].future.done():
            return None
        if camera not in self._threads:
            self._threads[camera] = ThreadPoolExecutor(1, thread_name_prefix=f'decode_{camera}')
        future = self._threads[camera].submit(self._decode, camera, message, max_pixels)
        started.append(_Started(message, future))
        return future

    def _find(self, camera: str, message: CompressedImage | Image) -> Future[DecodedImage] | None:
        """Return the future image of ``message`` if its decoding has been started."""
        started = tuple(self._started.get(camera, ()))  # another thread may add an image
        return next((entry.future for entry in started if entry.message is message), None)

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
    if short < MIN_SIDE_PX or long > MAX_SIDE_RATIO * short:
        raise ValueError(
            f'is {image.width}x{image.height}; the sides of an image must have at least '
            f'{MIN_SIDE_PX} px and a ratio of at most {MAX_SIDE_RATIO}'
        )
    return image
