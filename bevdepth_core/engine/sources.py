"""Source images on their way to the device, and how each size of them is resized."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.ops.image_resize import ResizePlan
from bevdepth_core.preprocess import ImageTransform

COPY_THREADS = 4
"""Threads that copy images to pinned memory: one alone reaches a fraction of the memory's
bandwidth."""


class Sources:
    """Brings source images to the device and knows how each size is resized."""

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._spec, self._device = config.image, device
        self._plans: dict[tuple[int, int], ResizePlan] = {}
        self._pinned: dict[int, torch.Tensor] = {}
        self._pool = ThreadPoolExecutor(COPY_THREADS, thread_name_prefix='upload')

    def take(
        self, images: Sequence[np.ndarray | torch.Tensor]
    ) -> tuple[list[torch.Tensor], list[ResizePlan]]:
        """Return (H, W, 3) tensors on the device and their plans; numpy images travel through
        pinned memory.
        """
        on_device = list(images)
        places = [place for place, image in enumerate(images) if isinstance(image, np.ndarray)]
        held = list(self._pool.map(self._pinned_copy, places, [images[place] for place in places]))
        for place, copy in zip(places, held, strict=True):
            on_device[place] = copy
        return [image.to(self._device, non_blocking=True) for image in on_device], [
            self._plan(*image.shape[1::-1]) for image in images
        ]

    def _pinned_copy(self, place: int, image: np.ndarray) -> torch.Tensor:
        held = self._pinned.get(place)
        if held is None or held.shape != image.shape:
            held = torch.empty(
                image.shape, dtype=torch.uint8, pin_memory=self._device.type == 'cuda'
            )
            self._pinned[place] = held
        np.copyto(held.numpy(), image)
        return held

    def _plan(self, width: int, height: int) -> ResizePlan:
        size = (width, height)
        if size not in self._plans:
            transform = ImageTransform.for_inference(*size, self._spec)
            resized = (int(size[0] * transform.scale), int(size[1] * transform.scale))
            crop = (transform.crop_x, transform.crop_y, transform.width, transform.height)
            self._plans[size] = ResizePlan.make(size, resized, crop, self._device)
        return self._plans[size]
