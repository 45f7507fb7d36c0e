"""Copies source images to the device, and stores a resize plan per image size.

A source image is an image as the camera sent it, before it is resized to the network's input. A
resize plan is the part of the resizing that depends only on the size of the source image.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.ops.image_resize import ResizePlan
from bevdepth_core.page_locked import PageLockedCopy
from bevdepth_core.preprocess import ImageTransform

COPY_THREADS = 4
"""Threads that copy images to page-locked memory; a single thread uses only part of the memory
bandwidth."""


class ImageUploader:
    """Copies source images to the device and keeps one resize plan per image size."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._spec, self._device = config.image, device
        self._plans: dict[tuple[int, int], ResizePlan] = {}
        self._copies: defaultdict[int, PageLockedCopy] = defaultdict(
            partial(PageLockedCopy, device)
        )
        self._pool = ThreadPoolExecutor(COPY_THREADS, thread_name_prefix='upload')

    def upload(
        self, images: Sequence[np.ndarray | torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[ResizePlan]]:
        """Return (H, W, 3) tensors on the device and their resize plans. Numpy images are copied
        through page-locked memory.
        """
        # Tensors do not use the threads, because passing them to the threads and back would take
        # 0.1 ms.
        are_tensors = all(isinstance(image, torch.Tensor) for image in images)
        fill: Callable[..., Iterable] = map if are_tensors else self._pool.map
        filled = fill(self._filled, range(len(images)), images)
        on_device = [
            image.send() if isinstance(image, PageLockedCopy)
            else image.to(self._device, non_blocking=True)
            for image in filled
        ]  # fmt: skip
        return on_device, [self._plan(image.shape[1], image.shape[0]) for image in images]

    def _filled(
        self, camera: int, image: np.ndarray | torch.Tensor
    ) -> PageLockedCopy | torch.Tensor:
        """Copy a numpy image to the page-locked memory of its camera and return this memory.
        Return a tensor unchanged.
        """
        if isinstance(image, torch.Tensor):
            return image
        copy = self._copies[camera]
        copy.fill(image)
        return copy

    def _plan(self, width: int, height: int) -> ResizePlan:
        size = (width, height)
        if size not in self._plans:
            transform = ImageTransform.for_inference(width, height, self._spec)
            resized = (int(width * transform.scale), int(height * transform.scale))
            crop = (transform.crop_x, transform.crop_y, transform.width, transform.height)
            self._plans[size] = ResizePlan.make(size, resized, crop, self._device)
        return self._plans[size]
