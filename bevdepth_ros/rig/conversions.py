"""From messages and calibration files to what the core reads: pure functions, no node, no clock.

Raw images are not left to cv_bridge: the one on PyPI heeds neither ``step`` nor byte order and has
no 16-bit images, and all of them must come out the same everywhere.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import yaml
from PIL import Image as PillowImage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevdepth_ros.rig.undistortion import Distortion

_ENCODINGS = {
    'rgb8': ('u1', 3), 'bgr8': ('u1', 3), 'rgba8': ('u1', 4), 'bgra8': ('u1', 4), '8UC3': ('u1',
    3),
    'rgb16': ('u2', 3), 'bgr16': ('u2', 3), 'rgba16': ('u2', 4), 'bgra16': ('u2', 4),
    'mono8': ('u1', 1), '8UC1': ('u1', 1), 'mono16': ('u2', 1), '16UC1': ('u2', 1),
}  # fmt: skip
"""Value type and channels of an encoding; the unnamed 8UC3 is blue first, as OpenCV has it."""

_BAYER = {'rggb': 'BG', 'bggr': 'RG', 'gbrg': 'GR', 'grbg': 'GB'}
"""ROS names a Bayer pattern by its first four pixels, OpenCV by the two in the middle of its
second row."""
FOCAL_PX = (1.0, 1e6)
"""Focal lengths beyond these are of no camera; one that overflows would spoil the boxes of all
others."""


@dataclass(frozen=True)
class Intrinsics:
    """How one camera projects.

    Attributes:
        matrix: (3, 3) float64, pixels.
        width: of the calibrated image, pixels; 0 when not known.
        height: likewise.
        distortion: lens distortion that the image this matrix belongs to still has; None when it
            has none.
    """

    matrix: np.ndarray
    width: int
    height: int
    distortion: Distortion | None

    def require_size(self, image: np.ndarray) -> None:
        """Raise ValueError unless the (H, W, 3) ``image`` has the calibrated size."""
        height, width = image.shape[:2]
        if self.width and self.height and (width, height) != (self.width, self.height):
            raise ValueError(
                f'is {width}x{height}, but its calibration is for {self.width}x{self.height}'
            )


def image_from_message(message: CompressedImage | Image, max_pixels: int) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB.

    Args:
        message: JPEG or PNG, decoded exactly as Pillow does; or a raw image. 16-bit values keep
            the upper byte.
        max_pixels: larger images are refused before they are decoded.

    Raises:
        ValueError: what is wrong with the image, worded to follow the camera's name.
    """
    return (
        _from_compressed(message, max_pixels)
        if isinstance(message, CompressedImage)
        else _from_raw(message, max_pixels)
    )


def is_colour_jpeg(message: CompressedImage | Image, max_pixels: int) -> bool:
    """Tell whether ``message`` is a JPEG in red, green and blue of at most ``max_pixels`` by its
    header, which a GPU may decode.
    """
    if not isinstance(message, CompressedImage):
        return False
    try:
        with PillowImage.open(io.BytesIO(message.data), formats=('JPEG',)) as picture:
            return picture.mode == 'RGB' and picture.width * picture.height <= max_pixels
    except (
        Exception
    ):  # Pillow raises many types on foreign bytes; image_from_message says what is wrong
        return False


def _require_at_most(max_pixels: int, width: int, height: int) -> None:
    if width * height > max_pixels:
        raise ValueError(f'is {width}x{height}, more than max_image_megapixels allows')


def require_picture(message: CompressedImage, max_pixels: int) -> None:
    """Raise ValueError unless ``message`` is a JPEG or PNG of at most ``max_pixels`` by its
    header, whoever decodes it then.
    """
    _opened(message, max_pixels).close()


def _opened(message: CompressedImage, max_pixels: int) -> PillowImage.Image:
    try:
        picture = PillowImage.open(io.BytesIO(message.data), formats=('JPEG', 'PNG'))
    except PillowImage.DecompressionBombError as error:
        raise ValueError('is far larger than max_image_megapixels allows') from error
    except Exception as error:  # Pillow raises many types on foreign bytes
        raise ValueError(
            f'is no JPEG or PNG ({len(message.data)} bytes, format {message.format!r})'
        ) from error
    _require_at_most(max_pixels, picture.width, picture.height)
    return picture


def _from_compressed(message: CompressedImage, max_pixels: int) -> np.ndarray:
    with _opened(message, max_pixels) as picture:
        try:
            if picture.mode.startswith('I;16'):  # Pillow would cut the values off at 255
                return np.repeat((np.asarray(picture) >> 8).astype(np.uint8)[..., None], 3, axis=2)
            return np.asarray(picture.convert('RGB'))
        except Exception as error:
            raise ValueError(f'is a broken {picture.format}: {error}') from error


