"""Builds the messages that a camera rig publishes."""

from __future__ import annotations

import array
import io

import numpy as np
from geometry_msgs.msg import TransformStamped
from PIL import Image as PillowImage
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image


def noise_image(seed: int, width: int = 160, height: int = 90) -> np.ndarray:
    """Return an (H, W, 3) uint8 image of blocks of 8x8 pixels with random colors."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 8), -(-width // 8), 3), np.uint8
    )
    return np.repeat(np.repeat(coarse, 8, 0), 8, 1)[:height, :width]


def encoded(pixels: np.ndarray, kind: str = 'JPEG', **options) -> bytes:
    """Return the bytes of an image file that Pillow writes for ``pixels``."""
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def with_claimed_size(image: bytes, width: int, height: int) -> bytes:
    """Return the baseline JPEG ``image`` with ``width`` and ``height`` in its header. The image
    data do not change.
    """
    place = image.index(b'\xff\xc0') + 5
    return (
        image[:place] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + image[place + 4 :]
    )


def with_damage_inside(jpeg: bytes) -> bytes:
    """Return a JPEG with invalid bytes in the middle of its image data."""
    start = jpeg.index(b'\xff\xda')
    middle = start + (len(jpeg) - start) // 2
    return jpeg[:middle] + b'\xff\x00' * 20 + jpeg[middle + 40 :]


def with_scans(jpeg: bytes, count: int) -> bytes:
    """Append copies of the last scan to a progressive JPEG, so that it has ``count`` scans."""
    last, missing = jpeg.rindex(b'\xff\xda'), count - jpeg.count(b'\xff\xda')
    return jpeg[:-2] + jpeg[last:-2] * missing + jpeg[-2:]


def compressed(data: bytes, image_format: str = 'jpeg') -> CompressedImage:
    """Return a CompressedImage with an empty header."""
    return CompressedImage(format=image_format, data=array.array('B', data))


def raw(pixels: np.ndarray, encoding: str = 'bgr8', **changes) -> Image:
    """Return an Image with an empty header; ``changes`` replace fields."""
    height, width = pixels.shape[:2]
    message = Image(
        height=height,
        width=width,
        encoding=encoding,
        step=pixels.nbytes // height,
        data=array.array('B', pixels.tobytes()),
    )
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def pinhole_info(
    k: np.ndarray, width: int, height: int, distortion: tuple[float, ...] = (0.0,) * 5
) -> CameraInfo:
    """Return a CameraInfo with an empty header.

    ``k`` has 9 values; ``distortion`` has the coefficients of the model plumb_bob.
    """
    return CameraInfo(
        width=width, height=height, distortion_model='plumb_bob', d=distortion, k=np.ravel(k)
    )


def stamped(message, frame: str, stamp_ns: int):
    """Set frame_id and stamp in the header of ``message``, and return the message."""
    message.header.frame_id = frame
    message.header.stamp = Time(nanoseconds=stamp_ns).to_msg()
    return message


def transform(
    parent: str,
    child: str,
    stamp_ns: int,
    translation=(0.0, 0.0, 0.0),
    quaternion=(0.0, 0.0, 0.0, 1.0),
) -> TransformStamped:
    """Return the pose of ``child`` in ``parent``.

    ``translation`` is in meters; ``quaternion`` has the order x, y, z, w.
    """
    message = stamped(TransformStamped(child_frame_id=child), parent, stamp_ns)
    position, rotation = message.transform.translation, message.transform.rotation
    position.x, position.y, position.z = map(float, translation)
    rotation.x, rotation.y, rotation.z, rotation.w = map(float, quaternion)
    return message
