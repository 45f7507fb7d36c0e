"""Missing transforms, wrong transforms, and images whose frame_id is missing in tf."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from bevdepth_ros.rig.stamps import stamp_ns
from tests.faults.bench import Bench
from tests.faults.cases.case import ALL, NOTHING, UNFUSED, Case, without
from tests.faults.injections import BACK, FRONT, SECOND_NS, image_fault, pose_fault
from tests.ros.messages import stamped, transform


def late_poses(bench: Bench) -> AbstractContextManager:
    waiting: list = []

    def hook(pose) -> list:
        waiting.append(pose)
        return [waiting.pop(0)] if len(waiting) > 24 else []

    return bench.stream.fault(pose=hook)


def sparse_poses(bench: Bench) -> AbstractContextManager:
    count = iter(range(10**9))
    return bench.stream.fault(pose=lambda pose: [] if next(count) % 30 else [pose])


def poses_without_the_end(bench: Bench) -> AbstractContextManager:
    """Omit the ego poses of the last two exposures of each trigger cycle. Until the next cycle,
    these exposures are 10 and 20 ms after the newest ego pose in tf.
    """
    count = iter(range(10**9))
    return bench.stream.fault(pose=lambda pose: [] if next(count) % 6 > 3 else [pose])


def quaternion(*values: float) -> Callable:
    return lambda pose: [transform('map', 'base_link', stamp_ns(pose), (0, 0, 0), values)]


@contextmanager
def bad_transforms_between_good_ones(bench: Bench) -> Iterator[None]:
    now_ns = bench.stream.now_ns()
    bad = [
        transform('map', 'base_link', now_ns, (math.nan, 0, 0)),
        transform('map', 'base_link', now_ns, (0, 0, 0), (math.nan,) * 4),
        transform('base_link', 'base_link', now_ns),
        transform('', '', now_ns),
    ]
    bench.stream.send_tf(*bad)
    yield


@contextmanager
def changed_extrinsics(bench: Bench, change: Callable) -> Iterator[None]:
    bench.stream.send_extrinsics(change)
    try:
        yield
    finally:
        bench.stream.send_extrinsics()


def raised(message) -> None:
    if message.child_frame_id == BACK:
        message.transform.translation.z += 2.0


def moved(message) -> None:
    message.transform.translation.z += 0.1


def far_away(message) -> None:
    if message.child_frame_id == BACK:
        message.transform.translation.x = 1e300


def zero_rotation(message) -> None:
    if message.child_frame_id == BACK:
        message.transform.rotation.w = message.transform.rotation.x = (
            message.transform.rotation.y
        ) = message.transform.rotation.z = 0.0


def teleporting(bench: Bench) -> AbstractContextManager:
    def hook(pose) -> list:
        pose.transform.translation.y = 500.0 * (int(time.monotonic() / 0.4) % 2)
        return [pose]

    return bench.stream.fault(pose=hook)


@contextmanager
def future_pose(bench: Bench) -> Iterator[None]:
    bench.stream.send_tf(transform('map', 'base_link', bench.stream.now_ns() + 3600 * SECOND_NS))
    yield


def frozen_poses(bench: Bench) -> AbstractContextManager:
    """Send the first ego pose again and again, always with its original stamp."""
    first: list = []

    def hook(pose) -> list:
        first.append(pose)
        return first[:1]

    return bench.stream.fault(pose=hook)


def endless_names(bench: Bench) -> AbstractContextManager:
    return bench.stream.fault(
        pose=lambda pose: [pose, transform('map', 'x' * 100_000, stamp_ns(pose))]
    )


def in_a_loop(message) -> None:
    if message.child_frame_id in (BACK, FRONT):
        message.header.frame_id = FRONT if message.child_frame_id == BACK else BACK


def made_up_frames(bench: Bench) -> AbstractContextManager:
    """Publish transforms of 3000 new frames in addition to the ego poses: 100 new frames with each
    of the first 30 poses. Each later pose is sent with a transform of the frame tag_new.
    """
    numbers = iter(range(10**9))
    names = [[f'tag_{next(numbers)}' for _ in range(100)] for _ in range(30)]

    def hook(pose) -> list:
        return [
            pose,
            *(
                transform('map', name, stamp_ns(pose))
                for name in (names.pop() if names else ['tag_new'])
            ),
        ]

    return bench.stream.fault(pose=hook)


def unrelated_frame_back_and_forth(bench: Bench) -> AbstractContextManager:
    return pose_fault(
        lambda pose: [
            pose,
            transform('base_link', 'wheel_right_link', stamp_ns(pose)),
            transform('base_link', 'wheel_right_link', stamp_ns(pose) - SECOND_NS // 2),
        ]
    )(bench)


def jumping(bench: Bench) -> AbstractContextManager:
    """Every 0.8 s, change the y coordinate of the ego pose from 0 to 4 m or from 4 to 0 m."""

    def hook(pose) -> list:
        pose.transform.translation.y = 4.0 * (int(time.monotonic() / 0.8) % 2)
        return [pose]

    return bench.stream.fault(pose=hook)


CASES = (
    Case(
        'ego poses are missing',
        pose_fault(lambda pose: []),
        UNFUSED,
        ('WARN', 'tf', 'without ego motion there are no velocities'),
    ),
    Case(
        'ego poses are 0.4 s late',
        late_poses,
        UNFUSED,
        ('WARN', 'tf', 's after the newest transform'),
    ),
    Case(
        'ego poses come at 2 Hz only',
        sparse_poses,
        UNFUSED,
        ('WARN', 'tf', 's after the newest transform'),
    ),
    Case('the newest ego poses of each trigger cycle are missing', poses_without_the_end),
    Case(
        'the rotation of ego poses is NaN',
        pose_fault(quaternion(*(math.nan,) * 4)),
        UNFUSED,
        ('WARN', 'tf', 'is invalid'),
    ),
    Case(
        'the rotation of ego poses is not a unit quaternion',
        pose_fault(quaternion(0, 0, 0, 2)),
        UNFUSED,
        ('WARN', 'tf', 'must have unit length, got length 2'),
    ),
    Case(
        'invalid transforms between valid ones',
        bad_transforms_between_good_ones,
        ALL,
        ('WARN', 'tf', 'is invalid'),
    ),
    Case(
        'base_link has two parents',
        pose_fault(lambda pose: [pose, transform('odom', 'base_link', stamp_ns(pose))]),
        UNFUSED,
        ('WARN', 'tf', 'base_link has several parents: map, odom'),
    ),
    Case(
        'tf contains a loop',
        pose_fault(lambda pose: [pose, transform('base_link', 'map', stamp_ns(pose))]),
    ),
    Case('one ego pose is an hour ahead', future_pose, ALL, ('WARN', 'tf', 'went back in time')),
    Case(
        'a second publisher sends stale ego poses',
        pose_fault(
            lambda pose: [transform('map', 'base_link', stamp_ns(pose) - 5 * SECOND_NS), pose]
        ),
        UNFUSED,
        ('WARN', 'tf', 'went back in time'),
    ),
    Case(
        'the ego pose jumps by 500 m',
        teleporting,
        ALL,
        ('WARN', 'tf', 'the ego pose moved by 500'),
    ),
    Case(
        'the ego pose jumps by 4 m',
        jumping,
        ALL,
        ('WARN', 'tf', 'does not continue its previous motion'),
    ),
    Case(
        'each transform of an unrelated frame is followed by a transform that is 0.5 s older',
        unrelated_frame_back_and_forth,
    ),
    Case(
        'static transforms change while the node runs',
        lambda bench: changed_extrinsics(bench, moved),
    ),
    Case(
        'a camera is moved 2 m up',
        lambda bench: changed_extrinsics(bench, raised),
        ALL,
        ('WARN', 'cameras', 'CAM_BACK is 3.58 m above the ground, training had 1.48 to 1.61'),
    ),
    Case(
        'the rotation of a static transform is zero',
        lambda bench: changed_extrinsics(bench, zero_rotation),
        ALL,
        ('WARN', 'tf', "'base_link' <- 'CAM_BACK' is invalid"),
    ),
    Case(
        'a camera is mounted 1e300 m away',
        lambda bench: changed_extrinsics(bench, far_away),
        ALL,
        (
            'WARN',
            'tf',
            "'base_link' <- 'CAM_BACK' is invalid: its translation is not finite, or above",
        ),
    ),
    Case(
        'ego poses are 1e300 m away',
        pose_fault(lambda pose: [transform('map', 'base_link', stamp_ns(pose), (1e300, 0, 0))]),
        UNFUSED,
        ('WARN', 'tf', 'its translation is not finite, or above'),
    ),
    Case(
        'the same ego pose with the same stamp is sent again and again',
        frozen_poses,
        UNFUSED,
        ('WARN', 'tf', 's after the newest transform'),
    ),
    Case(
        'names of frames are 100,000 characters long',
        endless_names,
        ALL,
        ('WARN', 'tf', 'a frame name has more than 255 characters'),
    ),
    Case(
        'static transforms of two cameras form a loop',
        lambda bench: changed_extrinsics(bench, in_a_loop),
        without(BACK, FRONT),
        ('ERROR', 'tf', 'contains a loop'),
    ),
    Case(
        'the frame_id of a camera is written in lower case',
        image_fault(lambda m: [stamped(m, m.header.frame_id.lower(), stamp_ns(m))], BACK),
        without(BACK),
        ('ERROR', 'tf', 'tf does not contain cam_back'),
    ),
    Case(
        'the frame_id of a camera has line feeds and 100,000 characters',
        image_fault(lambda m: [stamped(m, 'CAM\n' * 25_000, stamp_ns(m))], BACK),
        without(BACK),
        ('ERROR', 'tf', 'the name of a frame has at most 255 characters'),
    ),
    Case(
        'images of a camera carry an unknown frame_id',
        image_fault(lambda m: [stamped(m, 'nowhere', stamp_ns(m))], BACK),
        without(BACK),
        ('ERROR', 'tf', 'tf does not contain nowhere'),
    ),
    Case(
        'no image has a frame_id',
        image_fault(lambda m: [stamped(m, '', stamp_ns(m))]),
        NOTHING,
        ('ERROR', 'tf', 'have no frame_id; set camera_frames'),
    ),
)
