"""Writes bags with two images of one camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import zstandard

from bevdepth_ros.bags import messages
from bevdepth_ros.bags.messages import Annotated
from bevdepth_ros.bags.writer import BagWriter

START_NS = 1_000_000_000_000
PERIOD_NS = 500_000_000
MATRIX = np.array([[60.0, 0, 40], [0, 60, 30], [0, 0, 1]])


def write_small_bag(
    path: Path,
    *,
    camera: str = 'front',
    info: bool = True,
    mount: bool = True,
    pose: bool = True,
    odometry: bool = False,
    coefficients: tuple[float, ...] = (),
    scores: Sequence[float] = (),
    storage: str = 'mcap',
) -> np.ndarray:
    """Write a bag with two equal raw images, half a second apart, and without point clouds.
    Return the pixels of one image.

    Args:
        path: path of the bag.
        camera: name of the camera and of its tf frame.
        info: True to write CameraInfo.
        mount: True to write the extrinsics to /tf_static.
        pose: True to write the ego poses to /tf.
        odometry: True to write two ego poses, 3 m apart, to /odom.
        coefficients: distortion coefficients.
        scores: scores of the detections that are written for each image.
        storage: ``mcap`` or ``sqlite3``.
    """
    stripes = 127 + 120 * np.sin(np.arange(80) / 2)
    pixels = np.broadcast_to(stripes[:, None], (60, 80, 3)).astype(np.uint8)
    with BagWriter(path, storage) as bag:
        if mount:
            bag.write_mounts({camera: np.eye(4)}, START_NS)
        for number in range(2):
            stamp = START_NS + number * PERIOD_NS
            if pose:
                bag.write_ego_pose(stamp, np.eye(4))
            if odometry:
                bag.write('/odom', _ODOMETRY, stamp, _odometry(stamp, 3.0 * number))
            if info:
                message = messages.camera_info(stamp, camera, MATRIX, 80, 60)
                message.d = np.array((*coefficients, *(0.0,) * (5 - len(coefficients))))
                bag.write(f'/{camera}/camera_info', 'sensor_msgs/msg/CameraInfo', stamp, message)
            if scores:
                bag.write('/boxes', _DETECTIONS, stamp, _detections(stamp, scores))
            image = messages.raw_image(stamp, camera, pixels)
            bag.write(f'/{camera}/image_raw', 'sensor_msgs/msg/Image', stamp, image)
    return pixels


_ODOMETRY, _DETECTIONS = 'nav_msgs/msg/Odometry', 'vision_msgs/msg/Detection3DArray'


def _odometry(stamp_ns: int, x: float) -> object:
    still = messages.message(
        'geometry_msgs/msg/Twist',
        linear=messages.vector('Vector3', (0, 0, 0)),
        angular=messages.vector('Vector3', (0, 0, 0)),
    )
    covariance = np.zeros(36)
    return messages.message(
        _ODOMETRY,
        header=messages.header(stamp_ns, 'odom'),
        child_frame_id='base_link',
        pose=messages.message(
            'geometry_msgs/msg/PoseWithCovariance',
            pose=messages.pose((x, 0, 0), (1, 0, 0, 0)),
            covariance=covariance,
        ),
        twist=messages.message(
            'geometry_msgs/msg/TwistWithCovariance', twist=still, covariance=covariance
        ),
    )


def _detections(stamp_ns: int, scores: Sequence[float]) -> object:
    count = len(scores)
    centers = np.column_stack((10.0 + np.arange(count), np.zeros(count), np.zeros(count)))
    boxes = Annotated(
        centers,
        np.ones((count, 3)),
        np.tile((1.0, 0, 0, 0), (count, 1)),
        ('car',) * count,
        tuple(f'object {number}' for number in range(count)),
    )
    array = messages.detection_array(stamp_ns, 'base_link', boxes)
    for detection, score in zip(array.detections, scores, strict=True):
        detection.results[0].hypothesis.score = score
    return array


def compress(path: Path) -> None:
    """Compress the storage file of a bag as rosbag2 does in its compression mode FILE."""
    for file in (*path.glob('*.mcap'), *path.glob('*.db3')):
        packed = zstandard.ZstdCompressor().compress(file.read_bytes())
        file.with_name(f'{file.name}.zstd').write_bytes(packed)
        file.unlink()
