"""Decodes images into the memory of a GPU.

``JpegBatches`` decodes color JPEG files on the GPU, several files in one call. If it rejects a
file, ``ImageDecoder`` passes the file to ``Upload``. ``Upload`` also receives raw images. It
decodes one image at a time: color JPEG files on the GPU, all other images on the CPU. Images from
the CPU are copied to the GPU.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_core.jpeg import JpegDecoder
from bevdepth_core.page_locked import PageLockedCopy
from bevdepth_ros.rig.compressed_images import DecodedImage, is_color_jpeg
from bevdepth_ros.rig.conversions import decoded_image


class _SideStream:
    """A CUDA stream for images, in addition to the stream of the network.

    If images used the stream of the network, the steps of the network would wait for the images of
    the next set. On a CPU there is no stream.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == 'cuda' else None

    def __call__(self, work: Callable[[], Sequence[DecodedImage]]) -> Sequence[DecodedImage]:
        """Run ``work`` on this stream, wait until the GPU has finished, and return the images."""
        if self._stream is None:
            return work()
        with torch.cuda.stream(self._stream):
            images = work()
        self._stream.synchronize()
        for image in images:
            if isinstance(image.pixels, torch.Tensor):
                # PyTorch must not reuse the memory before the network's stream has read it.
                image.pixels.record_stream(torch.cuda.default_stream(self._device))
        return images


class Upload:
    """Decodes the images of one camera, one at a time, and copies them to a GPU."""

    def __init__(self, device: torch.device) -> None:
        self._stream = _SideStream(device)
        self._decode_jpeg, self._copy = JpegDecoder(device), PageLockedCopy(device)

    def __call__(self, message: CompressedImage | Image, max_pixels: int) -> DecodedImage:
        """Return the image on the GPU after the GPU has finished. Raise ValueError in the same
        cases as ``decoded_image``.
        """
        [image] = self._stream(lambda: [self._decoded(message, max_pixels)])
        return image

    def _decoded(self, message: CompressedImage | Image, max_pixels: int) -> DecodedImage:
        """Decode a color JPEG file on the GPU. The CPU decodes all other images. The CPU also
        decodes the files that the GPU rejects, because only the CPU decoder reports what is wrong
        with a file.
        """
        if isinstance(message, CompressedImage) and is_color_jpeg(message, max_pixels):
            with suppress(ValueError):
                [pixels] = self._decode_jpeg([message.data])
                return DecodedImage(pixels, pixels.shape[1], pixels.shape[0])
        image = decoded_image(message, max_pixels)
        return replace(image, pixels=self._copy(np.asarray(image.pixels)))


class _Waiting(NamedTuple):
    """A file that waits for the next call of the decoder."""

    message: CompressedImage
    max_pixels: int
    image: Future[DecodedImage]
    reject: Callable[[], None]


class JpegBatches:
    """Decodes color JPEG files on a GPU in one thread. Each call decodes all files that wait.

    On an H200, a call takes 1.4 ms for six images of 1600x900, and 1.0 ms for one image. Images
    that arrive during a call wait for the next call. The faster images arrive, the more images a
    call therefore decodes.
    """

    def __init__(self, device: torch.device) -> None:
        self._decode, self._stream = JpegDecoder(device), _SideStream(device)
        self._waiting: deque[_Waiting] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix='decode_jpegs')

    def close(self) -> None:
        """End the thread, without waiting for a call in progress."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def put(
        self,
        message: CompressedImage,
        max_pixels: int,
        image: Future[DecodedImage],
        reject: Callable[[], None],
    ) -> None:
        """Decode the file of ``message`` in the next call.

        Args:
            message: contains the file.
            max_pixels: larger images are rejected.
            image: future that receives the image on the GPU.
            reject: function that is called if the file is not a color JPEG file, or if the GPU
                rejects any file of the call. In these cases, ``image`` is not set here.
        """
        self._waiting.append(_Waiting(message, max_pixels, image, reject))
        self._thread.submit(self._decode_waiting)
        time.sleep(0)  # releases the GIL, so that the thread can begin immediately

    def _decode_waiting(self) -> None:
        waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
        files = []
        for file in waiting:  # checked here, because the thread of the executor is busier
            if is_color_jpeg(file.message, file.max_pixels):
                files.append(file)
            else:
                file.reject()
        if not files:  # no file was waiting, or no waiting file is a color JPEG file
            return
        try:
            images = self._stream(lambda: self._images(files))
        except ValueError:
            for file in files:
                file.reject()
        except Exception as error:  # for example, memory is exhausted; result() raises the error
            for file in files:
                file.image.set_exception(error)
        else:
            for file, image in zip(files, images, strict=True):
                file.image.set_result(image)

    def _images(self, files: Sequence[_Waiting]) -> list[DecodedImage]:
        decoded = self._decode([file.message.data for file in files])
        return [DecodedImage(pixels, pixels.shape[1], pixels.shape[0]) for pixels in decoded]
