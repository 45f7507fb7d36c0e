"""Decodes JPEG files: on a GPU in one batch with nvJPEG, on the CPU in threads with Pillow."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image

logger = logging.getLogger(__name__)


class JpegDecoder:
    """Decodes the files of one image set.

    Images that nvJPEG decodes differ by a few gray levels from images that Pillow decodes, because
    the two libraries upsample color in different ways.

    Args:
        device: device of the decoded images. If a file of an image set is not a complete JPEG
            file, or nvJPEG rejects a file, the whole image set is decoded on the CPU.
    """

    def __init__(self, device: str | torch.device) -> None:
        self._device = torch.device(device)
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix='jpeg')
        self._warned = False

    def prepare(self) -> None:
        """Decode a small image in advance, because the first call takes half a second on a GPU."""
        buffer = io.BytesIO()
        Image.new('RGB', (64, 64)).save(buffer, 'JPEG')
        self([buffer.getvalue()])

    def __call__(self, files: Sequence[bytes]) -> list[np.ndarray | torch.Tensor]:
        """Return one (H, W, 3) uint8 RGB image per file. Images that nvJPEG decoded are tensors on
        the GPU, and images that Pillow decoded are arrays.

        Args:
            files: complete JPEG files (or PNG, which the CPU decodes), as bytes-like objects.

        Raises:
            ValueError: a file is invalid; the message contains the index of the first invalid
                file.
        """
        if self._device.type == 'cuda' and files and all(_is_whole_jpeg(file) for file in files):
            try:
                return self._on_gpu(files)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._warn_once(error)
        return self._on_cpu(files)

    def _on_gpu(self, files: Sequence[bytes]) -> list[np.ndarray | torch.Tensor]:
        # Importing torchvision takes seconds, and a CPU does not need it.
        from torchvision.io import ImageReadMode, decode_jpeg

        data = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
        images = decode_jpeg(data, mode=ImageReadMode.RGB, device=self._device)
        return [image.permute(1, 2, 0) for image in images]

    def _on_cpu(self, files: Sequence[bytes]) -> list[np.ndarray | torch.Tensor]:
        return [*self._pool.map(_decoded, range(len(files)), files)]

    def _warn_once(self, error: RuntimeError) -> None:
        if not self._warned:
            logger.warning(
                'The GPU cannot decode an image; the CPU decodes image sets with such images: %s',
                str(error).splitlines()[0],
            )
        self._warned = True


def _is_whole_jpeg(file: bytes) -> bool:
    """Return True if the file has the start marker and the end marker of JPEG. This is checked
    because nvJPEG accepts truncated files.
    """
    return bytes(file[:2]) == b'\xff\xd8' and bytes(file[-2:]) == b'\xff\xd9'


def _decoded(index: int, file: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(file), formats=('JPEG', 'PNG')) as image:
            return np.asarray(image.convert('RGB'))
    except Exception as error:  # Pillow raises many types for invalid bytes
        raise ValueError(f'image {index} is not a complete JPEG or PNG file: {error}') from error
