"""Read image files into network-size crops: exactly as the official pipeline, or several times faster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from bevdepth_core.preprocess import ImageTransform

HALF_DECODE_UP_TO = 0.55
"""Resize factors up to this are taken from a half-size JPEG decode. It covers the official range for 256x704; between 0.5
and this the half-size picture is enlarged by up to a tenth."""


def read_image(path: str | Path) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8 RGB.

    Raises:
        OSError: missing, cut off or no image; the message names the file.
    """
    with _opened(path) as picture:
        return np.asarray(_rgb(picture))


def read_crop(path: str | Path, transform: ImageTransform) -> np.ndarray:
    """Return (height, width, 3) uint8: the image file decoded in full and transformed, to the bit as in inference.

    Raises:
        OSError: as ``read_image``.
    """
    return transform.apply(read_image(path))


def read_crop_fast(path: str | Path, transform: ImageTransform) -> np.ndarray:
    """Return nearly what ``read_crop`` does, for training: half-size decode where it suffices, only visible rows resized.

    Differs from ``read_crop`` by less than one grey level on average; at sharp edges by up to some 30.

    Raises:
        OSError: as ``read_image``.
    """
    with _opened(path) as picture:
        width, height = (int(side * transform.scale) for side in picture.size)
        if transform.scale <= HALF_DECODE_UP_TO:
            picture.draft('RGB', (picture.width // 2, picture.height // 2))
        crop = _visible_part(_rgb(picture), (width, height), transform)
    return replace(transform, scale=1.0, crop_x=0, crop_y=0).apply(np.asarray(crop))


def _visible_part(picture: Image.Image, resized: tuple[int, int], transform: ImageTransform) -> Image.Image:
    """Return the crop of ``picture`` resized to ``resized`` without computing what the crop leaves out."""
    left, top = max(0, transform.crop_x), max(0, transform.crop_y)
    right, bottom = min(resized[0], transform.crop_x + transform.width), min(resized[1], transform.crop_y + transform.height)
    if left >= right or top >= bottom:
        return Image.new('RGB', (transform.width, transform.height))
    x, y = picture.width / resized[0], picture.height / resized[1]
    part = picture.resize((right - left, bottom - top), Image.Resampling.BILINEAR, box=(left * x, top * y, right * x, bottom * y))
    if part.size == (transform.width, transform.height):
        return part
    canvas = Image.new('RGB', (transform.width, transform.height))
    canvas.paste(part, (left - transform.crop_x, top - transform.crop_y))
    return canvas


def _rgb(picture: Image.Image) -> Image.Image:
    """Return the decoded picture in RGB; ``convert`` alone would copy one that is RGB already."""
    picture.load()
    return picture if picture.mode == 'RGB' else picture.convert('RGB')


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OSError(f'{path} cannot be read as an image ({error}): unpack it again') from error
