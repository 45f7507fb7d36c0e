"""How messages are spoilt on their way to the node: every function returns contexts in which they are."""

from __future__ import annotations

import array
import copy
import math
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rclpy.serialization import serialize_message
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from tf2_msgs.msg import TFMessage

from tests.faults.bench import Bench
from tests.faults.stream import CAMERAS, HEIGHT, WIDTH, camera_info, compressed, encoded, picture, raw, stamped, transform
from tests.ros.graph import wait_until

BACK, FRONT, LEFT = 'CAM_BACK', 'CAM_FRONT', 'CAM_BACK_LEFT'
SECOND_NS = 10**9


def image_fault(change: Callable, *cameras: str) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection that replaces the images of ``cameras``, all without names, by what ``change`` makes of them."""

    def hook(camera: str, message) -> list:
        if cameras and camera not in cameras:
            return [message]
        changed = change(message)
        return changed if isinstance(changed, list) else [stamped(changed, message.header.frame_id, ns_of(message))]

    return lambda bench: bench.stream.fault(image=hook)


def info_fault(change: Callable, *cameras: str) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection that lets ``change`` spoil the CameraInfo of ``cameras``, all without names."""

    def hook(camera: str, info) -> list:
        if not cameras or camera in cameras:
            change(info)
        return [info]

    return lambda bench: bench.stream.fault(info=hook)


