"""The fault matrix: what is injected and what must be seen of it."""

from __future__ import annotations

import array
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np

from tests.faults.bench import Bench
from tests.faults.injections import (
    BACK,
    FRONT,
    LEFT,
    SECOND_NS,
    bad_transforms_between_good_ones,
    bayer,
    big_endian,
    broken_messages,
    changed_extrinsics,
    clock_before_time,
    clock_that_goes_back,
    doubled,
    every_second_lost,
    far_away,
    file_fault,
    first_and_last_of_a_rotation_with_losses,
    future_pose,
    image_fault,
    info_fault,
    late_poses,
    made_up_frames,
    moved,
    now_and_then,
    ns_of,
    one_image_of_the_future,
    padded,
    pixels_of,
    png_claiming,
    pose_fault,
    poses_without_the_end,
    quaternion,
    raised,
    restamped,
    second_publisher,
    setting,
    shifted_once,
    silent,
    simulated_time_without_clock,
    sparse_poses,
    swapped_pairs,
    teleporting,
    unsized,
    unstamped,
    zero_rotation,
)
from tests.faults.life import (
    broken_checkpoint,
    calibration_that_never_came,
    flood,
    many_nodes,
    node_parameter,
    parameter_storm,
    pause_of_activity,
    refused_parameters,
    stopped_subscriber,
)
from tests.faults.stream import CAMERAS, encoded, picture, raw, stamped, transform

ALL, NOTHING, UNFUSED = 'all cameras', 'nothing', 'without velocities'
RAW = {'image_transport': 'raw', 'image_topics': ['/{camera}/raw']}
DISTORTED = {'images_rectified': False}


def without(*cameras: str) -> str:
    return f'without {", ".join(sorted(cameras))}'


@dataclass(frozen=True)
class Case:
    """One fault.

    Attributes:
        name: what is wrong.
        inject: context in which it is.
        published: ALL, NOTHING, UNFUSED or what ``without`` returns.
        diagnosis: level, area and words of the status that must be seen; None when nothing may be reported.
        parameters: of the node, where they are not the usual ones.
        tolerated: words that may be said besides.
        overlapping: a rotation begins before the last one has ended, so that stamps do not tell them apart.
    """

    name: str
    inject: Callable[[Bench], AbstractContextManager]
    published: str = ALL
    diagnosis: tuple[str, str, str] | None = None
    parameters: dict = field(default_factory=dict)
    tolerated: str = 'nothing'
    overlapping: bool = False


