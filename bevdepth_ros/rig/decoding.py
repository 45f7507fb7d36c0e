"""Decodes the images of a set in parallel, one thread per camera, with a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial

import torch
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_core.jpeg import JpegDecoder
from bevdepth_ros.rig.compressed_images import DecodedImage, is_color_jpeg
from bevdepth_ros.rig.conversions import decoded_image

SHORTEST_SIDE_PX, LARGEST_SIDE_RATIO = 16, 16


class ImageDecoder:
    """Decodes on a GPU if it takes all images of a set, otherwise in threads.

    A thread cannot be interrupted. An image that is not decoded at the deadline costs its camera
    this set and those that come until the thread is done; the other cameras have threads of
    their own.
    """

    def __init__(self, device: torch.device | None = None, min_width: int = 0) -> None:
        """Prepare the decoder.

        Args:
            device: a GPU decodes JPEG files itself; None and a CPU leave images to threads.
            min_width: as ``decoded_image`` takes it; only in threads.
        """
        is_gpu = device is not None and device.type == 'cuda'
        self._gpu_decoder = JpegDecoder(device) if is_gpu and device is not None else None
        self._min_width = min_width
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._running: dict[str, Future[DecodedImage]] = {}

    def close(self) -> None:
        """End the threads, without waiting for those that still decode."""
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def __call__(
        self,
        cameras: Sequence[str],
        messages: Sequence[CompressedImage | Image],
        max_pixels: int,
        timeout_s: float,
    ) -> list[Callable[[], DecodedImage]]:
        """Start to decode, and return one function per camera that waits for its image.

        The functions raise ValueError as ``decoded_image`` does, and if the image is late.

        Args:
            cameras: names.
            messages: one of each camera.
            max_pixels: larger images are rejected before they are decoded.
            timeout_s: time for all of them from now on, seconds.
        """
        on_gpu = self._decoded_on_gpu(messages, max_pixels)
        if on_gpu is not None:
            return [partial(_checked, image) for image in on_gpu]
        deadline = time.monotonic() + timeout_s
        started = [
            self._start(camera, message, max_pixels)
            for camera, message in zip(cameras, messages, strict=True)
        ]
        return [partial(_result, future, deadline, timeout_s) for future in started]

    def _start(
        self, camera: str, message: CompressedImage | Image, max_pixels: int
    ) -> Future[DecodedImage] | None:
        """Return the decoding of ``message``, None while an earlier one of the camera goes on."""
        if camera in self._running and not self._running[camera].done():
            return None
        if camera not in self._threads:
            self._threads[camera] = ThreadPoolExecutor(1, thread_name_prefix=f'decode_{camera}')
        self._running[camera] = self._threads[camera].submit(
            decoded_image, message, max_pixels, self._min_width
        )
        return self._running[camera]

    def _decoded_on_gpu(
        self, messages: Sequence[CompressedImage | Image], max_pixels: int
    ) -> list[DecodedImage] | None:
        """Return the images, None if they are not for the GPU or one is broken; the CPU then
        reports which one.
        """
        if self._gpu_decoder is None or not all(
            isinstance(message, CompressedImage) and is_color_jpeg(message, max_pixels)
            for message in messages
        ):
            return None
        try:
            tensors = self._gpu_decoder([message.data for message in messages])
        except ValueError:
            return None
        return [DecodedImage(pixels, pixels.shape[1], pixels.shape[0]) for pixels in tensors]


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
    """Raise ValueError for images that no camera takes: the network would see a few pixels, or
    resize a thin image to a huge one.
    """
    short, long = sorted((image.height, image.width))
    if short < SHORTEST_SIDE_PX or long > LARGEST_SIDE_RATIO * short:
        raise ValueError(
            f'is {image.width}x{image.height}; the sides of an image must have at least '
            f'{SHORTEST_SIDE_PX} px and a ratio of at most {LARGEST_SIDE_RATIO}'
        )
    return image