def pose_fault(change: Callable) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection that replaces each ego pose by the list that ``change`` returns."""
    return lambda bench: bench.stream.fault(pose=change)


def silent(*cameras: str) -> Callable[[Bench], AbstractContextManager]:
    return image_fault(lambda message: [], *cameras)


def file_fault(change: Callable[[bytes], bytes], *cameras: str) -> Callable[[Bench], AbstractContextManager]:
    return image_fault(lambda message: compressed(change(bytes(message.data))), *cameras)


def setting(**values) -> Callable:
    """Return a change that sets fields."""

    def change(message):
        for name, value in values.items():
            setattr(message, name, value)
        return message

    return change


def restamped(shift_ns: int) -> Callable:
    return lambda message: [stamped(message, message.header.frame_id, ns_of(message) + shift_ns)]


def unstamped(message) -> list:
    return [stamped(message, message.header.frame_id, 0)]


def ns_of(message) -> int:
    return message.header.stamp.sec * SECOND_NS + message.header.stamp.nanosec


def copied(message, shift_ns: int = 0):
    return stamped(copy.deepcopy(message), message.header.frame_id, ns_of(message) + shift_ns)


# Images and time.


def every_second_lost(*cameras: str) -> Callable[[Bench], AbstractContextManager]:
    def make(bench: Bench) -> AbstractContextManager:
        counts = dict.fromkeys(CAMERAS, 0)

        def hook(camera: str, message) -> list:
            counts[camera] += 1
            return [message] if camera not in cameras or counts[camera] % 2 else []

        return bench.stream.fault(image=hook)

    return make


def first_and_last_of_a_rotation_with_losses(bench: Bench) -> AbstractContextManager:
    """Leave the two cameras whose images are nearer to the neighbouring rotation's than to each other's, and lose some."""
    left, count = ('CAM_FRONT_LEFT', LEFT), iter(range(10**9))
    return bench.stream.fault(image=lambda camera, m: [m] if camera == left[1] or (camera == left[0] and next(count) % 3) else [])


def swapped_pairs(bench: Bench) -> AbstractContextManager:
    held: list = []

    def hook(camera: str, message) -> list:
        if camera != FRONT:
            return [message]
        if not held:
            held.append(message)
            return []
        return [message, held.pop()]

    return bench.stream.fault(image=hook)


@contextmanager
def shifted_once(bench: Bench, shift_ns: int) -> Iterator[None]:
    bench.stream.shift_ns += shift_ns
    yield


@contextmanager
def one_image_of_the_future(bench: Bench) -> Iterator[None]:
    message = stamped(compressed(encoded(picture(1))), FRONT, bench.stream.now_ns() + 3600 * SECOND_NS)
    bench.stream.send_image(FRONT, message)
    yield


def second_publisher(bench: Bench) -> AbstractContextManager:
    return bench.stream.fault(image=lambda camera, m: [copied(m, -5 * SECOND_NS), m] if camera == FRONT else [m])


@contextmanager
def simulated_time_without_clock(bench: Bench) -> Iterator[None]:
    assert bench.set('use_sim_time', True) == ''
    try:
        yield
    finally:
        assert bench.set('use_sim_time', False) == ''


@contextmanager
def clock_that_goes_back(bench: Bench) -> Iterator[None]:
    jump_at = time.monotonic() + 0.5

    def now() -> Time:
        now_ns = time.time_ns() - (60 * SECOND_NS if time.monotonic() > jump_at else 0)
        return stamped(CompressedImage(), '', now_ns).header.stamp

    with simulated_time(bench, now):
        wait_until(lambda: time.monotonic() > jump_at + 0.3, 'the jump')
        yield


def clock_before_time(bench: Bench) -> AbstractContextManager:
    return simulated_time(bench, lambda: Time(sec=-1))


@contextmanager
def simulated_time(bench: Bench, now: Callable[[], Time]) -> Iterator[None]:
    """Publish what ``now`` returns on /clock, and let the node heed it."""
    publisher = bench.graph.node.create_publisher(ClockMessage, '/clock', 1)
    timer = bench.graph.node.create_timer(
        0.05, lambda: publisher.publish(ClockMessage(clock=now())), clock=Clock(clock_type=ClockType.STEADY_TIME)
    )
    try:
        with simulated_time_without_clock(bench):
            yield
    finally:
        bench.graph.node.destroy_timer(timer)
        bench.graph.node.destroy_publisher(publisher)


# tf.


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
    """Leave out the poses of the last two exposures: they are 10 and 20 ms beyond what tf knows, until the next rotation."""
    count = iter(range(10**9))
    return bench.stream.fault(pose=lambda pose: [] if next(count) % 6 > 3 else [pose])


def quaternion(*values: float) -> Callable:
    return lambda pose: [transform('map', 'base_link', ns_of(pose), (0, 0, 0), values)]


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
        message.transform.rotation.w = message.transform.rotation.x = message.transform.rotation.y = message.transform.rotation.z = 0.0


def teleporting(bench: Bench) -> AbstractContextManager:
    def hook(pose) -> list:
        pose.transform.translation.y = 500.0 * (int(time.monotonic() / 0.4) % 2)
        return [pose]

    return bench.stream.fault(pose=hook)


@contextmanager
def future_pose(bench: Bench) -> Iterator[None]:
    bench.stream.send_tf(transform('map', 'base_link', bench.stream.now_ns() + 3600 * SECOND_NS))
    yield


def made_up_frames(bench: Bench) -> AbstractContextManager:
    """Publish transforms of ever new frames beside the poses."""
    numbers = iter(range(10**9))
    names = [[f'tag_{next(numbers)}' for _ in range(100)] for _ in range(30)]

    def hook(pose) -> list:
        return [pose, *(transform('map', name, ns_of(pose)) for name in (names.pop() if names else ['tag_new']))]

    return bench.stream.fault(pose=hook)


# Bytes.


@contextmanager
def broken_messages(bench: Bench) -> Iterator[None]:
    """Publish bytes that are no message, but more than those that crash the middleware, on topics that the node listens to."""
    now_ns = bench.stream.now_ns()
    whole = {
        '/CAM_FRONT/image': (CompressedImage, stamped(compressed(encoded(picture(0))), FRONT, now_ns)),
        '/CAM_FRONT/camera_info': (CameraInfo, stamped(camera_info(FRONT), FRONT, now_ns)),
        '/tf': (TFMessage, TFMessage(transforms=[transform('map', 'base_link', now_ns)])),
    }
    for topic, (kind, message) in whole.items():
        data = serialize_message(message)
        publisher = bench.graph.node.create_publisher(kind, topic, 10)
        for bad in (data[: len(data) // 2], data[:8] + b'\xff\xff\xff\x7f' + data[12:], b'\x00\x01' + 60 * b'\xff'):
            for _ in range(10):
                publisher.publish(bad)
        wait_until(lambda publisher=publisher: publisher.wait_for_all_acked(), 'delivery')
        bench.graph.node.destroy_publisher(publisher)
    yield


def png_claiming(width: int, height: int) -> bytes:
    """Return a PNG whose header claims another size."""
    data = bytearray(encoded(picture(0), 'PNG'))
    data[16:24] = width.to_bytes(4, 'big') + height.to_bytes(4, 'big')
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, 'big')
    return bytes(data)


def now_and_then(bench: Bench) -> AbstractContextManager:
    count = iter(range(10**9))

    def hook(camera: str, message) -> list:
        if camera == FRONT and next(count) % 4 == 0:
            message.data = array.array('B', b'noise')
        return [message]

    return bench.stream.fault(image=hook)


def doubled(bench: Bench) -> AbstractContextManager:
    """Let a camera send images of twice the size, and say so in its CameraInfo."""

    def twice(camera: str, info) -> list:
        if camera == FRONT:
            info.width, info.height, info.k = 2 * WIDTH, 2 * HEIGHT, info.k * np.array((2, 1, 2, 1, 2, 2, 1, 1, 1))
        return [info]

    def image(camera: str, message) -> list:
        if camera == FRONT:
            message.data = array.array('B', encoded(picture(3, 2 * WIDTH, 2 * HEIGHT)))
        return [message]

    return bench.stream.fault(info=twice, image=image)


def unsized(width: int, height: int) -> Callable[[Bench], AbstractContextManager]:
    """Let a camera send images of this size, with a CameraInfo that tells none."""

    def info(camera: str, message) -> list:
        message.width = message.height = 0
        return [message]

    def image(camera: str, message) -> list:
        if camera == FRONT:
            message.data = array.array('B', encoded(picture(3, width, height)))
        return [message]

    return lambda bench: bench.stream.fault(info=info, image=image)


def pixels_of(message: Image) -> np.ndarray:
    return np.frombuffer(message.data, np.uint8).reshape(HEIGHT, WIDTH, 3)


def padded(message: Image) -> Image:
    rows = np.pad(pixels_of(message).reshape(HEIGHT, -1), ((0, 0), (0, 32)))
    return raw(rows[..., None], step=rows.shape[1], width=WIDTH)


def big_endian(message: Image) -> Image:
    values = (pixels_of(message).astype(np.uint16) * 256).astype('>u2')
    return raw(values, 'bgr16', is_bigendian=1)


def bayer(message: Image) -> Image:
    return raw(np.ascontiguousarray(pixels_of(message)[..., 0]), 'bayer_rggb8')
