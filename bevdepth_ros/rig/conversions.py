"""Converts image messages and calibration files to arrays, without a node."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevdepth_ros.rig.compressed_images import DecodedImage, decode_compressed
from bevdepth_ros.rig.intrinsics import Intrinsics, intrinsics_from_info
from bevdepth_ros.rig.raw_images import image_from_raw


def image_from_message(message: CompressedImage | Image, max_pixels: int) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB. See ``decoded_image`` for the arguments and errors."""
    return np.asarray(decoded_image(message, max_pixels).pixels)


def decoded_image(
    message: CompressedImage | Image, max_pixels: int, min_width: int = 0
) -> DecodedImage:
    """Decode an image message.

    Args:
        message: a compressed or a raw image. Of 16-bit values, the upper byte is used.
        max_pixels: larger images are rejected before they are decoded.
        min_width: JPEG files may be decoded at a reduced size of at least this width, pixels. With
            0, JPEG files are always decoded at full size.

    Raises:
        ValueError: the image is invalid. The message begins with a verb, because the caller writes
            the camera's name before it.
    """
    if isinstance(message, CompressedImage):
        return decode_compressed(message, max_pixels, min_width)
    return DecodedImage(image_from_raw(message, max_pixels), message.width, message.height)


def intrinsics_from_file(path: str | Path, rectified: bool) -> Intrinsics:
    """Return the intrinsics in a YAML file in the format of camera_calibration.

    Raises:
        ValueError: the file has another format, or its calibration is invalid.
        OSError: the file cannot be read.
    """
    return intrinsics_from_info(info_from_file(path), rectified)


def info_from_file(path: str | Path) -> CameraInfo:
    """Return the CameraInfo that a driver would publish for this calibration file.

    Raises:
        ValueError: the file does not have the format of camera_calibration.
        OSError: the file cannot be read.
    """
    try:
        values = yaml.safe_load(Path(path).expanduser().read_text())
        return CameraInfo(
            width=_pixels(values['image_width']),
            height=_pixels(values['image_height']),
            distortion_model=str(values.get('distortion_model', '')),
            d=_numbers(values.get('distortion_coefficients', {'data': []})),
            k=_numbers(values['camera_matrix'], 9),
            r=_numbers(values.get('rectification_matrix', {'data': [0.0] * 9}), 9),
            p=_numbers(values.get('projection_matrix', {'data': [0.0] * 12}), 12),
        )
    except (
        yaml.YAMLError, LookupError, TypeError, AttributeError, ValueError, OverflowError,
        RecursionError,
    ) as error:  # fmt: skip
        raise ValueError(
            f'{path} is not a calibration file in the format of camera_calibration: {error!r}'
        ) from error


def _pixels(value: object) -> int:
    number = int(value)  # type: ignore[call-overload]
    if not 0 <= number < 2**32:
        raise ValueError(f'{number} is not a size in pixels')
    return number


def _numbers(matrix: dict, count: int | None = None) -> list[float]:
    """Return the values of a matrix. Raise ValueError if their number is not ``count``."""
    numbers = [float(value) for value in matrix['data']]
    if count is not None and len(numbers) != count:
        raise ValueError(f'a matrix has {len(numbers)} values, expected {count}')
    return numbers
