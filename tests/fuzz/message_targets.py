"""Fuzzing targets that receive messages and parameters."""

from __future__ import annotations

import array
import io
import math
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import rclpy
from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import Odometry
from PIL import Image as PillowImage
from rclpy.node import Node
from rclpy.serialization import deserialize_message, serialize_message
from rclpy.time import Time
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from bevdepth_ros.bags.topics import HEAD_BYTES
from bevdepth_ros.detector.parameters import FIELDS, Settings
from bevdepth_ros.rig.conversions import image_from_message
from bevdepth_ros.rig.intrinsics import intrinsics_from_info
from bevdepth_ros.rig.tf_listener import matrix_from_transform, transform_from_odometry
from bevdepth_ros.rig.transforms import TransformMissingError, Transforms
from bevdepth_ros.rig.undistortion import undistortion_maps
from tests.fuzz.mutation import NUMBERS, damaged

ENCODINGS = (
    'rgb8', 'bgr8', 'rgba8', 'bgra8', '8UC3', 'rgb16', 'bgr16', 'rgba16', 'bgra16', 'mono8',
    '8UC1', 'mono16', '16UC1', 'bayer_rggb8',
    'bayer_bggr8', 'bayer_gbrg16', 'bayer_grbg16', 'bayer_', 'bayer_rggb', 'bayer_xxxx8', 'yuv422',
    'yuyv', 'nv12', 'nv21', 'nv24', '8UC4', '16UC3',
    '32FC1', '', 'RGB8', 'rgb8; jpeg',
)  # fmt: skip
MAX_PIXELS = 1_000_000
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-300,
    1e300,
    1e-9,
    1e9,
    160.0,
    math.nan,
    math.inf,
    -math.inf,
)
FRAMES = (
    'map',
    'base_link',
    'front',
    '',
    '/',
    'a b',
    'a: b',
    "'",
    '"',
    '{',
    '&a',
    '*a',
    '- x',
    '#',
    '\n',
    'é',
    'x' * 1000,
)


def _require_image(decoded: np.ndarray, width: int, height: int) -> None:
    assert decoded.shape == (height, width, 3)
    assert decoded.dtype == np.uint8


def raw_image(_: Path) -> Callable[[Random], bool]:
    def execute(rng: Random) -> bool:
        width, height = (
            rng.randint(0, 20) if rng.random() < 0.9 else rng.choice(NUMBERS) % 2**32
            for _ in range(2)
        )
        step = (
            rng.choice(
                (
                    width,
                    3 * width,
                    4 * width,
                    8 * width,
                    3 * width + rng.randint(0, 9),
                    rng.choice(NUMBERS),
                )
            )
            % 2**32
        )
        size = rng.choice((min(step * height, 5000), rng.randint(0, 3000), 0))
        message = Image(
            width=width,
            height=height,
            step=step,
            encoding=rng.choice(ENCODINGS),
            is_bigendian=rng.randrange(3),
        )
        message.data = array.array('B', rng.randbytes(size))
        try:
            _require_image(image_from_message(message, MAX_PIXELS), width, height)
        except ValueError:
            return False
        return True

    return execute


def _image_files() -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 4), np.uint8)
    files = []
    for mode, kind, options in (
        ('RGB', 'JPEG', {}), ('RGB', 'JPEG', {'progressive': True}), ('L', 'JPEG', {}), ('CMYK',
         'JPEG', {}), ('RGB', 'PNG', {}),
        ('RGBA', 'PNG', {}), ('P', 'PNG', {}), ('1', 'PNG', {}), ('I;16', 'PNG', {}),
        ('RGB', 'TIFF', {}), ('RGB', 'TIFF', {'compression': 'tiff_lzw'}), ('RGB', 'WEBP', {}),
    ):  # fmt: skip
        decoded = (
            PillowImage.fromarray(pixels[..., :3]).convert('L').convert('I').convert('I;16')
            if mode == 'I;16'
            else None
        )
        decoded = decoded or PillowImage.fromarray(pixels[..., :3]).convert(mode)
        buffer = io.BytesIO()
        decoded.save(buffer, kind, **options)
        files.append(buffer.getvalue())
    return files


