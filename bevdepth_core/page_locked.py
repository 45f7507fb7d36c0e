"""Copies images to a device through page-locked memory, from which a GPU reads at full speed."""

from __future__ import annotations

import numpy as np
import torch


class PageLockedCopy:
    """Copies the images of one camera to a device. If the device is a GPU, the images are copied
    through page-locked memory.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._is_gpu = device, device.type == 'cuda'
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._sent = torch.cuda.Event() if self._is_gpu else None

    def __call__(self, image: np.ndarray) -> torch.Tensor:
        """Return a copy of ``image``, (H, W, 3) uint8, on the device."""
        self.fill(image)
        return self.send()

    def fill(self, image: np.ndarray) -> None:
        """Copy ``image`` to the page-locked memory. Any thread may call this method."""
        if self._buffer.shape != image.shape:
            self._buffer = torch.empty(image.shape, dtype=torch.uint8, pin_memory=self._is_gpu)
        elif self._sent is not None:
            self._sent.synchronize()  # the GPU may still read the previous image
        np.copyto(self._buffer.numpy(), image)

    def send(self) -> torch.Tensor:
        """Start the copy on the current stream of the device, and return the copy."""
        on_device = self._buffer.to(self._device, non_blocking=True, copy=True)
        if self._sent is not None:
            self._sent.record(torch.cuda.current_stream(self._device))
        return on_device
