"""CameraInfo that is missing or wrong, and lenses."""

from __future__ import annotations

import math

import numpy as np

from tests.faults.cases.case import ALL, NOTHING, Case, without
from tests.faults.injections import BACK, FRONT, info_fault, setting
from tests.faults.life import calibration_that_never_came

DISTORTED = {'images_rectified': False}


CASES = (
    Case(
        'CameraInfo comes no longer',
        lambda bench: bench.stream.fault(info=lambda camera, info: []),
    ),
    Case(
        'CameraInfo of a camera never came',
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
        'the focal length is 3 times that of training',
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
        ('ERROR', 'cameras', 'has the unusable plumb_bob coefficients'),
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