def _from_raw(message: Image, max_pixels: int) -> np.ndarray:
    _require_at_most(max_pixels, message.width, message.height)
    if message.encoding.startswith('bayer_'):
        return _from_bayer(message)
    if message.encoding not in _ENCODINGS:
        raise ValueError(f'has the encoding {message.encoding!r}, which is not supported')
    pixels = _pixels(message, *_ENCODINGS[message.encoding])
    if pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    order = (2, 1, 0) if message.encoding.startswith(('bgr', '8UC3')) else (0, 1, 2)
    return np.ascontiguousarray(pixels[..., order])


def _from_bayer(message: Image) -> np.ndarray:
    pattern, bits = message.encoding[6:10], message.encoding[10:]
    if pattern not in _BAYER or bits not in ('8', '16'):
        raise ValueError(f'has the encoding {message.encoding!r}, which is not supported')
    mosaic = _pixels(message, 'u1' if bits == '8' else 'u2', 1)
    return cv2.cvtColor(mosaic, getattr(cv2, f'COLOR_Bayer{_BAYER[pattern]}2RGB'))


def _pixels(message: Image, value_type: str, channels: int) -> np.ndarray:
    """Return (H, W, channels) uint8 without the padding at the end of each row."""
    value_type = np.dtype(('>' if message.is_bigendian else '<') + value_type)
    row_bytes = message.width * channels * value_type.itemsize
    if (
        not row_bytes
        or not message.height
        or message.step < row_bytes
        or len(message.data) < message.step * message.height
    ):
        size = f'{message.width}x{message.height} {message.encoding}, step {message.step}'
        raise ValueError(f'is said to be {size}, which does not fit its {len(message.data)} bytes')
    rows = np.frombuffer(message.data, np.uint8, message.step * message.height).reshape(
        message.height, message.step
    )
    pixels = (
        np.ascontiguousarray(rows[:, :row_bytes])
        .view(value_type)
        .reshape(message.height, message.width, channels)
    )
    return pixels if value_type.itemsize == 1 else (pixels >> 8).astype(np.uint8)


def intrinsics_from_info(message: CameraInfo, rectified: bool) -> Intrinsics:
    """Return what ``message`` says of the full image.

    Args:
        message: ``r`` is not looked at (some bags carry a singular one).
        rectified: the images are rectified: then P holds where it is filled in, otherwise K.

    Raises:
        ValueError: no usable matrix, worded to follow the camera's name.
    """
    distortion = (message.distortion_model, message.d)
    return _intrinsics(message.k, message.p, distortion, message.width, message.height, rectified)


def intrinsics_from_file(path: str | Path, rectified: bool) -> Intrinsics:
    """Return what a calibration file in the format of camera_calibration says; ``rectified`` as in
    ``intrinsics_from_info``.

    Raises:
        ValueError: not such a file, or no usable matrix.
        OSError: it cannot be read.
    """
    try:
        values = yaml.safe_load(Path(path).expanduser().read_text())
        k = np.array(values['camera_matrix']['data'], np.float64)
        p = np.array(values.get('projection_matrix', {}).get('data', [0.0] * 12), np.float64)
        coefficients = np.array(
            values.get('distortion_coefficients', {}).get('data', []), np.float64
        )
        distortion = (str(values.get('distortion_model', '')), coefficients)
        width, height = int(values['image_width']), int(values['image_height'])
    except (
        yaml.YAMLError,
        LookupError,
        TypeError,
        AttributeError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise ValueError(
            f'{path} is no calibration file as camera_calibration writes it: {error!r}'
        ) from error
    return _intrinsics(k, p, distortion, width, height, rectified)


def _intrinsics(k, p, distortion: tuple, width: int, height: int, rectified: bool) -> Intrinsics:
    k, p = np.asarray(k, np.float64), np.asarray(p, np.float64)
    if k.size != 9 or p.size != 12:
        raise ValueError(
            f'has a camera matrix of {k.size} and a projection matrix of {p.size} numbers, not 9 '
            'and 12'
        )
    projection = p.reshape(3, 4)[:, :3]
    for matrix in (projection, k.reshape(3, 3)) if rectified else (k.reshape(3, 3),):
        if _is_plausible(matrix, np.array((width, height))):
            return Intrinsics(
                matrix.copy(), width, height, None if rectified else _distortion(*distortion)
            )
    raise ValueError(f'is not calibrated: its camera matrix is {k.tolist()}')


def _is_plausible(matrix: np.ndarray, size: np.ndarray) -> bool:
    """Return whether a camera can have the matrix.

    The principal point may lie outside of an image that was cropped, by its (width, height)
    ``size`` where that is known; it is never the corner, which is what a matrix has that nobody
    filled in.
    """
    shortest, longest = FOCAL_PX
    focal, principal = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not (
        (np.abs(matrix) <= longest).all()
        and (focal >= shortest).all()
        and np.array_equal(matrix[2], (0, 0, 1))
    ):
        return False
    return bool(
        principal.any() and ((size == 0) | (np.abs(principal - size / 2) <= 1.5 * size)).all()
    )


def _distortion(model, coefficients) -> Distortion | None:
    coefficients = tuple(np.asarray(coefficients, np.float64).ravel().tolist())
    return Distortion(model, coefficients) if any(coefficients) else None
