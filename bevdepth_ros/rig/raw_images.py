"""Converts sensor_msgs/Image to RGB.

Images in a packed encoding are first converted to 8-bit values in rows without padding. Color
conversion is the second step.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

import cv2
import numpy as np
from sensor_msgs.msg import Image

from bevdepth_ros.rig.color_conversion import COLOR_CODES, rgb_from_message, rgb_from_pixels

BAYER_PATTERNS = ('rggb', 'bggr', 'gbrg', 'grbg')


@dataclass(frozen=True)
class Packed:
    """Encoding that stores the channels of a pixel next to each other.

    Attributes:
        meaning: 8-bit encoding with the same channels.
        channels: values per pixel.
        value_bytes: number of bytes per value, 1 or 2. If there are two, the upper byte is used.
    """

    meaning: str
    channels: int
    value_bytes: int = 1


@dataclass(frozen=True)
class Yuv:
    """YUV encoding of BT.601 in which 16 is black and 235 is white, as video cameras send it.

    Attributes:
        code: OpenCV's conversion to RGB.
        luma_bytes: bytes per pixel of the first plane.
        height_share: rows of the whole buffer per row of the image, as (numerator, denominator).
        even: (columns, rows) of the block of pixels that share one color.
    """

    code: int
    luma_bytes: int = 1
    height_share: tuple[int, int] = (1, 1)
    even: tuple[int, int] = (2, 1)


_UYVY = Yuv(cv2.COLOR_YUV2RGB_UYVY, 2)
_YUYV = Yuv(cv2.COLOR_YUV2RGB_YUY2, 2)

ENCODINGS: dict[str, Packed | Yuv] = {
    **{name: Packed(name, len(name) - 1) for name in ('rgb8', 'bgr8', 'rgba8', 'bgra8')},
    **{f'{name}16': Packed(f'{name}8', len(name), 2) for name in ('rgb', 'bgr', 'rgba', 'bgra')},
    'mono8': Packed('mono8', 1),
    'mono16': Packed('mono8', 1, 2),
    # The names of OpenCV's types do not give the order of the channels. As usual in OpenCV, blue
    # is assumed to be the first channel.
    **{
        f'{8 * value_bytes}UC{channels}': Packed(meaning, channels, value_bytes)
        for value_bytes in (1, 2)
        for channels, meaning in ((1, 'mono8'), (3, 'bgr8'), (4, 'bgra8'))
    },
    **{f'bayer_{pattern}8': Packed(f'bayer_{pattern}8', 1) for pattern in BAYER_PATTERNS},
    **{f'bayer_{pattern}16': Packed(f'bayer_{pattern}8', 1, 2) for pattern in BAYER_PATTERNS},
    'uyvy': _UYVY,
    'yuv422': _UYVY,
    'yuyv': _YUYV,
    'yuv422_yuy2': _YUYV,
    'nv12': Yuv(cv2.COLOR_YUV2RGB_NV12, 1, (3, 2), (2, 2)),
    'nv21': Yuv(cv2.COLOR_YUV2RGB_NV21, 1, (3, 2), (2, 2)),
    'nv24': Yuv(cv2.COLOR_YUV2RGB_YUY2, 1, (3, 1), (1, 1)),
}
"""Every encoding of sensor_msgs/image_encodings with a defined brightness or color. The other
encodings are signed, floating-point or two-channel values."""


class ImageTooLargeError(ValueError):
    """An image has more pixels than the caller allows."""


def require_at_most(max_pixels: int, width: int, height: int) -> None:
    """Raise ImageTooLargeError if an image has more than ``max_pixels``."""
    if width * height > max_pixels:
        raise ImageTooLargeError(f'is {width}x{height}, more than {max_pixels / 1e6:g} megapixels')


def image_from_raw(message: Image, max_pixels: int) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB. The array may share the memory of ``message``.

    Raises:
        ValueError: the image is invalid. In a report, the text of the exception follows the
            camera's name.
    """
    require_at_most(max_pixels, message.width, message.height)
    layout = ENCODINGS.get(message.encoding)
    if layout is None:
        nearest = difflib.get_close_matches(message.encoding.lower(), ENCODINGS, 1)
        hint = f' (did you mean {nearest[0]}?)' if nearest else ''
        raise ValueError(
            f'has the encoding {message.encoding!r}, which is not supported{hint}; publish one of '
            f'{", ".join(ENCODINGS)}'
        )
    if isinstance(layout, Yuv):
        return _from_yuv(message, layout)
    row_bytes = message.width * layout.channels * layout.value_bytes
    rows = _rows(message, message.step, message.height, row_bytes)
    if message.encoding in COLOR_CODES and message.step == row_bytes:
        return rgb_from_message(message)
    return rgb_from_pixels(_without_padding(rows[:, :row_bytes], message, layout), layout.meaning)


