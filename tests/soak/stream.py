"""Publishes six cameras at 12 Hz with CameraInfo, tf and ego poses, with the faults of a
condition."""

from __future__ import annotations

import array
import dataclasses
import io
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import TransformStamped
from PIL import Image as PillowImage
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage

CAMERAS = ('front_left', 'front', 'front_right', 'back_left', 'back', 'back_right')
SIZE = (160, 96)
"""Width and height of the images."""
RATE_HZ = 12.0
EXPOSURE_STEP_S = 0.006
"""Time from the exposure of one camera to that of the next camera."""
SPEED = 5.0
"""Speed of the vehicle, m/s along map x."""


def jpeg(seed: int = 0, size: tuple[int, int] = SIZE) -> bytes:
    """Return an image of colored blocks; ``size`` is (width, height)."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (size[1] // 8, size[0] // 8, 3), np.uint8
    )
    buffer = io.BytesIO()
    PillowImage.fromarray(np.repeat(np.repeat(coarse, 8, 0), 8, 1)).save(buffer, 'JPEG')
    return buffer.getvalue()


def with_claimed_size(image: bytes, width: int, height: int) -> bytes:
    """Return a baseline JPEG whose header claims another size than its content has."""
    place = image.index(b'\xff\xc0') + 5
    return (
        image[:place] + height.to_bytes(2, 'big') + width.to_bytes(2, 'big') + image[place + 4 :]
    )


@dataclass(frozen=True)
class Condition:
    """The faults of the stream; none by default.

    Attributes:
        silent: cameras that send nothing.
        images: bytes that a camera sends in place of its JPEG.
        shift_s: error of the stamps of a camera, seconds.
        unstamped: cameras whose stamps are zero.
        all_shift_s: error of all stamps, including those of tf, seconds.
        copies: number of times each message is sent.
        rate_hz: rounds per second.
        rotation: x, y, z, w of the ego poses.
        poses: whether ego poses are sent.
        focal: focal length in CameraInfo, pixels.
        info_size: width and height in CameraInfo.
        distortion: d of CameraInfo.
    """

    silent: frozenset[str] = frozenset()
    images: dict[str, bytes] = field(default_factory=dict)
    shift_s: dict[str, float] = field(default_factory=dict)
    unstamped: frozenset[str] = frozenset()
    all_shift_s: float = 0.0
    copies: int = 1
    rate_hz: float = RATE_HZ
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    poses: bool = True
    focal: float = 0.8 * SIZE[0]
    info_size: tuple[int, int] = SIZE
    distortion: tuple[float, ...] = (0.0,) * 5


class Stream:
    """Publishes in a thread of its own until ``close``.

    Attributes:
        condition: replaced as a whole from outside.
        rounds: first and last stamp of the latest rounds, seconds.
        sent: rounds so far.
    """

    def __init__(self, node: Node) -> None:
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.condition = Condition()
        self.rounds: deque[tuple[float, float]] = deque(maxlen=600)
        self.sent = 0
        self._node = node
        self._files = {camera: jpeg(seed) for seed, camera in enumerate(CAMERAS)}
        self._images = {
            camera: node.create_publisher(CompressedImage, f'/{camera}/image', 5)
            for camera in CAMERAS
        }
        self._infos = {
            camera: node.create_publisher(CameraInfo, f'/{camera}/camera_info', 5)
            for camera in CAMERAS
        }
        self._tf = node.create_publisher(TFMessage, '/tf', 100)
        self._tf_static = node.create_publisher(TFMessage, '/tf_static', latched)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name='stream', daemon=True)

    def start(self) -> None:
        """Publish the extrinsics and start the thread."""
        self._tf_static.publish(
            TFMessage(transforms=[_mount(index, camera) for index, camera in enumerate(CAMERAS)])
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        """Send image sets with exact stamps: a busy machine delays images or loses whole sets, as
        a driver would, but does not disturb the trigger."""
        due_s = time.time()
        while not self._ending.wait(max(0.0, due_s - time.time())):
            condition = self.condition
            self._send_round(condition, due_s + condition.all_shift_s)
            period_s = 1 / condition.rate_hz
            due_s += period_s * max(1.0, (time.time() - due_s) // period_s)

    def _send_round(self, condition: Condition, begin_s: float) -> None:
        stamps = [begin_s + index * EXPOSURE_STEP_S for index in range(len(CAMERAS))]
        self.rounds.append((stamps[0], stamps[-1]))
        for camera, stamp_s in zip(CAMERAS, stamps, strict=True):
            if condition.poses:
                self._tf.publish(TFMessage(transforms=[_pose(stamp_s, condition.rotation)]))
            if camera not in condition.silent:
                self._send_camera(condition, camera, stamp_s + condition.shift_s.get(camera, 0.0))
        self.sent += 1

    def _send_camera(self, condition: Condition, camera: str, stamp_s: float) -> None:
        image = CompressedImage(
            format='jpeg',
            data=array.array('B', condition.images.get(camera, self._files[camera])),
        )
        image.header.frame_id = camera
        image.header.stamp = Time() if camera in condition.unstamped else _time(stamp_s)
        width, height = condition.info_size
        k = (condition.focal, 0.0, width / 2, 0.0, condition.focal, height / 2, 0.0, 0.0, 1.0)
        info = CameraInfo(
            header=image.header,
            width=width,
            height=height,
            distortion_model='plumb_bob',
            d=list(condition.distortion),
            k=k,
        )
        for _ in range(condition.copies):
            self._infos[camera].publish(info)
            self._images[camera].publish(image)


def healthy(**changes) -> Condition:
    """Return a condition whose only faults are ``changes``."""
    return dataclasses.replace(Condition(), **changes)


def _time(stamp_s: float) -> Time:
    fraction, whole = math.modf(stamp_s)
    return Time(sec=int(whole), nanosec=int(fraction * 1e9))


def _pose(stamp_s: float, rotation: tuple[float, float, float, float]) -> TransformStamped:
    pose = TransformStamped(child_frame_id='base_link')
    pose.header.frame_id, pose.header.stamp = 'map', _time(stamp_s)
    pose.transform.translation.x = SPEED * (stamp_s % 3600)
    turn = pose.transform.rotation
    turn.x, turn.y, turn.z, turn.w = rotation
    return pose


def _mount(index: int, camera: str) -> TransformStamped:
    """Return a camera that looks 60 degrees further to the right than the one before, level."""
    mount = TransformStamped(child_frame_id=camera)
    mount.header.frame_id, mount.header.stamp = 'base_link', _time(time.time())
    mount.transform.translation.x, mount.transform.translation.z = 1.5, 1.6
    half = -math.radians(60 * index) / 2
    turn = mount.transform.rotation
    # The optical axes (x right, y down, z ahead) of a camera that looks along x, turned about z.
    ahead = np.array((0.5, -0.5, 0.5, -0.5))
    yaw = np.array((math.cos(half), 0.0, 0.0, math.sin(half)))
    turn.w, turn.x, turn.y, turn.z = (float(value) for value in _product(yaw, ahead))
    return mount


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the product of two quaternions w x y z."""
    scalar = a[0] * b[0] - a[1:] @ b[1:]
    return np.concatenate(([scalar], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])))
