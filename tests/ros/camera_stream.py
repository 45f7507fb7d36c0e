"""Simulates six cameras with small images on a moving vehicle. Hooks can change every message."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S, nuscenes_like_rig
from bevdepth_ros.rig.stamps import stamp_ns
from tests.ros.camera_rig import SPEED, Rig
from tests.ros.messages import (
    compressed,
    encoded,
    noise_image,
    pinhole_info,
    raw,
    stamped,
    transform,
)

WIDTH, HEIGHT = 160, 90
RIG = nuscenes_like_rig(WIDTH, HEIGHT)
CAMERAS = RIG.names
EXPOSURE_ORDER = sorted(CAMERAS, key=EXPOSURE_OFFSET_S.get)
CYCLES_PER_INFO = 2
"""CameraInfo messages are published once in this number of trigger cycles."""
TRIGGER_JITTER_S = 1e-4
"""Standard deviation of the noise of each stamp, seconds. Without noise, a clock that jumps back
by exactly one cycle would repeat stamps."""
ORIGIN_NS = time.time_ns()
"""Stamp at which the vehicle is at the origin of ``map``. Like the frame ``map`` of a robot, it is
the same for all streams of a process."""
FULL_OFFSETS_CYCLE_S = 0.06
"""Shortest trigger cycle with the exposure offsets of nuScenes, seconds. In shorter cycles, the
offsets are scaled down."""


def camera_info(camera: str) -> CameraInfo:
    """Return the true calibration of ``camera``, without header."""
    return pinhole_info(RIG.intrinsics[CAMERAS.index(camera)], WIDTH, HEIGHT)


class Stream:
    """Publishes image sets of six cameras with CameraInfo and ego poses until closed.

    Attributes:
        image: function of camera and message that returns the messages to publish; None: the
            message is published unchanged.
        info: same as ``image``, for CameraInfo messages.
        pose: function of the ego pose that returns the transforms to publish; None: the ego pose
            is published unchanged.
        shift_ns: time that is added to all stamps, nanoseconds.
        period_s: length of the trigger cycle, seconds.
        raw: whether raw images are published instead of JPEG files.
        rounds: for each image set, the newest published stamp of each camera in nanoseconds.
        exposures_ns: times of the first and the last exposure of each image set.
    """

    def __init__(self, node: Node, period_s: float = 0.1):
        self.image = self.info = self.pose = None
        self.shift_ns, self.period_s, self.raw = 0, period_s, False
        self.rounds: list[dict[str, int]] = []
        self.exposures_ns: list[tuple[int, int]] = []
        self._random = np.random.default_rng(0)
        self._images = {
            camera: noise_image(seed, WIDTH, HEIGHT) for seed, camera in enumerate(CAMERAS)
        }
        self._files = {camera: encoded(pixels) for camera, pixels in self._images.items()}
        self._rig = Rig(node, CAMERAS)
        self._raw = {
            camera: node.create_publisher(Image, f'/{camera}/raw', 10) for camera in CAMERAS
        }
        self.send_extrinsics()
        self._stopping, self._sending = threading.Event(), threading.Lock()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    @contextmanager
    def fault(self, **hooks) -> Iterator[None]:
        """Replace attributes of the stream inside the ``with`` block."""
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
        """Return the system time plus ``shift_ns``."""
        return time.time_ns() + self.shift_ns

    def send_extrinsics(self, change: Callable[[TransformStamped], None] | None = None) -> None:
        """Publish the extrinsics, after ``change`` has modified each transform."""
        transforms = []
        for camera, matrix in zip(CAMERAS, RIG.ego_from_camera, strict=True):
            quaternion = Rotation.from_matrix(matrix[:3, :3]).as_quat()
            transforms.append(
                transform('base_link', camera, self.now_ns(), matrix[:3, 3], quaternion)
            )
            if change is not None:
                change(transforms[-1])
        self._rig.tf_static.publish(TFMessage(transforms=transforms))

    def send_tf(self, *transforms: TransformStamped) -> None:
        """Publish ``transforms`` on /tf."""
        self._rig.tf.publish(TFMessage(transforms=list(transforms)))

    def send_image(self, camera: str, message) -> None:
        """Publish an image of a camera, compressed or raw."""
        publishers = self._rig.images if isinstance(message, CompressedImage) else self._raw
        publishers[camera].publish(message)

    def _run(self) -> None:
        """Send image sets until the stream is closed.

        The stamps are the times of a regular trigger, not the times of publication. On a busy
        machine, images arrive late or whole sets are lost, as with a real driver, but stamps stay
        regular.
        """
        due_s = time.time()
        while not self._stopping.wait(max(0.0, due_s - time.time())):
            with self._sending:
                self._send_set(round(due_s * 1e9) + self.shift_ns)
            lost = (time.time() - due_s) // self.period_s
            due_s += self.period_s * max(1.0, lost)

    def _send_set(self, start_ns: int) -> None:
        share = min(1.0, self.period_s / FULL_OFFSETS_CYCLE_S)
        stamps = {
            camera: start_ns
            + round(1e9 * (share * EXPOSURE_OFFSET_S[camera] + TRIGGER_JITTER_S * noise))
            for camera, noise in zip(EXPOSURE_ORDER, self._random.normal(size=6), strict=True)
        }
        sent: dict[str, int] = {}
        self.rounds.append(sent)
        self.exposures_ns.append((min(stamps.values()), max(stamps.values())))
        poses = [
            transform('map', 'base_link', stamp, (SPEED * (stamp - ORIGIN_NS) * 1e-9, 0, 0))
            for stamp in stamps.values()
        ]
        self.send_tf(
            *(
                message
                for pose in poses
                for message in ([pose] if self.pose is None else self.pose(pose))
            )
        )
        if len(self.rounds) % CYCLES_PER_INFO == 0:
            self._send_infos(stamps)
        for camera, exposure_ns in stamps.items():
            content = raw(self._images[camera]) if self.raw else compressed(self._files[camera])
            image = stamped(content, camera, exposure_ns)
            for message in [image] if self.image is None else self.image(camera, image):
                sent[camera] = max(sent.get(camera, 0), stamp_ns(message))
                self.send_image(camera, message)

    def _send_infos(self, stamps: dict[str, int]) -> None:
        for camera, exposure_ns in stamps.items():
            info = stamped(camera_info(camera), camera, exposure_ns)
            for message in [info] if self.info is None else self.info(camera, info):
                self._rig.infos[camera].publish(message)