CASES = (
    # Cameras.
    Case('one camera is silent', silent(BACK), without(BACK), ('ERROR', 'cameras', 'no image of CAM_BACK on /CAM_BACK/image')),
    Case('three cameras are silent', silent(BACK, FRONT, LEFT), without(BACK, FRONT, LEFT), ('ERROR', 'cameras', 'no image of CAM_FRONT')),
    Case('all cameras but one are silent', silent(*CAMERAS[1:]), without(*CAMERAS[1:]), ('ERROR', 'cameras', f'no image of {CAMERAS[1]}')),
    Case('all cameras are silent', silent(), NOTHING, ('ERROR', 'cameras', 'all cameras are silent')),
    Case(
        'fewer cameras than min_cameras',
        lambda bench: node_parameter(bench, 'min_cameras', 5, silent(BACK, FRONT)(bench)),
        NOTHING,
        ('ERROR', 'sets', '4 of 6 cameras can be used'),
    ),
    Case('every second image of a camera is lost', every_second_lost(FRONT)),
    Case('every second image of two cameras is lost, in turn', every_second_lost(FRONT, BACK)),
    Case(
        'only the first and the last camera of a rotation are left, and images are lost',
        first_and_last_of_a_rotation_with_losses,
        without(*(camera for camera in CAMERAS if camera not in ('CAM_FRONT_LEFT', LEFT))),
        ('ERROR', 'cameras', 'no image of CAM_FRONT'),
    ),
    # Time.
    Case(
        'the clock of a camera is 0.27 s ahead',
        image_fault(restamped(270_000_000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'CAM_FRONT is left out, its images fit no set: its stamps are +0.2'),
    ),
    Case(
        'the clock of a camera is 10 s behind',
        image_fault(restamped(-10 * SECOND_NS), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'its stamps are -'),
    ),
    Case('every image comes twice', image_fault(lambda message: [message, message])),
    Case('images of a camera come in swapped pairs', swapped_pairs),
    Case('one image is an hour ahead', one_image_of_the_future),
    Case('a second publisher sends stale images of a camera', second_publisher),
    Case(
        'images of a camera have no stamp',
        image_fault(unstamped, BACK),
        without(BACK),
        ('ERROR', 'cameras', 'images on /CAM_BACK/image have no time stamp'),
    ),
    Case('no image has a stamp', image_fault(unstamped), NOTHING, ('ERROR', 'cameras', 'have no time stamp')),
    Case(
        'time goes back by 30 s, as when a bag starts again',
        lambda bench: shifted_once(bench, -30 * SECOND_NS),
        ALL,
        ('WARN', 'tf', 'went back in time'),
    ),
    Case('time goes back by 0.4 s', lambda bench: shifted_once(bench, -400_000_000), ALL, ('WARN', 'tf', 'went back in time')),
    Case('time goes on by 5 s', lambda bench: shifted_once(bench, 5 * SECOND_NS)),
    Case('use_sim_time without /clock', simulated_time_without_clock, ALL, ('WARN', 'node', 'nothing came on /clock')),
    Case('/clock goes back by 60 s', clock_that_goes_back, tolerated='without ego motion'),
    Case('/clock tells a time before 1970', clock_before_time, ALL, ('WARN', 'node', 'a message could not be taken: ValueError')),
    # tf.
    Case('ego poses are missing', pose_fault(lambda pose: []), UNFUSED, ('WARN', 'tf', 'without ego motion there are no velocities')),
    Case('ego poses are 0.4 s late', late_poses, UNFUSED, ('WARN', 'tf', 's from its newest')),
    Case('ego poses come at 2 Hz only', sparse_poses, UNFUSED, ('WARN', 'tf', 's from its newest')),
    Case('the newest ego poses of each rotation are missing', poses_without_the_end),
    Case('the rotation of ego poses is NaN', pose_fault(quaternion(*(math.nan,) * 4)), UNFUSED, ('WARN', 'tf', 'cannot be used')),
    Case(
        'the rotation of ego poses is no unit quaternion',
        pose_fault(quaternion(0, 0, 0, 2)),
        UNFUSED,
        ('WARN', 'tf', 'must have unit length, got length 2'),
    ),
    Case('bad transforms between good ones', bad_transforms_between_good_ones, ALL, ('WARN', 'tf', 'cannot be used')),
    Case(
        'base_link has two parents',
        pose_fault(lambda pose: [pose, transform('odom', 'base_link', ns_of(pose))]),
        UNFUSED,
        ('WARN', 'tf', 'is a child of map and of odom'),
    ),
    Case('tf has a cycle', pose_fault(lambda pose: [pose, transform('base_link', 'map', ns_of(pose))])),
    Case('one ego pose is an hour ahead', future_pose, ALL, ('WARN', 'tf', 'went back in time')),
    Case(
        'a second publisher sends stale ego poses',
        pose_fault(lambda pose: [transform('map', 'base_link', ns_of(pose) - 5 * SECOND_NS), pose]),
        UNFUSED,
        ('WARN', 'tf', 'went back in time'),
    ),
    Case('the ego pose jumps by 500 m', teleporting, ALL, ('WARN', 'tf', 'the ego pose moved by 500')),
    Case('static transforms change while running', lambda bench: changed_extrinsics(bench, moved)),
    Case(
        'a camera is moved 2 m up',
        lambda bench: changed_extrinsics(bench, raised),
        ALL,
        ('WARN', 'cameras', 'CAM_BACK sits 3.58 m above base_link, training had 1.48 to 1.61'),
    ),
    Case(
        'a static transform without rotation',
        lambda bench: changed_extrinsics(bench, zero_rotation),
        ALL,
        ('WARN', 'tf', "'base_link' <- 'CAM_BACK' cannot be used"),
    ),
    Case(
        'a camera is mounted 1e300 m away',
        lambda bench: changed_extrinsics(bench, far_away),
        ALL,
        ('WARN', 'tf', "'base_link' <- 'CAM_BACK' cannot be used: its translation is not finite, or above"),
    ),
    Case(
        'ego poses are 1e300 m away',
        pose_fault(lambda pose: [transform('map', 'base_link', ns_of(pose), (1e300, 0, 0))]),
        UNFUSED,
        ('WARN', 'tf', 'its translation is not finite, or above'),
    ),
    Case(
        'images of a camera carry an unknown frame_id',
        image_fault(lambda m: [stamped(m, 'nowhere', ns_of(m))], BACK),
        without(BACK),
        ('ERROR', 'tf', 'it does not know nowhere'),
    ),
    Case(
        'no image has a frame_id',
        image_fault(lambda m: [stamped(m, '', ns_of(m))]),
        NOTHING,
        ('ERROR', 'tf', 'have no frame_id; set camera_frames'),
    ),
    # Images.
    Case(
        'truncated JPEGs',
        file_fault(lambda data: data[: len(data) // 2], FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'image of CAM_FRONT on /CAM_FRONT/image is a broken JPEG'),
    ),
    Case(
        'noise in place of JPEGs',
        file_fault(lambda data: os.urandom(3000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is no JPEG or PNG (3000 bytes'),
    ),
    Case('empty images', file_fault(lambda data: b'', FRONT), without(FRONT), ('ERROR', 'cameras', 'is no JPEG or PNG (0 bytes')),
    Case(
        'all images are noise',
        file_fault(lambda data: os.urandom(3000)),
        NOTHING,
        ('ERROR', 'sets', '0 of 6 cameras can be used (none), min_cameras asks for 1'),
    ),
    Case('one corrupt image now and then', now_and_then, ALL, ('ERROR', 'cameras', 'is no JPEG or PNG')),
    Case('format says something else', image_fault(setting(format='tiff; nonsense'))),
    Case('PNG in place of JPEG', file_fault(lambda data: encoded(picture(3), 'PNG'), FRONT)),
    Case('grey JPEGs', file_fault(lambda data: encoded(picture(3)[..., 0]), FRONT)),
    Case(
        'the image size changes without its CameraInfo',
        file_fault(lambda data: encoded(picture(3, 320, 180)), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'camera CAM_FRONT is 320x180, but its calibration is for 160x90'),
    ),
    Case('the image size changes together with its CameraInfo', doubled, tolerated='but its calibration is for'),
    Case(
        'a PNG of 108 million pixels',
        file_fault(lambda data: png_claiming(12000, 9000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is 12000x9000, more than max_image_megapixels'),
    ),
    Case(
        'a PNG of 4 billion pixels',
        file_fault(lambda data: png_claiming(65000, 65000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'is far larger than max_image_megapixels'),
    ),
    Case(
        'images of one pixel, with CameraInfo without a size',
        unsized(1, 1),
        without(FRONT),
        ('ERROR', 'cameras', 'is 1x1, which is no image of a camera'),
    ),
    Case(
        'images so thin that they would fill the memory at the size of the network',
        unsized(16, 4000),
        without(FRONT),
        ('ERROR', 'cameras', 'is 16x4000, which is no image of a camera'),
    ),
    # Calibration.
    Case('CameraInfo comes no longer', lambda bench: bench.stream.fault(info=lambda camera, info: [])),
    Case(
        'CameraInfo of a camera never came',
        calibration_that_never_came,
        without(BACK),
        ('ERROR', 'cameras', 'camera CAM_BACK has no CameraInfo'),
    ),
    Case('K is zero', info_fault(setting(k=np.zeros(9)), BACK), without(BACK), ('ERROR', 'cameras', 'camera CAM_BACK is not calibrated')),
    Case(
        'K is NaN',
        info_fault(setting(k=np.full(9, np.nan)), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'camera CAM_BACK is not calibrated'),
    ),
    Case(
        'the focal length is 1e300 px',
        info_fault(lambda info: setattr(info, 'k', info.k * np.array((1e298, 1, 1, 1, 1, 1, 1, 1, 1))), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'camera CAM_FRONT is not calibrated'),
    ),
    Case('no camera is calibrated', info_fault(setting(k=np.zeros(9))), NOTHING, ('ERROR', 'sets', '0 of 6 cameras can be used')),
    Case(
        'the focal length is 3 times that of training',
        info_fault(lambda info: setattr(info, 'k', info.k * np.array((3, 1, 1, 1, 3, 1, 1, 1, 1))), FRONT),
        ALL,
        ('WARN', 'cameras', 'CAM_FRONT has a focal length of 228 px in the network input, training had 48 to 76'),
    ),
    Case('plumb_bob distortion', info_fault(setting(d=[-0.2, 0.05, 0.0, 0.0, 0.0])), ALL, None, DISTORTED),
    Case(
        'rational_polynomial distortion',
        info_fault(setting(distortion_model='rational_polynomial', d=[-0.2, 0.05, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0])),
        ALL,
        None,
        DISTORTED,
    ),
    Case('equidistant distortion', info_fault(setting(distortion_model='equidistant', d=[0.1, -0.02, 0.0, 0.0])), ALL, None, DISTORTED),
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
    # Load and life.
    Case('60 rotations a second', flood, overlapping=True),
    Case('bytes that are no messages', broken_messages, tolerated='went back in time'),
    Case('a subscriber is stopped', stopped_subscriber),
    Case('20 nodes join and leave', many_nodes),
    Case('parameters change without end', parameter_storm),
    Case('parameters that are refused', refused_parameters),
    Case('thousands of made-up frames in tf', made_up_frames, ALL, ('WARN', 'tf', 'other frames are known already')),
    Case('weights are swapped for broken ones', broken_checkpoint, NOTHING, ('ERROR', 'node', 'activate failed')),
    Case('the node is deactivated', pause_of_activity, NOTHING, None),
    # Raw images.
    Case('raw images', lambda bench: nullcontext(), ALL, None, RAW),
    Case('raw images with padded rows', image_fault(padded), ALL, None, RAW),
    Case('raw 16-bit images in big-endian order', image_fault(big_endian), ALL, None, RAW),
    Case('raw Bayer images', image_fault(bayer), ALL, None, RAW),
    Case(
        'an unknown encoding',
        image_fault(lambda m: raw(pixels_of(m), 'yuv422'), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', "has the encoding 'yuv422', which is not supported"),
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
        ('ERROR', 'cameras', 'is 65000x65000, more than max_image_megapixels'),
        RAW,
    ),
)
