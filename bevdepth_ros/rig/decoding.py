"""Decodes the images of a set in parallel, in one thread per camera and with a common deadline."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from typing import NamedTuple

import torch
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_ros.rig.compressed_images import DecodedImage
from bevdepth_ros.rig.conversions import decoded_image
from bevdepth_ros.rig.gpu_images import JpegBatches, Upload

MIN_SIDE_PX, MAX_SIDE_RATIO = 16, 16
WAITING_SETS = 3
"""Largest number of images per camera that are being decoded or stored. The images belong to the
set in progress, to the set that waits, and to the set whose images are arriving."""


class _Started(NamedTuple):
    """An image whose decoding has been started."""

    message: CompressedImage | Image
    future: Future[DecodedImage]


class ImageDecoder:
    """Decodes the images of each camera in a separate thread.

    With a GPU, an image is decoded when it arrives. When a set is complete, only its last image
    therefore remains to be decoded. ``JpegBatches`` decodes color JPEG files on the GPU. The
    threads decode all other images and copy them to the GPU. Without a GPU, the threads decode
    only images that belong to a set, because a CPU may be too slow for every image.

    A thread cannot be interrupted. If an image is not decoded at the deadline, its camera is left
    out of this set and of all further sets until that image is decoded. All other cameras
    remain in the sets, because their images are decoded in separate threads.
    """

    def __init__(self, device: torch.device | None = None, min_width: int = 0) -> None:
        """Prepare the decoder.

        Args:
            device: a GPU that decodes color JPEG files and receives the pixels of other images. If
                it is a CPU or None, images stay in host memory.
            min_width: see ``decoded_image``; a GPU always decodes at full size.
        """
        self.on_arrival = device is not None and device.type == 'cuda'
        self._jpeg_batches = JpegBatches(device) if self.on_arrival and device else None
        self._device, self._min_width = device, min_width
        self._uploads: dict[str, Upload] = {}
        self._threads: dict[str, ThreadPoolExecutor] = {}
        self._started: dict[str, deque[_Started]] = {}
        self._late: dict[str, Future[DecodedImage]] = {}

    def close(self) -> None:
        """End the threads, without waiting for images that are still being decoded."""
        if self._jpeg_batches is not None:
            self._jpeg_batches.close()
        for thread in self._threads.values():
            thread.shutdown(wait=False, cancel_futures=True)

    def begin(self, camera: str, message: CompressedImage | Image, max_pixels: int) -> None:
        """If a GPU decodes images, start to decode this image, which has just arrived."""
        if self.on_arrival:
            self._start(camera, message, max_pixels)

    def __call__(
        self,
        cameras: Sequence[str],
        messages: Sequence[CompressedImage | Image],
        max_pixels: int,
        timeout_s: float,
    ) -> list[Callable[[], DecodedImage]]:
        """Return one function per camera, which waits for the image and returns the image.

        A function raises ValueError in the same cases as ``decoded_image``, and if its image is
        not decoded in time.

        Args:
            cameras: names of the cameras.
            messages: one image of each camera.
            max_pixels: larger images are rejected before they are decoded.
            timeout_s: longest time from now until all images are decoded, seconds.
        """
        deadline = time.monotonic() + timeout_s
        return [
            partial(
                self._result, camera, self._start(camera, message, max_pixels), deadline, timeout_s
            )
            for camera, message in zip(cameras, messages, strict=True)
        ]

    def _start(
        self, camera: str, message: CompressedImage | Image, max_pixels: int
    ) -> Future[DecodedImage] | None:
        """Return the future image of ``message``; None while the camera has a late image, or while
        too many of its images are being decoded.
        """
        started = self._started.setdefault(camera, deque(maxlen=WAITING_SETS))
        in_progress = tuple(started)  # another thread may add an image
        for image in in_progress:
            if image.message is message:
                return image.future
        late = self._late.get(camera)
        if late is not None and not late.done():
            return None
        if sum(not image.future.done() for image in in_progress) == WAITING_SETS:
            return None
        future: Future[DecodedImage] = Future()
        started.append(_Started(message, future))
        in_thread = partial(self._decode_in_thread, camera, message, max_pixels, future)
        if self._jpeg_batches is not None and isinstance(message, CompressedImage):
            self._jpeg_batches.put(message, max_pixels, future, in_thread)
        else:
            in_thread()
        return future

    def _decode_in_thread(
        self,
        camera: str,
        message: CompressedImage | Image,
        max_pixels: int,
        future: Future[DecodedImage],
    ) -> None:
        """Decode in the thread of the camera, and store the image or the error in ``future``."""
        if camera not in self._threads:
            self._threads[camera] = ThreadPoolExecutor(1, thread_name_prefix=f'decode_{camera}')
        self._threads[camera].submit(
            _resolve, future, partial(self._decode, camera, message, max_pixels)
        )

    def _decode(
        self, camera: str, message: CompressedImage | Image, max_pixels: int
    ) -> DecodedImage:
        if self._device is None or not self.on_arrival:
            return decoded_image(message, max_pixels, self._min_width)
        if camera not in self._uploads:
            self._uploads[camera] = Upload(self._device)
        return self._uploads[camera](message, max_pixels)

    def _result(
        self, camera: str, future: Future[DecodedImage] | None, deadline: float, timeout_s: float
    ) -> DecodedImage:
        """Return the image once it is decoded; raise ValueError at the ``deadline``."""
        if future is None:
            raise ValueError('is skipped, since an earlier image is still being decoded')
        try:
            return _checked(future.result(max(0.0, deadline - time.monotonic())))
        except FutureTimeoutError:
            self._late[camera] = future
            raise ValueError(
                f'is not decoded within {timeout_s:g} s (decode_timeout_s); check its size and '
                'codec and the load of the CPU, or raise decode_timeout_s'
            ) from None


def _resolve(future: Future[DecodedImage], decode: Callable[[], DecodedImage]) -> None:
    try:
        future.set_result(decode())
    except Exception as error:  # the thread that waits for the image reports the error
        future.set_exception(error)


def _checked(image: DecodedImage) -> DecodedImage:
    """Return the image.

    Raises:
        ValueError: the image is too small for detection, or so thin that resizing it to the input
            of the network would need too much memory.
    """
    short, long = sorted((image.height, image.width))
    if short < MIN_SIDE_PX or long > MAX_SIDE_RATIO * short:
        raise ValueError(
            f'is {image.width}x{image.height} pixels; the shorter side must be at least '
            f'{MIN_SIDE_PX} pixels, and the longer side at most {MAX_SIDE_RATIO} times as long'
        )
    return image
