"""A simulated camera rig that publishes the topics of real drivers."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image as PillowImage
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from tests.ros.graph import wait_until
from tests.ros.messages import (
    compressed,
    encoded,
    noise_image,
    pinhole_info,
    raw,
    stamped,
    transform,
)

START_NS = 1_531_883_530_404_844_000
EXPOSURE_STEP_NS = 8_000_000
SIZE = (200, 352)
SPEED = 5.0
"""Speed of the vehicle, m/s along map x."""


def jpeg(seed: int = 0, size: tuple[int, int] = SIZE) -> bytes:
    """Return a JPEG file with random blocks; ``size`` is (height, width)."""
    return encoded(noise_image(seed, size[1], size[0]))


class Rig:
    """Publishes images, CameraInfo and tf of ``cameras`` from ``node``. Each kind of message has
    its own method, so that a test can leave out any kind.

    Attributes:
        cameras: names, in the order of exposure.
        images: image publisher of each camera.
        infos: CameraInfo publisher of each camera.
        tf, tf_static: publishers of these topics.
    """

    def __init__(
        self,
        node: Node,
        cameras: tuple[str, ...],
        image_type=CompressedImage,
        image_qos=10,
        image_topic: str = '/{camera}/image',
        info_qos: int | QoSProfile = 10,
    ):
        self.cameras, self._image_type = cameras, image_type
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.images = {
            camera: node.create_publisher(image_type, image_topic.format(camera=camera), image_qos)
            for camera in cameras
        }
        self.infos = {
            camera: node.create_publisher(CameraInfo, f'/{camera}/camera_info', info_qos)
            for camera in cameras
        }
        self.tf = node.create_publisher(TFMessage, '/tf', 100)
        self.tf_static = node.create_publisher(TFMessage, '/tf_static', latched)

    def wait_for_detector(self) -> None:
        """Wait until the active detector has subscribed to all topics of the rig."""
        publishers = [*self.images.values(), *self.infos.values(), self.tf, self.tf_static]
        wait_until(
            lambda: all(publisher.get_subscription_count() for publisher in publishers),
            'the subscriptions of the detector',
        )

    def stamps_ns(self, time_s: float) -> list[int]:
        """Return the exposure times of the cameras in the trigger cycle at ``time_s``."""
        return [
            START_NS + round(time_s * 1e9) + EXPOSURE_STEP_NS * index
            for index in range(len(self.cameras))
        ]

    def mean_stamp_ns(self, time_s: float) -> int:
        """Return the stamp that the detections of the trigger cycle at ``time_s`` must have."""
        stamps = self.stamps_ns(time_s)
        return stamps[0] + round(np.mean(np.subtract(stamps, stamps[0])))

    def send_extrinsics(self, frames: tuple[str, ...] | None = None) -> None:
        """Publish extrinsics of cameras that are mounted side by side and look forward."""
        transforms = []
        for index, frame in enumerate(self.cameras if frames is None else frames):
            position, quaternion = (1.5, 0.5 * index, 1.6), (-0.5, 0.5, -0.5, 0.5)
            transforms.append(transform('base_link', frame, START_NS, position, quaternion))
        self.tf_static.publish(TFMessage(transforms=transforms))

    def send_poses(self, time_s: float) -> None:
        """Publish the ego pose at the exposure time of each camera."""
        for stamp_ns in self.stamps_ns(time_s):
            x = SPEED * (stamp_ns - START_NS) * 1e-9
            self.tf.publish(
                TFMessage(transforms=[transform('map', 'base_link', stamp_ns, (x, 0, 0))])
            )

    def send_infos(
        self,
        time_s: float = 0.0,
        size: tuple[int, int] = SIZE,
        cameras: tuple[str, ...] | None = None,
        distortion=(0.0,) * 5,
    ) -> None:
        """Publish CameraInfo of ``cameras``, or of all cameras if ``cameras`` is None.
        ``distortion`` contains coefficients of the distortion model plumb_bob.
        """
        height, width = size
        k = (0.8 * width, 0.0, width / 2, 0.0, 0.8 * width, height / 2, 0.0, 0.0, 1.0)
        for camera, stamp_ns in zip(self.cameras, self.stamps_ns(time_s), strict=True):
            if cameras is None or camera in cameras:
                info = pinhole_info(k, width, height, distortion)
                self.infos[camera].publish(stamped(info, camera, stamp_ns))

    def send_images(
        self,
        time_s: float,
        cameras: tuple[str, ...] | None = None,
        data: dict[str, bytes] | None = None,
        stamp_ns: int | None = None,
    ) -> None:
        """Publish one image of each of ``cameras``, or of all cameras if ``cameras`` is None.
        ``data`` maps names of cameras to JPEG files that are published instead of the default
        files. ``stamp_ns`` replaces all stamps.
        """
        for index, (camera, exposure_ns) in enumerate(
            zip(self.cameras, self.stamps_ns(time_s), strict=True)
        ):
            if cameras is None or camera in cameras:
                image = self._image((data or {}).get(camera, jpeg(index)))
                image_ns = exposure_ns if stamp_ns is None else stamp_ns
                self.images[camera].publish(stamped(image, camera, image_ns))

    def _image(self, data: bytes) -> CompressedImage | Image:
        if self._image_type is CompressedImage:
            return compressed(data)
        return raw(np.asarray(PillowImage.open(io.BytesIO(data)))[..., ::-1])

    def send_all(self, time_s: float) -> None:
        """Publish all messages of one trigger cycle: first tf, then CameraInfo, then the
        images."""
        self.send_extrinsics()
        self.send_poses(time_s)
        self.send_infos(time_s)
        self.send_images(time_s)
