"""Read image files into network-size crops: exactly as the official pipeline, or several times
faster.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from bevdepth_core.preprocess import ImageTransform

REDUCTIONS = (8, 4, 2)
"""By how much a JPEG decoder can shrink a picture at next to no cost."""
MAX_PIXELS = 100_000_000
"""Larger pictures are refused before they are decoded: no camera makes them."""
FORMATS = ('JPEG', 'PNG')
LARGEST_ENLARGEMENT = 1.1
"""A shrunk decode is used where it has to be enlarged by at most this. For 256x704 the half-size
decode then covers the whole official range of resize factors, 0.386 to 0.55."""


def read_image(path: str | Path) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8 RGB.

    Raises:
        OSError: missing, cut off or no image; the message names the file.
    """
    with _opened(path) as picture:
        return np.asarray(_rgb(picture))


def read_crop(path: str | Path, transform: ImageTransform) -> np.ndarray:
    """Return (height, width, 3) uint8: the image file decoded in full and transformed, to the bit
    as in inference.

    Raises:
        OSError: as ``read_image``.
    """
    return transform.apply(read_image(path))


def read_crop_fast(path: str | Path, transform: ImageTransform) -> np.ndarray:
    """Return nearly what ``read_crop`` does, for training: a shrunk decode where it suffices, only
    what is visible resized.

    Differs from ``read_crop`` by about one grey level on average; at sharp edges by up to some 40.

    Raises:
        OSError: as ``read_image``.
    """
    with _opened(path) as picture:
        width, height = picture.size
        reduction = next(
            (factor for factor in REDUCTIONS if factor * transform.scale <= LARGEST_ENLARGEMENT), 1
        )
        picture.draft('RGB', (width // reduction, height // reduction))
        pixels = np.asarray(_rgb(picture))
    crop = _resized_crop(
        pixels, (int(width * transform.scale), int(height * transform.scale)), transform
    )
    return replace(transform, scale=1.0, crop_x=0, crop_y=0).apply(crop)


def _resized_crop(
    pixels: np.ndarray, resized: tuple[int, int], transform: ImageTransform
) -> np.ndarray:
    """Return the crop of ``pixels`` resized to ``resized`` (width, height), without computing what
    the crop leaves out.
    """
    x, y = pixels.shape[1] / resized[0], pixels.shape[0] / resized[1]
    # Pixel centres lie half a pixel from the edge, at either size.
    source_from_crop = np.array(
        ((x, 0, x * (transform.crop_x + 0.5) - 0.5), (0, y, y * (transform.crop_y + 0.5) - 0.5))
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pixels, source_from_crop, (transform.width, transform.height), flags=flags
    )


def _rgb(picture: Image.Image) -> Image.Image:
    """Return the decoded picture in RGB; ``convert`` alone would copy one that is RGB already."""
    picture.load()
    return picture if picture.mode == 'RGB' else picture.convert('RGB')


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise OSError(f'it claims {picture.width}x{picture.height} pixels')
            yield picture
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises many types on broken files
        raise OSError(f'{path} cannot be read as an image ({error}): unpack it again') from error
