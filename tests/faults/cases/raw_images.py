"""Raw images with supported encodings, and invalid raw images."""

from __future__ import annotations

import array
from contextlib import nullcontext

import numpy as np
from sensor_msgs.msg import Image

from tests.faults.cases.case import ALL, Case, without
from tests.faults.injections import FRONT, image_fault
from tests.ros.camera_stream import HEIGHT, WIDTH
from tests.ros.messages import raw

RAW = {'image_transport': 'raw', 'image_topics': ['/{camera}/raw']}


def pixels_of(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3)


def padded(message: Image) -> Image:
    rows = np.pad(pixels_of(message).reshape(HEIGHT, -1), ((0, 0), (0, 32)))
    return raw(rows[..., None], step=rows.shape[1], width=WIDTH)


def big_endian(message: Image) -> Image:
    values = (pixels_of(message).astype(np.uint16) * 256).astype('>u2')
    return raw(values, 'bgr16', is_bigendian=1)


def bayer(message: Image) -> Image:
    return raw(np.ascontiguousarray(pixels_of(message)[..., 0]), 'bayer_rggb8')


def yuyv(message: Image) -> Image:
    pixels = np.full((HEIGHT, WIDTH, 2), 128, np.uint8)
    pixels[..., 0] = pixels_of(message)[..., 1]
    return raw(pixels, 'yuyv')


def nv12(message: Image) -> Image:
    color = np.full((HEIGHT // 2, WIDTH), 128, np.uint8)
    planes = np.concatenate((pixels_of(message)[..., 1], color))
    return raw(planes, 'nv12', height=HEIGHT, step=WIDTH)


CASES = (
    Case('raw images', lambda bench: nullcontext(), ALL, None, RAW),
    Case('raw images with padded rows', image_fault(padded), ALL, None, RAW),
    Case('raw 16-bit images in big-endian order', image_fault(big_endian), ALL, None, RAW),
    Case('raw Bayer images', image_fault(bayer), ALL, None, RAW),
    Case('raw YUV 4:2:2 images', image_fault(yuyv), ALL, None, RAW),
    Case('raw NV12 images', image_fault(nv12), ALL, None, RAW),
    Case(
        'an unknown encoding',
        image_fault(lambda m: raw(pixels_of(m), '32FC3'), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', "has the encoding '32FC3', which is not supported; publish one of"),
        RAW,
    ),
    Case(
        'a step that is too small',
        image_fault(lambda m: raw(pixels_of(m), step=10), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'does not fit its'),
        RAW,
    ),
    Case(
        'raw images without data',
        image_fault(lambda m: raw(pixels_of(m), data=array.array('B')), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'does not fit its 0 bytes'),
        RAW,
    ),
    Case(
        'a raw image that claims 4 billion pixels',
        image_fault(lambda m: raw(pixels_of(m), width=65000, height=65000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is 65000x65000, more than 20 megapixels'),
        RAW,
    ),
)
