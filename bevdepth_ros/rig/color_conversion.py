"""Converts images to RGB and to outgoing messages, with cv_bridge, or with OpenCV where cv_bridge
fails.

cv_bridge has these errors, which this module avoids:

* PyPI 1.13.0.post0 ignores ``step`` and raises KeyError for 16-bit and YUV encodings and for
  ``bayer_grbg8``. The C++ version of Humble (3.2) and Jazzy (4.1) reads wrong rows if ``step`` is
  not a multiple of the size of a pixel, and does not support nv12 and nv24. So cv_bridge converts
  only 8-bit images without row padding, and OpenCV converts all other images (see ``raw_images``).
* The C++ version is built for one major version of numpy, and cannot be imported together with
  another major version (vision_opencv issue 535). In this case, OpenCV converts all images, and
  the log contains the reason.
* ``cv2_to_compressed_imgmsg`` has no parameter for the JPEG quality in any version.
  ``jpeg_message`` therefore uses OpenCV.
"""

from __future__ import annotations

import array
import logging
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

logger = logging.getLogger(__name__)

COLOR_CODES = {
    'rgb8': None,
    'bgr8': cv2.COLOR_BGR2RGB,
    'rgba8': cv2.COLOR_RGBA2RGB,
    'bgra8': cv2.COLOR_BGRA2RGB,
    'mono8': cv2.COLOR_GRAY2RGB,
    # ROS names a Bayer pattern by the first two pixels of the first two rows. OpenCV names the
    # same pattern by the second and third pixel of the second row.
    'bayer_rggb8': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr8': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg8': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg8': cv2.COLOR_BayerGB2RGB,
}
"""Maps each encoding of 8-bit pixels to OpenCV's conversion to RGB, and rgb8 to None."""


def load_cv_bridge() -> Any | None:
    """Return a ``cv_bridge.CvBridge``. If it cannot be used, log the reason and return None."""
    try:
        from cv_bridge import CvBridge

        bridge = CvBridge()
        # The compiled part of the C++ version is only loaded by the first conversion.
        probe = Image(height=1, width=1, encoding='bgr8', step=3, data=[1, 2, 3])
        if bridge.imgmsg_to_cv2(probe, 'rgb8').ravel().tolist() != [3, 2, 1]:
            raise ValueError('cv_bridge does not convert bgr8 to rgb8')
    except Exception as error:  # a version that does not fit numpy raises errors of many types
        logger.warning('OpenCV converts images, since cv_bridge cannot be used: %r', error)
        return None
    return bridge


_BRIDGE = load_cv_bridge()


def rgb_from_message(message: Image, bridge: Any | None = _BRIDGE) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of a raw image without padding.

    Args:
        message: its encoding is one of ``COLOR_CODES``, and its rows have no padding. The result
            may share memory with the message.
        bridge: converts the image; if it is None, OpenCV converts the image.
    """
    if bridge is not None and message.encoding != 'bayer_grbg8':
        return bridge.imgmsg_to_cv2(message, 'rgb8')
    pixels = np.frombuffer(message.data, np.uint8, message.height * message.step)
    pixels = pixels.reshape(message.height, message.width, -1)
    return rgb_from_pixels(pixels, message.encoding)


def rgb_from_pixels(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of (H, W) or (H, W, C) ``pixels`` in one of ``COLOR_CODES``."""
    code = COLOR_CODES[encoding]
    return pixels if code is None else cv2.cvtColor(pixels, code)


def image_message(image: np.ndarray, header: Header, bridge: Any | None = _BRIDGE) -> Image:
    """Return the (H, W, 3) uint8 RGB ``image`` as a raw image, encoded as rgb8."""
    if bridge is not None:
        message = bridge.cv2_to_imgmsg(image, 'rgb8')
    else:
        height, width = image.shape[:2]
        message = Image(height=height, width=width, encoding='rgb8', step=3 * width)
        message.data.frombytes(np.ascontiguousarray(image))
    message.header = header
    return message


def jpeg_message(image: np.ndarray, header: Header, quality: int) -> CompressedImage:
    """Return the (H, W, 3) uint8 RGB ``image`` as a JPEG of this ``quality``, 1 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, file = cv2.imencode('.jpg', bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))
    data = array.array('B', file.tobytes())
    return CompressedImage(header=header, format='rgb8; jpeg compressed bgr8', data=data)
