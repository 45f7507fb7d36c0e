"""Creates Image and CameraInfo messages for the tests in this folder."""

from __future__ import annotations

import array

import numpy as np
from PIL import Image as PillowImage
from sensor_msgs.msg import CameraInfo, Image

LIMIT = 10**6
"""Value of ``max_pixels`` in most tests, that is, the maximum number of pixels per image."""
K = np.array([[1266.4, 0, 816.2], [0, 1266.4, 491.5], [0, 0, 1]])
P = np.array([[1200.0, 0, 800, 0], [0, 1210, 450, 0], [0, 0, 1, 0]])


def noise(height: int = 24, width: int = 40) -> np.ndarray:
    """Return a (height, width, 3) uint8 image of noise, the same on every call."""
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height: int = 120, width: int = 160) -> np.ndarray:
    """Return a (height, width, 3) uint8 image that JPEG compression changes only slightly."""
    coarse = PillowImage.fromarray(noise(6, 8))
    return np.asarray(coarse.resize((width, height), PillowImage.Resampling.BICUBIC))


def raw(
    encoding: str, rows: np.ndarray, width: int, padding: int = 0, bigendian: bool = False
) -> Image:
    """Return an Image that contains the array ``rows`` of shape (H, W, channels).

    ``padding`` bytes are added at the end of each row.
    """
    rows = rows.astype(rows.dtype.newbyteorder('>' if bigendian else '<'))
    lines = np.frombuffer(rows.tobytes(), np.uint8).reshape(len(rows), -1)
    lines = np.pad(lines, ((0, 0), (0, padding)), constant_values=77)
    return Image(
        height=len(rows),
        width=width,
        encoding=encoding,
        step=lines.shape[1],
        is_bigendian=bigendian,
        data=array.array('B', lines.tobytes()),
    )


def camera_info(k=K, p=P, d=(0.0,) * 5, size=(1600, 900), **fields) -> CameraInfo:
    """Return a CameraInfo. Without ``r`` in ``fields``, R is zero, as in some nuScenes bags."""
    width, height = size
    return CameraInfo(
        width=width,
        height=height,
        k=np.ravel(k),
        p=np.ravel(p),
        d=[float(value) for value in d],
        **fields,
    )
