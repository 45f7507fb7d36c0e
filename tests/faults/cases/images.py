"""Compressed images that are damaged or unusual."""

from __future__ import annotations

import array
import os
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
from sensor_msgs.msg import CompressedImage

from tests.faults.bench import Bench
from tests.faults.cases.case import ALL, NOTHING, Case, without
from tests.faults.injections import FRONT, image_fault, setting
from tests.ros.camera_stream import HEIGHT, WIDTH
from tests.ros.messages import (
    compressed,
    encoded,
    noise_image,
    with_damage_inside,
    with_scans,
)


def file_fault(
    change: Callable[[bytes], bytes], *cameras: str
) -> Callable[[Bench], AbstractContextManager]:
    return image_fault(lambda message: compressed(change(bytes(message.data))), *cameras)


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header contains ``width`` and ``height`` instead of the true size."""
    data = bytearray(encoded(noise_image(0), 'PNG'))
    data[16:24] = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, 'big')
    return bytes(data)


def occasional_noise(bench: Bench) -> AbstractContextManager:
    count = iter(range(10**9))

    def hook(camera: str, message) -> list:
        if camera == FRONT and next(count) % 4 == 0:
            message.data = array.array('B', b'noise')
        return [message]

    return bench.stream.fault(image=hook)


def doubled(bench: Bench) -> AbstractContextManager:
    """Make CAM_FRONT publish images of twice the size, with the matching CameraInfo."""

    def twice(camera: str, info) -> list:
        if camera == FRONT:
            info.width, info.height, info.k = (
                2 * WIDTH,
                2 * HEIGHT,
                info.k * np.array((2, 1, 2, 1, 2, 2, 1, 1, 1)),
            )
        return [info]

    def image(camera: str, message) -> list:
        if camera == FRONT:
            message.data = array.array('B', encoded(noise_image(3, 2 * WIDTH, 2 * HEIGHT)))
        return [message]

    return bench.stream.fault(info=twice, image=image)


def unsized(width: int, height: int) -> Callable[[Bench], AbstractContextManager]:
    """Publish images of this size for CAM_FRONT, and CameraInfo without a size for all cameras."""

    def info(camera: str, message) -> list:
        message.width = message.height = 0
        return [message]

    def image(camera: str, message) -> list:
        if camera == FRONT:
            message.data = array.array('B', encoded(noise_image(3, width, height)))
        return [message]

    return lambda bench: bench.stream.fault(info=info, image=image)


def formatted(image_format: str, make: Callable[[], bytes], *cameras: str) -> Callable:
    """Return an injection that replaces each image by the file that ``make`` returns, and its
    format string by ``image_format``.
    """

    def change(message: CompressedImage) -> CompressedImage:
        return CompressedImage(format=image_format, data=array.array('B', make()))

    return image_fault(change, *cameras)


def progressive(scans: int) -> bytes:
    return with_scans(encoded(noise_image(3), progressive=True), scans)


def png_of_chunks(count: int) -> bytes:
    """Return a PNG with many empty text chunks."""
    data = encoded(noise_image(3), 'PNG')
    empty = b'\0\0\0\0tEXt' + zlib.crc32(b'tEXt').to_bytes(4, 'big')
    return data[:33] + empty * count + data[33:]


CASES = (
    Case(
        'Bayer mosaics in compressed images',
        formatted('bayer_rggb8; png compressed ', lambda: encoded(noise_image(3)[..., 0], 'PNG')),
    ),
    Case('TIFF in place of JPEG', file_fault(lambda data: encoded(noise_image(3), 'TIFF'), FRONT)),
    Case('WebP in place of JPEG', file_fault(lambda data: encoded(noise_image(3), 'WEBP'), FRONT)),
    Case(
        'JPEGs with damaged image data',
        file_fault(with_damage_inside, FRONT),
        without(FRONT),
        (
            'ERROR',
            'cameras',
            'image of CAM_FRONT on /CAM_FRONT/image is a damaged or unsupported JPEG',
        ),
    ),
    Case(
        'a JPEG of 1000 scans',
        file_fault(lambda data: progressive(1000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is a JPEG with 1000 scans, more than the allowed 20'),
    ),
    Case(
        'a PNG of 100,000 chunks',
        file_fault(lambda data: png_of_chunks(100_000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'with too many chunks'),
    ),
    Case(
        'H.264 in place of JPEG',
        formatted('h264', lambda: b'\0\0\0\1' * 100, FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'ros2 run image_transport republish ffmpeg raw'),
    ),
    Case(
        'truncated JPEGs',
        file_fault(lambda data: data[: len(data) // 2], FRONT),
        without(FRONT),
        (
            'ERROR',
            'cameras',
            'image of CAM_FRONT on /CAM_FRONT/image is a damaged or unsupported JPEG',
        ),
    ),
    Case(
        'noise in place of JPEGs',
        file_fault(lambda data: os.urandom(3000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is not a JPEG, PNG, TIFF or WebP file (3000 bytes'),
    ),
    Case(
        'empty images',
        file_fault(lambda data: b'', FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is not a JPEG, PNG, TIFF or WebP file (0 bytes'),
    ),
    Case(
        'all images are noise',
        file_fault(lambda data: os.urandom(3000)),
        NOTHING,
        ('ERROR', 'sets', '0 of 6 cameras can be used (none), min_cameras is 1'),
    ),
    Case(
        'every fourth image of a camera is invalid',
        occasional_noise,
        ALL,
        ('ERROR', 'cameras', 'is not a JPEG, PNG, TIFF or WebP file'),
    ),
    Case('the format string names another format', image_fault(setting(format='tiff; unknown'))),
    Case('PNG in place of JPEG', file_fault(lambda data: encoded(noise_image(3), 'PNG'), FRONT)),
    Case('gray JPEGs', file_fault(lambda data: encoded(noise_image(3)[..., 0]), FRONT)),
    Case(
        'the image size changes without its CameraInfo',
        file_fault(lambda data: encoded(noise_image(3, 320, 180)), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'camera CAM_FRONT is 320x180, but its calibration is for 160x90'),
    ),
    Case(
        'the image size changes together with its CameraInfo',
        doubled,
        tolerated='but its calibration is for',
    ),
    Case(
        'a PNG of 108 million pixels',
        file_fault(lambda data: png_claiming(12000, 9000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is 12000x9000, more than 20 megapixels'),
    ),
    Case(
        'a PNG of 4 billion pixels',
        file_fault(lambda data: png_claiming(65000, 65000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'has more than 178 megapixels'),
    ),
    Case(
        'images of one pixel, with CameraInfo without a size',
        unsized(1, 1),
        without(FRONT),
        ('ERROR', 'cameras', 'is 1x1 pixels; the shorter side must be'),
    ),
    Case(
        'images so narrow that enlarging them to the input width would fill the memory',
        unsized(16, 4000),
        without(FRONT),
        ('ERROR', 'cameras', 'is 16x4000 pixels; the shorter side must be'),
    ),
)
