"""Reads crops of image files in network size: exactly as the official pipeline, several times
faster with small differences, or warped for another camera.
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
"""Factors by which a JPEG decoder can reduce an image almost without extra time."""
MAX_PIXELS = 100_000_000
"""Larger images are rejected before they are decoded."""
FORMATS = ('JPEG', 'PNG')
MAX_ENLARGEMENT = 1.1
"""A reduced decode is used if it has to be enlarged by at most this factor. For 256x704 the
half-size decode then covers the whole official range of resize factors, 0.386 to 0.55."""


def read_image(path: str | Path) -> np.ndarray:
    """Return an image file as (H, W, 3) uint8 RGB.

    Raises:
        OSError: missing, truncated or not an image; the message names the file.
    """
    with _opened(path) as image:
        return np.asarray(_rgb(image))


def read_crop(path: str | Path, transform: ImageTransform) -> np.ndarray:
    """Return the (height, width, 3) uint8 crop of an image file decoded at full size; the same
    pixels as in inference.

    Raises:
        OSError: as ``read_image``.
    """
    return transform.apply(read_image(path))


def read_crop_fast(path: str | Path, transform: ImageTransform) -> np.ndarray:
    """Return approximately the image of ``read_crop``, several times faster, for training.

    The image is decoded at a reduced size if its resolution is sufficient, and only the visible
    part is resized. The result differs from ``read_crop`` by about one gray level on average, at
    sharp edges by up to about 40.

    Raises:
        OSError: as ``read_image``.
    """
    with _opened(path) as image:
        width, height = image.size
        reduction = next(
            (factor for factor in REDUCTIONS if factor * transform.scale <= MAX_ENLARGEMENT), 1
        )
        image.draft('RGB', (width // reduction, height // reduction))
        pixels = np.asarray(_rgb(image))
    crop = _resized_crop(
        pixels, (int(width * transform.scale), int(height * transform.scale)), transform
    )
    return replace(transform, scale=1.0, crop_x=0, crop_y=0).apply(crop)


def read_warped(path: str | Path, transform: ImageTransform, homography: np.ndarray) -> np.ndarray:
    """Return a (height, width, 3) uint8 image: the file warped by a (3, 3) homography of its
    pixels and then transformed.

    Both happen in one resampling of an image that may be decoded at a reduced size.

    Raises:
        OSError: as ``read_image``.
    """
    with _opened(path) as image:
        size = image.size
        scale = _scale_at_center(_network_from_source(transform, homography), size)
        reduction = next((factor for factor in REDUCTIONS if factor * scale <= MAX_ENLARGEMENT), 1)
        image.draft('RGB', (size[0] // reduction, size[1] // reduction))
        pixels = np.asarray(_rgb(image))
    return _warped(pixels, size, transform, homography, cv2.INTER_LINEAR)


def warped_part(
    source_size: tuple[int, int], transform: ImageTransform, homography: np.ndarray
) -> np.ndarray:
    """Return a (height, width) mask of the pixels of ``read_warped`` that the source image
    covers.
    """
    reduced = np.full((source_size[1] // 8, source_size[0] // 8), 255, np.uint8)
    return _warped(reduced, source_size, transform, homography, cv2.INTER_NEAREST) > 0


def _warped(
    pixels: np.ndarray,
    source_size: tuple[int, int],
    transform: ImageTransform,
    homography: np.ndarray,
    interpolation: int,
) -> np.ndarray:
    """Return the warp of an image of ``source_size`` decoded at the size of ``pixels``."""
    enlarged = np.diag((source_size[0] / pixels.shape[1], source_size[1] / pixels.shape[0], 1.0))
    # Pixel centers lie half a pixel from the edge, at either size.
    to_edge, to_center = np.eye(3), np.eye(3)
    to_edge[:2, 2], to_center[:2, 2] = 0.5, -0.5
    matrix = to_center @ _network_from_source(transform, homography) @ enlarged @ to_edge
    size = (transform.width, transform.height)
    return cv2.warpPerspective(pixels, matrix, size, flags=interpolation)


def _network_from_source(transform: ImageTransform, homography: np.ndarray) -> np.ndarray:
    """Return the (3, 3) transform from source pixels to network-input pixels, both measured
    from the edge of the image.
    """
    affine, matrix = np.eye(3), transform.matrix()
    affine[:2, :2], affine[:2, 2] = matrix[:2, :2], matrix[:2, 3]
    return affine @ homography


def _scale_at_center(matrix: np.ndarray, size: tuple[int, int]) -> float:
    """Return the factor by which a (3, 3) homography enlarges the center of an image."""
    center = matrix @ (size[0] / 2, size[1] / 2, 1.0)
    slope = (matrix[:2, :2] - np.outer(center[:2] / center[2], matrix[2, :2])) / center[2]
    return float(np.sqrt(abs(np.linalg.det(slope))))


def _resized_crop(
    pixels: np.ndarray, resized: tuple[int, int], transform: ImageTransform
) -> np.ndarray:
    """Return the crop of ``pixels`` resized to ``resized`` (width, height); only the crop is
    computed.
    """
    x, y = pixels.shape[1] / resized[0], pixels.shape[0] / resized[1]
    # Pixel centers lie half a pixel from the edge, at either size.
    source_from_crop = np.array(
        ((x, 0, x * (transform.crop_x + 0.5) - 0.5), (0, y, y * (transform.crop_y + 0.5) - 0.5))
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(
        pixels, source_from_crop, (transform.width, transform.height), flags=flags
    )


def _rgb(image: Image.Image) -> Image.Image:
    """Return the decoded image in RGB; an RGB image is not copied, as ``convert`` would do."""
    image.load()
    return image if image.mode == 'RGB' else image.convert('RGB')


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise OSError(f'{image.width}x{image.height} pixels are too many')
            yield image
    except FileNotFoundError:
        raise
    except Exception as error:  # Pillow raises many types on broken files
        raise OSError(f'{path} cannot be read as an image ({error}): unpack it again') from error
