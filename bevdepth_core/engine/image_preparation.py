"""Converts source images to network input: resizes on the CPU, normalizes on the device."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from bevdepth_core.config import ImageSpec
from bevdepth_core.preprocess import normalize, preprocess

RESIZE_THREADS = 4
"""Number of threads that resize images. Unlike PyTorch's threads, they do not wait in a busy loop,
so they do not slow each other down if fewer cores than threads are free."""


class ImagePreparation:
    """Resizes and crops images on the CPU and normalizes them on ``device``."""

    def __init__(self, spec: ImageSpec, device: torch.device) -> None:
        self._spec, self._device = spec, device
        self._pool = ThreadPoolExecutor(RESIZE_THREADS, thread_name_prefix='resize')

    def __call__(self, images: Sequence[np.ndarray | torch.Tensor]) -> torch.Tensor:
        """Return (1, N, 3, H, W) float32 network input of N images (H_i, W_i, 3) uint8 RGB."""
        arrays = [
            image.cpu().numpy() if isinstance(image, torch.Tensor) else image for image in images
        ]
        crops, _ = preprocess(arrays, self._spec, self._pool)
        return normalize(torch.from_numpy(crops).to(self._device), self._spec)[None]
