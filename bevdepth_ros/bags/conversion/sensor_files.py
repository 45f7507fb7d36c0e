"""Writes messages as files of a dataset: images without distortion, and point clouds."""

from __future__ import annotations

import io
from pathlib import Path

import cv2
import numpy as np
from PIL import Image as PillowImage
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, Image, PointCloud2

from bevdepth_ros.bags.conversion.clouds import cloud_columns
from bevdepth_ros.rig.compressed_images import Format
from bevdepth_ros.rig.conversions import image_from_message
from bevdepth_ros.rig.intrinsics import Intrinsics
from bevdepth_ros.rig.undistortion import Undistorter

MAX_PIXELS = 50_000_000
"""Images with more pixels are left out."""
JPEG_QUALITY = 95


def write_image(
    path: Path,
    channel: str,
    data: bytes,
    is_compressed: bool,
    intrinsics: Intrinsics,
    undistort: Undistorter,
) -> None:
    """Write an image as a JPEG file, without lens distortion.

    If the camera has no lens distortion, the bytes of a color JPEG file are copied unchanged.

    Raises:
        ValueError: the image is damaged, too large, or does not fit its calibration.
    """
    message = deserialize_message(data, CompressedImage if is_compressed else Image)
    image = image_from_message(message, MAX_PIXELS)
    intrinsics.require_size(image)
    if intrinsics.distortion is not None:
        image = np.asarray(undistort(channel, image, intrinsics.matrix, intrinsics.distortion))
    elif is_compressed and _is_plain_jpeg(message):
        path.write_bytes(bytes(message.data))
        return
    bgr = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2BGR)
    _, encoded = cv2.imencode('.jpg', bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    path.write_bytes(encoded.tobytes())


def _is_plain_jpeg(message: CompressedImage) -> bool:
    """Return True if the message contains a color JPEG file, and decoding this file without the
    format string of the message gives the correct colors.
    """
    if Format.parse(message.format).is_swapped:
        return False
    with PillowImage.open(io.BytesIO(bytes(message.data))) as image:
        return image.format == 'JPEG' and image.mode == 'RGB'


def write_points(path: Path, data: bytes) -> None:
    """Write a point cloud in the format of nuScenes: x, y, z, intensity and ring as float32.

    Raises:
        ValueError: the cloud is damaged or has no x, y and z.
    """
    points = cloud_columns(deserialize_message(data, PointCloud2))
    points.astype(np.float32).tofile(path)
