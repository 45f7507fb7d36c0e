"""Simulates six small cameras on a moving vehicle, with hooks that can change every message."""

from __future__ import annotations

import array
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from geometry_msgs.msg import TransformStamped
from PIL import Image as PillowImage
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S, nuscenes_like_rig

WIDTH, HEIGHT = 160, 90
RIG = nuscenes_like_rig(WIDTH, HEIGHT)
CAMERAS = RIG.names
EXPOSURE_ORDER = sorted(CAMERAS, key=EXPOSURE_OFFSET_S.get)
SPEED_M_S = 5.0
INFO_ROUNDS = 2
"""Trigger cycles per CameraInfo."""
TRIGGER_JITTER_S = 1e-4
"""Standard deviation of a stamp; without it, a clock that moves by a cycle would repeat stamps."""
SHORTEST_CYCLE_S = 0.06
"""In shorter trigger cycles, the cameras expose closer together."""
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def noise_image(seed: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Return an (H, W, 3) uint8 image of coarse noise."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (-(-height // 10), -(-width // 10), 3), np.uint8
    )
    return np.repeat(np.repeat(coarse, 10, 0), 10, 1)[:height, :width]


def encoded(pixels: np.ndarray, kind: str = 'JPEG') -> bytes:
    """Return the file that Pillow writes."""
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def compressed(data: bytes) -> CompressedImage:
    """Return a message without header."""
    return CompressedImage(format='jpeg', data=array.array('B', data))


def raw(pixels: np.ndarray, encoding: str = 'bgr8', **changes) -> Image:
    """Return a message without header; ``changes`` overwrite fields."""
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


def stamped(message, frame: str, stamp_ns: int):
    """Return ``message`` with its header filled in."""
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
    """Return a transform; ``quaternion`` is x, y, z, w."""
    message = stamped(TransformStamped(child_frame_id=child), parent, stamp_ns)
    position, rotation = message.transform.translation, message.transform.rotation
    position.x, position.y, position.z = map(float, translation)
    rotation.x, rotation.y, rotation.z, rotation.w = map(float, quaternion)
    return message


def camera_info(camera: str) -> CameraInfo:
    """Return the true calibration without header."""
    k = RIG.intrinsics[CAMERAS.index(camera)].ravel()
    return CameraInfo(width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=[0.0] * 5, k=k)


class Stream:
    """Publishes image sets of six cameras with CameraInfo and ego poses until closed.

    Attributes:
        image: receives camera and message, returns the messages to publish. None publishes the
            message unchanged, as for the next two.
        info: likewise for CameraInfo.
        pose: receives the ego pose, returns the transforms to publish.
        shift_ns: added to all stamps.
        period_s: the trigger cycle, seconds.
        rounds: {camera: stamp in ns} of all image sets, as they were published.
    """

    def __init__(self, node: Node):
        self._node = node
        self.image = self.info = self.pose = None
        self.shift_ns, self.period_s, self.raw = 0, 0.1, False
        self.rounds: list[dict[str, int]] = []
        self._random = np.random.default_rng(0)
        self._images = {camera: noise_image(seed) for seed, camera in enumerate(CAMERAS)}
        self._files = {camera: encoded(pixels) for camera, pixels in self._images.items()}
        self._compressed = {
            camera: node.create_publisher(CompressedImage, f'/{camera}/image', 10)
            for camera in CAMERAS
        }
        self._raw = {
            camera: node.create_publisher(Image, f'/{camera}/raw', 10) for camera in CAMERAS
        }
        self._infos = {
            camera: node.create_publisher(CameraInfo, f'/{camera}/camera_info', 10)
            for camera in CAMERAS
        }
        self._tf = node.create_publisher(TFMessage, '/tf', 100)
        self._static = node.create_publisher(TFMessage, '/tf_static', LATCHED)
        self.send_extrinsics()
        self._stopping, self._sending = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    @contextmanager
    def fault(self, **hooks) -> Iterator[None]:
        """Replace attributes in the body."""
        before = {name: getattr(self, name) for name in hooks}
        self._replace(hooks)
        try:
            yield
        finally:
            self._replace(before)

    def _replace(self, hooks: dict[str, object]) -> None:
        """Set attributes between two image sets."""
        with self._sending:
            for name, hook in hooks.items():
                setattr(self, name, hook)

    def now_ns(self) -> int:
        """Return the current time of the stream."""
        return time.time_ns() + self.shift_ns

    def send_extrinsics(self, change: Callable[[TransformStamped], None] | None = None) -> None:
        """Publish the extrinsics, each transform changed by ``change``."""
        transforms = []
        for camera, matrix in zip(CAMERAS, RIG.ego_from_camera, strict=True):
            quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat()
            transforms.append(
                transform('base_link', camera, self.now_ns(), matrix[:3, 3], quaternion)
            )
            if change is not None:
                change(transforms[-1])
        self._static.publish(TFMessage(transforms=transforms))

    def send_tf(self, *transforms: TransformStamped) -> None:
        """Publish on /tf."""
        self._tf.publish(TFMessage(transforms=list(transforms)))

    def send_image(self, camera: str, message) -> None:
        """Publish an image in addition to the stream."""
        (self._compressed if isinstance(message, CompressedImage) else self._raw)[camera].publish(
            message
        )

    def _run(self) -> None:
        """Send image sets with exact stamps: a busy machine delays images or loses whole sets, as
        a driver would, but does not disturb the trigger."""
        due_s = time.time()
        while not self._stopping.wait(max(0.0, due_s - time.time())):
            with self._sending:
                self._send_round(round(due_s * 1e9) + self.shift_ns)
            lost = (time.time() - due_s) // self.period_s
            due_s += self.period_s * max(1.0, lost)

    def _send_round(self, start_ns: int) -> None:
        share = min(1.0, self.period_s / SHORTEST_CYCLE_S)
        stamps = {
            camera: start_ns
            + round(1e9 * (share * EXPOSURE_OFFSET_S[camera] + TRIGGER_JITTER_S * noise))
            for camera, noise in zip(EXPOSURE_ORDER, self._random.normal(size=6), strict=True)
        }
        sent: dict[str, int] = {}
        self.rounds.append(sent)
        poses = [
            transform('map', 'base_link', stamp, (SPEED_M_S * (stamp % 10**12) * 1e-9, 0, 0))
            for stamp in stamps.values()
        ]
        self.send_tf(
            *(
                message
                for pose in poses
                for message in ([pose] if self.pose is None else self.pose(pose))
            )
        )
        if len(self.rounds) % INFO_ROUNDS == 0:
            self._send_infos(stamps)
        for camera, stamp_ns in stamps.items():
            pixels = raw(self._images[camera]) if self.raw else compressed(self._files[camera])
            image = stamped(pixels, camera, stamp_ns)
            for message in [image] if self.image is None else self.image(camera, image):
                sent[camera] = max(
                    sent.get(camera, 0),
                    message.header.stamp.sec * 10**9 + message.header.stamp.nanosec,
                )
                self.send_image(camera, message)

    def _send_infos(self, stamps: dict[str, int]) -> None:
        for camera, stamp_ns in stamps.items():
            info = stamped(camera_info(camera), camera, stamp_ns)
            for message in [info] if self.info is None else self.info(camera, info):
                self._infos[camera].publish(message)