def _without_padding(rows: np.ndarray, message: Image, layout: Packed) -> np.ndarray:
    """Return (H, W, C) uint8 values of (H, N) ``rows`` without padding."""
    if layout.value_bytes == 2:
        rows = rows[:, 0 if message.is_bigendian else 1 :: 2]
    return np.ascontiguousarray(rows).reshape(message.height, message.width, layout.channels)


def _rows(message: Image, step: int, count: int, row_bytes: int) -> np.ndarray:
    """Return the first (count, step) bytes of the buffer. Raise ValueError if the size of the
    buffer or ``step`` does not fit the header.

    Bytes after the last row are ignored, unless their number is a multiple of the number of rows.
    In this case, ``step`` does not include the padding of the rows, and the image would be
    sheared.
    """
    padding, rest = divmod(len(message.data) - step * count, count or 1)
    has_wrong_step = padding < 0 or (padding > 0 and not rest)
    if not row_bytes or not count or step < row_bytes or has_wrong_step:
        size = f'{message.width}x{message.height} {message.encoding}, step {message.step}'
        raise ValueError(
            f'has a header for {size}, which does not fit its {len(message.data)} bytes; correct '
            'the header in its driver'
        )
    return np.frombuffer(message.data, np.uint8, step * count).reshape(count, step)


def _from_yuv(message: Image, layout: Yuv) -> np.ndarray:
    width, height = message.width, message.height
    if width % layout.even[0] or height % layout.even[1]:
        sides = 'width' if layout.even[1] == 1 else 'width and height'
        raise ValueError(f'is {width}x{height}, but {message.encoding} needs an even {sides}')
    times, divisor = layout.height_share
    count, row_bytes = height * times // divisor, width * layout.luma_bytes
    # Some drivers set the step of planar images to the size of all planes; the rows of such a
    # buffer have no padding.
    is_tight = len(message.data) == row_bytes * count
    rows = _rows(message, row_bytes if is_tight else message.step, count, row_bytes)
    if message.encoding == 'nv24':
        return _from_nv24(rows, width, height)
    tight = np.ascontiguousarray(rows[:, :row_bytes])
    return cv2.cvtColor(tight.reshape(count, width, layout.luma_bytes), layout.code)


def _from_nv24(rows: np.ndarray, width: int, height: int) -> np.ndarray:
    """Convert luma and full-size color to RGB.

    OpenCV does not support NV24. Each pixel is therefore written twice, as one pair of YUYV, and
    every second pixel of the result is used. The colors of one row of the image occupy two of the
    (3 * height, step) ``rows``.
    """
    luma = rows[:height, :width]
    color = rows[height:].reshape(height, -1)[:, : 2 * width].reshape(height, width, 2)
    pairs = np.stack((luma, color[..., 0], luma, color[..., 1]), axis=-1)
    doubled = cv2.cvtColor(pairs.reshape(height, 2 * width, 2), cv2.COLOR_YUV2RGB_YUY2)
    return np.ascontiguousarray(doubled[:, ::2])