IMAGE_WORDS = (
    b'\xff\xc0', b'\xff\xc2', b'\xff\xc4', b'\xff\xda', b'\xff\xd8', b'\xff\xd9',
    b'\xff\xe1\x00\x08Exif', b'IHDR', b'IDAT', b'IEND',
    b'iCCP', b'PLTE', b'tRNS', b'zTXt', b'eXIf', b'acTL', b'fdAT', b'\xff\xff\xff\xff', b'GIF89a',
    b'II*\x00', b'MPF\x00',
)  # fmt: skip


def compressed_image(_: Path) -> Callable[[Random], bool]:
    files = _image_files()

    def execute(rng: Random) -> bool:
        data = damaged(rng, rng.choice(files), IMAGE_WORDS)
        message = CompressedImage(
            format=rng.choice(
                ('jpeg', '', 'rgb8; jpeg compressed', 'bayer_rggb8; png compressed ', 'h264')
            ),
            data=array.array('B', data),
        )
        try:
            decoded = image_from_message(message, MAX_PIXELS)
        except ValueError:
            return False
        assert decoded.shape[0] * decoded.shape[1] <= MAX_PIXELS
        _require_image(decoded, decoded.shape[1], decoded.shape[0])
        return True

    return execute


def camera_info(_: Path) -> Callable[[Random], bool]:
    sound = (128.0, 0.0, 80.0, 0.0, 128.0, 48.0, 0.0, 0.0, 1.0)

    def some(rng: Random, values: tuple[float, ...]) -> list[float]:
        return [rng.choice(FLOATS) if rng.random() < 0.1 else value for value in values]

    def execute(rng: Random) -> bool:
        message = CameraInfo(
            width=rng.choice(NUMBERS) % 2**32,
            height=rng.choice((0, 96, 2**32 - 1)),
            k=some(rng, sound),
        )
        message.p = some(rng, (*sound[:3], 0.0, *sound[3:6], 0.0, *sound[6:], 0.0))
        message.d = [rng.choice(FLOATS) for _ in range(rng.choice((0, 1, 4, 5, 8, 12, 14, 100)))]
        message.distortion_model = rng.choice(
            ('', 'plumb_bob', 'rational_polynomial', 'equidistant', 'fisheye', 'x' * 1000)
        )
        try:
            found = intrinsics_from_info(message, rng.random() < 0.5)
        except ValueError:
            return False
        assert found.matrix.shape == (3, 3)
        assert np.isfinite(found.matrix).all()
        assert min(found.matrix[0, 0], found.matrix[1, 1]) > 0
        if found.distortion is not None and rng.random() < 0.2:
            assert all(
                map_.shape == (6, 10)
                for map_ in undistortion_maps(found.matrix, found.distortion, 10, 6)
            )
        return True

    return execute


def tf(_: Path) -> Callable[[Random], bool]:
    """Passes /tf, /tf_static and odometry messages with random and invalid values to the tf
    listener of a node.
    """
    rclpy.init()
    node = Node('fuzz', enable_rosout=False, start_parameter_services=False)
    current: list[Transforms] = []

    def fresh() -> Transforms:
        while current:
            current.pop().close()
        current.append(Transforms(node, 10.0, lambda kind, sentence: None, '/odometry'))
        return current[0]

    def execute(rng: Random) -> bool:
        transforms = fresh() if not current or rng.random() < 0.002 else current[0]
        message = _transform(rng)
        kind = rng.randrange(3)
        if kind == 0:
            transforms._listener.take_odometry(_odometry(message))
        else:
            take = (
                transforms._listener.callback
                if kind == 1
                else transforms._listener.static_callback
            )
            take(TFMessage(transforms=[message, _transform(rng)]))
        try:
            matrix = transforms.lookup_at(
                *rng.sample(FRAMES, 2), rng.choice((0, 10**9, 5 * 10**9)), rng.choice((0.0, 0.06))
            )
        except TransformMissingError:
            return False
        assert matrix.shape == (4, 4)
        assert np.isfinite(matrix).all()
        assert np.allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=0.01)
        return True

    return execute


