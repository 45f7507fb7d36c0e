"""CameraInfo that is missing, invalid or unusual."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.spatial.transform import Rotation
from sensor_msgs.msg import CameraInfo, CompressedImage, RegionOfInterest

from tests.faults.cases.case import ALL, NOTHING, Case, without
from tests.faults.injections import BACK, FRONT, image_fault, info_fault, setting
from tests.faults.life import calibration_that_never_came
from tests.ros.camera_stream import HEIGHT, WIDTH

DISTORTED = {'images_rectified': False}


def scaled(columns: float = 1.0, rows: float = 1.0, place: float = 1.0) -> Callable:
    """Return a function that multiplies values of K: fx by ``columns``, fy by ``rows``, and the
    principal point by ``place``.
    """
    return lambda info: setattr(
        info, 'k', info.k * np.array((columns, 1, place, 1, rows, place, 1, 1, 1))
    )


def skewed(info: CameraInfo) -> None:
    info.k = info.k + np.array((0, 1000, 0, 0, 0, 0, 0, 0, 0))


def binned(info: CameraInfo) -> None:
    """Change CameraInfo so that it describes the images as full images of twice the size that are
    binned by 2.
    """
    scaled(2, 2, 2)(info)
    info.width, info.height, info.binning_x, info.binning_y = 2 * WIDTH, 2 * HEIGHT, 2, 2


def cropped(info: CameraInfo) -> None:
    """Change CameraInfo so that it describes the images as a region of larger images."""
    info.k = info.k + np.array((0, 0, 20, 0, 0, 16, 0, 0, 0))
    info.width, info.height = WIDTH + 40, HEIGHT + 32
    info.roi = RegionOfInterest(x_offset=20, y_offset=16, width=WIDTH, height=HEIGHT)


def turned(info: CameraInfo) -> None:
    """Set P, and set R to a rotation of 20 degrees."""
    info.p = np.column_stack((info.k.reshape(3, 3), np.zeros(3))).ravel()
    info.r = Rotation.from_euler('y', 20, degrees=True).as_matrix().ravel()


def with_frame_of_front(message: CompressedImage) -> CompressedImage:
    message.header.frame_id = FRONT
    return message


CASES = (
    Case('CameraInfo with binning', info_fault(binned)),
    Case('CameraInfo with a region of interest', info_fault(cropped)),
    Case(
        'K has a skew of 1000 px',
        info_fault(skewed, BACK),
        without(BACK),
        ('ERROR', 'cameras', 'CAM_BACK is not calibrated correctly: K has a skew of 1000 px'),
    ),
    Case(
        'fy is 3 times fx',
        info_fault(scaled(rows=3), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'which differ too much'),
    ),
    Case(
        'K belongs to images of half the size',
        info_fault(scaled(0.5, 0.5, 0.5), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'K has values for an image 0.5 times the size'),
    ),
    Case(
        'R turns a rectified image by 20 degrees',
        info_fault(turned, BACK),
        ALL,
        ('WARN', 'cameras', 'camera CAM_BACK is turned by 20 degrees by R'),
    ),
    Case(
        'distorted images with images_rectified: true',
        info_fault(setting(d=[-0.2, 0.05, 0.0, 0.0, 0.0]), BACK),
        ALL,
        ('WARN', 'cameras', 'camera CAM_BACK may have lens distortion'),
    ),
    Case(
        'two cameras have the same frame_id',
        image_fault(with_frame_of_front, BACK),
        ALL,
        ('WARN', 'cameras', 'camera CAM_BACK has the same tf frame as CAM_FRONT (CAM_FRONT)'),
    ),
    Case(
        'plumb_bob distortion with 8 coefficients',
        info_fault(setting(d=[-0.2, 0.05, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])),
        ALL,
        None,
        DISTORTED,
    ),
    Case(
        'fisheye distortion',
        info_fault(setting(distortion_model='fisheye', d=[0.1, -0.02, 0.0, 0.0])),
        ALL,
        None,
        DISTORTED,
    ),
    Case(
        'CameraInfo stops',
        lambda bench: bench.stream.fault(info=lambda camera, info: []),
    ),
    Case(
        'CameraInfo of a camera is never received',
        calibration_that_never_came,
        without(BACK),
        ('ERROR', 'cameras', 'camera CAM_BACK has no CameraInfo'),
    ),
    Case(
        'K is zero',
        info_fault(setting(k=np.zeros(9)), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'camera CAM_BACK is not calibrated'),
    ),
    Case(
        'K is NaN',
        info_fault(setting(k=np.full(9, np.nan)), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'camera CAM_BACK is not calibrated'),
    ),
    Case(
        'the focal length is 1e300 px',
        info_fault(
            lambda info: setattr(info, 'k', info.k * np.array((1e298, 1, 1, 1, 1, 1, 1, 1, 1))),
            FRONT,
        ),
        without(FRONT),
        ('ERROR', 'cameras', 'camera CAM_FRONT is not calibrated'),
    ),
    Case(
        'the principal point is not filled in',
        info_fault(
            lambda info: setattr(info, 'k', info.k * np.array((1, 1, 0, 1, 1, 0, 1, 1, 1))), FRONT
        ),
        without(FRONT),
        ('ERROR', 'cameras', 'camera CAM_FRONT is not calibrated'),
    ),
    Case(
        'no camera is calibrated',
        info_fault(setting(k=np.zeros(9))),
        NOTHING,
        ('ERROR', 'sets', '0 of 6 cameras can be used'),
    ),
    Case(
        'the focal length is 3 times the focal length in training',
        info_fault(
            lambda info: setattr(info, 'k', info.k * np.array((3, 1, 1, 1, 3, 1, 1, 1, 1))), FRONT
        ),
        ALL,
        (
            'WARN',
            'cameras',
            'CAM_FRONT has a focal length of 228 px in the network input, training had 48 to 76',
        ),
    ),
    Case(
        'plumb_bob distortion',
        info_fault(setting(d=[-0.2, 0.05, 0.0, 0.0, 0.0])),
        ALL,
        None,
        DISTORTED,
    ),
    Case(
        'rational_polynomial distortion',
        info_fault(
            setting(
                distortion_model='rational_polynomial',
                d=[-0.2, 0.05, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0],
            )
        ),
        ALL,
        None,
        DISTORTED,
    ),
    Case(
        'equidistant distortion',
        info_fault(setting(distortion_model='equidistant', d=[0.1, -0.02, 0.0, 0.0])),
        ALL,
        None,
        DISTORTED,
    ),
    Case(
        'an unknown distortion model',
        info_fault(setting(distortion_model='mirror_ball', d=[0.1]), BACK),
        without(BACK),
        ('ERROR', 'cameras', "has the distortion model 'mirror_ball'"),
        DISTORTED,
    ),
    Case(
        'distortion is NaN',
        info_fault(setting(d=[math.nan] * 5), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'has invalid plumb_bob coefficients'),
        DISTORTED,
    ),
    Case(
        'distortion that leaves nothing of the image',
        info_fault(setting(d=[1e30] * 5), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'which leave 0% of its image'),
        DISTORTED,
    ),
)
