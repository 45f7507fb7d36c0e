"""Wrong stamps and clocks."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
from builtin_interfaces.msg import Time
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from sensor_msgs.msg import CompressedImage

from bevdepth_ros.rig.camera_timing import WINDOW
from bevdepth_ros.rig.stamps import stamp_ns
from tests.faults.bench import Bench
from tests.faults.cases.case import ALL, NOTHING, Case, without
from tests.faults.injections import BACK, FRONT, SECOND_NS, image_fault
from tests.ros.graph import wait_until
from tests.ros.messages import compressed, encoded, noise_image, stamped


def restamped(shift_ns: int) -> Callable:
    return lambda message: [
        stamped(message, message.header.frame_id, stamp_ns(message) + shift_ns)
    ]


@contextmanager
def moved_by_a_period(bench: Bench) -> Iterator[None]:
    """Shift the clock of CAM_FRONT by 0.1 s, after the synchronizer has estimated the offsets of
    all cameras.
    """
    began = time.monotonic()
    wait_until(lambda: len(bench.results(began)) > 1.5 * WINDOW, 'estimated offsets')
    with image_fault(restamped(100_000_000), FRONT)(bench):
        yield


def unstamped(message) -> list:
    return [stamped(message, message.header.frame_id, 0)]


def copied(message, shift_ns: int = 0):
    return stamped(copy.deepcopy(message), message.header.frame_id, stamp_ns(message) + shift_ns)


def swapped_pairs(bench: Bench) -> AbstractContextManager:
    held: list = []

    def hook(camera: str, message) -> list:
        if camera != FRONT:
            return [message]
        if not held:
            held.append(message)
            return []
        bench.stream.rounds[-2][FRONT] = stamp_ns(held[0])
        return [message, held.pop()]

    return bench.stream.fault(image=hook)


@contextmanager
def shifted_once(bench: Bench, shift_ns: int) -> Iterator[None]:
    bench.stream.shift_ns += shift_ns
    yield


@contextmanager
def one_image_of_the_future(bench: Bench) -> Iterator[None]:
    message = stamped(
        compressed(encoded(noise_image(1))), FRONT, bench.stream.now_ns() + 3600 * SECOND_NS
    )
    bench.stream.send_image(FRONT, message)
    yield


def stale_copies(bench: Bench) -> AbstractContextManager:
    return bench.stream.fault(
        image=lambda camera, m: [copied(m, -5 * SECOND_NS), m] if camera == FRONT else [m]
    )


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


def clock_that_stands(bench: Bench) -> AbstractContextManager:
    stands_at = int(time.time())
    return simulated_time(bench, lambda: Time(sec=stands_at))


def clock_an_hour_ahead(bench: Bench) -> AbstractContextManager:
    return simulated_time(bench, lambda: Time(sec=int(time.time()) + 3600))


def clock_before_1970(bench: Bench) -> AbstractContextManager:
    return simulated_time(bench, lambda: Time(sec=-1))


@contextmanager
def simulated_time(bench: Bench, now: Callable[[], Time]) -> Iterator[None]:
    """Publish the result of ``now`` on /clock, and set the parameter use_sim_time of the node to
    true.
    """
    publisher = bench.graph.node.create_publisher(ClockMessage, '/clock', 1)
    timer = bench.graph.node.create_timer(
        0.05,
        lambda: publisher.publish(ClockMessage(clock=now())),
        clock=Clock(clock_type=ClockType.STEADY_TIME),
    )
    try:
        with simulated_time_without_clock(bench):
            yield
    finally:
        bench.graph.node.destroy_timer(timer)
        bench.graph.node.destroy_publisher(publisher)


def drifting(**ms_per_s: float) -> Callable[[Bench], AbstractContextManager]:
    """Return an injection in which the clocks of cameras drift; ``ms_per_s`` contains the drift of
    each camera in milliseconds per second.
    """

    def make(bench: Bench) -> AbstractContextManager:
        began = time.monotonic()

        def hook(camera: str, message) -> list:
            shift_ns = 1e6 * ms_per_s.get(camera, 0.0) * (time.monotonic() - began)
            return restamped(round(shift_ns))(message)

        return bench.stream.fault(image=hook)

    return make


def jittering(bench: Bench) -> AbstractContextManager:
    random = np.random.default_rng(0)
    return image_fault(lambda message: restamped(round(20e6 * random.normal()))(message))(bench)


@contextmanager
def rate_of(bench: Bench, hz: float) -> Iterator[None]:
    before, bench.stream.period_s = bench.stream.period_s, 1 / hz
    try:
        yield
    finally:
        bench.stream.period_s = before


@contextmanager
def idle_second_publisher(bench: Bench) -> Iterator[None]:
    publisher = bench.graph.node.create_publisher(CompressedImage, f'/{FRONT}/image', 1)
    try:
        yield
    finally:
        bench.graph.node.destroy_publisher(publisher)


CASES = (
    Case(
        'the clock of a camera is 0.25 s ahead',
        image_fault(restamped(250_000_000), FRONT),
        without(FRONT),
        ('ERROR', 'cameras', 'CAM_FRONT is excluded: its stamps are +0.2'),
    ),
    Case(
        'the clock of a camera is 10 s behind',
        image_fault(restamped(-10 * SECOND_NS), BACK),
        without(BACK),
        ('ERROR', 'cameras', 'its stamps are -'),
    ),
    Case(
        'the clock of a camera moves by one period',
        moved_by_a_period,
        without(FRONT),
        ('ERROR', 'cameras', 'CAM_FRONT is excluded: its stamps are +0.'),
    ),
    Case(
        'the clock of a camera drifts by 20 ms per second',
        drifting(CAM_FRONT=20.0),
        without(FRONT),
        ('ERROR', 'cameras', 'CAM_FRONT is excluded'),
    ),
    Case(
        'stamps jitter by 20 ms',
        jittering,
        NOTHING,
        ('ERROR', 'sets', 'no image set can be formed: stamps jitter by up to 0.0'),
    ),
    Case(
        'the stamps of four of six cameras drift at different rates',
        drifting(CAM_FRONT=9.0, CAM_BACK=-9.0, CAM_FRONT_LEFT=17.0, CAM_BACK_LEFT=-17.0),
        NOTHING,
        ('ERROR', 'sets', 'the cameras are not triggered together'),
    ),
    Case('the rate changes from 10 to 16 Hz', lambda bench: rate_of(bench, 16.0)),
    Case(
        'two publishers of the images of a camera',
        idle_second_publisher,
        ALL,
        ('WARN', 'cameras', '2 publishers send images of CAM_FRONT'),
    ),
    Case('every image arrives twice', image_fault(lambda message: [message, message])),
    Case('every two consecutive images of a camera arrive in reverse order', swapped_pairs),
    Case('one image is an hour ahead', one_image_of_the_future),
    Case('a second publisher sends stale images of a camera', stale_copies),
    Case(
        'images of a camera have no stamp',
        image_fault(unstamped, BACK),
        without(BACK),
        ('ERROR', 'cameras', 'images on /CAM_BACK/image have no time stamp'),
    ),
    Case(
        'no image has a stamp',
        image_fault(unstamped),
        NOTHING,
        ('ERROR', 'cameras', 'have no time stamp'),
    ),
    Case(
        'time goes back by 30 s, as when a bag starts again',
        lambda bench: shifted_once(bench, -30 * SECOND_NS),
        ALL,
        ('WARN', 'tf', 'went back in time'),
    ),
    Case(
        'time goes back by 0.4 s',
        lambda bench: shifted_once(bench, -400_000_000),
        ALL,
        ('WARN', 'tf', 'went back in time'),
    ),
    Case('time jumps ahead by 5 s', lambda bench: shifted_once(bench, 5 * SECOND_NS)),
    Case(
        'use_sim_time without /clock',
        simulated_time_without_clock,
        ALL,
        ('WARN', 'node', 'no message was received on /clock'),
    ),
    Case('/clock goes back by 60 s', clock_that_goes_back, tolerated='without ego motion'),
    Case('/clock stands still', clock_that_stands),
    Case('/clock is an hour ahead of the images', clock_an_hour_ahead),
    Case(
        '/clock publishes a time before 1970',
        clock_before_1970,
        ALL,
        ('WARN', 'node', 'invalid time on /clock: check'),
    ),
)