def _transform(rng: Random) -> TransformStamped:
    message = TransformStamped(child_frame_id=rng.choice(FRAMES))
    message.header.frame_id = rng.choice(FRAMES)
    message.header.stamp.sec, message.header.stamp.nanosec = (
        rng.choice((0, 1, 5, -1, 2**31 - 1)),
        rng.choice((0, 10**9 - 1, 2**32 - 1)),
    )
    where, turn = message.transform.translation, message.transform.rotation
    where.x, where.y, where.z = (rng.choice((0.0, 1.0, rng.choice(FLOATS))) for _ in range(3))
    turn.x, turn.y, turn.z = (0.0 if rng.random() < 0.9 else rng.choice(FLOATS) for _ in range(3))
    turn.w = rng.choice((1.0, 1.0, rng.choice(FLOATS)))
    return message


def _odometry(transform: TransformStamped) -> Odometry:
    message = Odometry(header=transform.header, child_frame_id=transform.child_frame_id)
    message.pose.pose.orientation = transform.transform.rotation
    return message


def serialized(_: Path) -> Callable[[Random], bool]:
    """Deserializes damaged messages with ROS, and converts them as the node does."""
    image = CompressedImage(format='jpeg', data=array.array('B', bytes(50)))
    info = CameraInfo(width=160, height=96, distortion_model='plumb_bob', d=[0.0] * 5)
    raw = Image(width=4, height=4, encoding='rgb8', step=12, data=array.array('B', bytes(48)))
    poses = TFMessage(transforms=[TransformStamped(child_frame_id='base_link')] * 3)
    sound = [
        (type(message), serialize_message(message))
        for message in (image, info, raw, poses, Odometry(child_frame_id='base_link'))
    ]

    def execute(rng: Random) -> bool:
        kind, data = rng.choice(sound)
        data = damaged(rng, data)
        # ROS would crash this process if it deserialized such a short message. The bag readers
        # also reject these messages.
        if len(data) <= HEAD_BYTES:
            return False
        try:
            message = deserialize_message(data, kind)
        except Exception:  # such as RCLError; the executor of the node drops such a message
            return False
        try:
            if kind in (CompressedImage, Image):
                image_from_message(message, MAX_PIXELS)
            elif kind is CameraInfo:
                intrinsics_from_info(message, True)
            elif kind is TFMessage:
                [matrix_from_transform(each) for each in message.transforms[:10]]
            else:
                matrix_from_transform(transform_from_odometry(message))
            Time.from_msg(message.header.stamp) if kind is not TFMessage else None
        except (ValueError, OverflowError):
            return False
        return True

    return execute


def parameters(_: Path) -> Callable[[Random], bool]:
    names = sorted(FIELDS)
    texts = (
        '',
        'x',
        '/{camera}/image',
        '{camera',
        '{}',
        'front',
        'front',
        'x' * 300,
        '\n',
        'compressed',
        'raw',
        'auto',
    )

    def value(rng: Random, name: str):
        default = FIELDS[name].default
        if isinstance(default, tuple):
            return tuple(rng.choice(texts) for _ in range(rng.randint(0, 7)))
        return rng.choice(texts) if isinstance(default, str) else rng.choice((*FLOATS, *NUMBERS))

    def execute(rng: Random) -> bool:
        changes = {name: value(rng, name) for name in rng.sample(names, rng.randint(1, 6))}
        try:
            settings = Settings(**changes)
        except ValueError:
            return False
        assert len(settings.camera_sources) == len(settings.cameras)
        return True

    return execute
