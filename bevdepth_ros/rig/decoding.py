"""The images of a set, decoded side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sensor_msgs.msg import CompressedImage, Image

from bevdepth_core.jpeg import JpegDecoder
from bevdepth_ros.rig.conversions import image_from_message, is_colour_jpeg

SHORTEST_SIDE_PX, MOST_SIDES_RATIO = 16, 16


class ImageDecoder:
    """Decodes on a GPU where it takes all images of a set, otherwise in threads."""

    def __init__(self, device: torch.device | None = None):
        """Start the threads.

        Args:
            device: a GPU decodes JPEG files itself; None and a CPU leave images to threads.
        """
        self._gpu_decoder = (
            JpegDecoder(device) if device is not None and device.type == 'cuda' else None
        )
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix='images')

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False)

    def __call__(
        self, messages: Sequence[CompressedImage | Image], max_pixels: int
    ) -> list[Callable[[], np.ndarray | torch.Tensor]]:
        """Begin to decode, and return what gives each (H, W, 3) uint8 RGB image, or raises
        ValueError as ``image_from_message`` does.

        Args:
            messages: of a set.
            max_pixels: larger images are refused before they are decoded.
        """
        on_gpu = self._decoded_on_gpu(messages, max_pixels)
        if on_gpu is not None:
            return [lambda image=image: _of_a_camera(image) for image in on_gpu]
        waiting = [
            self._threads.submit(image_from_message, message, max_pixels) for message in messages
        ]
        return [lambda future=future: _of_a_camera(future.result()) for future in waiting]

    def _decoded_on_gpu(
        self, messages: Sequence[CompressedImage | Image], max_pixels: int
    ) -> list[torch.Tensor] | None:
        """Return the images, None when they are not for the GPU or one is broken, which the CPU
        then names.
        """
        if self._gpu_decoder is None or not all(
            is_colour_jpeg(message, max_pixels) for message in messages
        ):
            return None
        try:
            return self._gpu_decoder([message.data for message in messages])
        except ValueError:
            return None


def _of_a_camera(image: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Refuse what no camera takes: the network would see a few pixels, or resize a thin image to a
    huge one.
    """
    height, width = image.shape[:2]
    short, long = sorted((height, width))
    if short < SHORTEST_SIDE_PX or long > MOST_SIDES_RATIO * short:
        raise ValueError(f'is {width}x{height}, which is no image of a camera')
    return image
