"""Context managers for load, parameter changes, restarts and lifecycle transitions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from rclpy.node import Node
from std_msgs.msg import String

from tests.faults.bench import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, Bench
from tests.faults.injections import BACK


@contextmanager
def stopped_subscriber(bench: Bench) -> Iterator[None]:
    """Start a process with reliable subscriptions, and stop it with SIGSTOP after its first
    message.
    """
    program = (
        'import rclpy; from vision_msgs.msg import Detection3DArray; from visualization_msgs.msg '
        'import MarkerArray; rclpy.init(); '
        'node = rclpy.create_node("stopped"); '
        'node.create_subscription(Detection3DArray, "/bevdepth_detector/detections", print, '
        '1000); '
        'node.create_subscription(MarkerArray, "/bevdepth_detector/markers", print, 1000); '
        'rclpy.spin(node)'
    )
    process = subprocess.Popen([sys.executable, '-c', program], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        yield
    finally:
        process.kill()
        process.communicate()


@contextmanager
def many_nodes(bench: Bench) -> Iterator[None]:
    nodes = [Node(f'other_{number}', start_parameter_services=False) for number in range(20)]
    publishers = [
        node.create_publisher(String, f'/other/node_{index}', 10)
        for index, node in enumerate(nodes)
    ]
    for publisher in publishers:
        publisher.publish(String(data='hello'))
    try:
        yield
    finally:
        for node in nodes:
            node.destroy_node()


@contextmanager
def parameter_storm(bench: Bench) -> Iterator[None]:
    stopping = threading.Event()

    def storm() -> None:
        for number in range(10**6):
            if stopping.is_set():
                return
            bench.set('score_threshold', 0.001 * (number % 2))

    thread = threading.Thread(target=storm)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()
        bench.set('score_threshold', 0.0)


@contextmanager
def rejected_parameters(bench: Bench) -> Iterator[None]:
    assert 'out of range' in bench.set('score_threshold', 1.5)
    assert 'min_cameras must not exceed the number of cameras (6)' in bench.set('min_cameras', 7)
    assert 'undeclared' in bench.set('no_such_parameter', 1)
    assert 'cannot change while the node is active' in bench.set('base_frame', 'rear_axle')
    yield


@contextmanager
def node_parameter(
    bench: Bench, name: str, value, fault: AbstractContextManager
) -> Iterator[None]:
    usual = bench.values.get(name, 1)
    assert bench.set(name, value) == ''
    try:
        with fault:
            yield
    finally:
        assert bench.set(name, usual) == ''


@contextmanager
def truncated_checkpoint(bench: Bench) -> Iterator[None]:
    """Deactivate, set a truncated checkpoint, and try to activate."""
    truncated = bench.checkpoint.with_name('truncated.safetensors')
    truncated.write_bytes(bench.checkpoint.read_bytes()[:1000])
    assert bench.change(DEACTIVATE)
    assert bench.set('checkpoint', str(truncated)) == ''
    assert not bench.change(ACTIVATE)
    try:
        yield
    finally:
        assert bench.set('checkpoint', str(bench.checkpoint)) == ''
        assert bench.change(ACTIVATE)


@contextmanager
def pause_of_activity(bench: Bench) -> Iterator[None]:
    assert bench.change(DEACTIVATE)
    try:
        yield
    finally:
        assert bench.change(ACTIVATE)


@contextmanager
def stopped_process(bench: Bench) -> Iterator[None]:
    """Several times, stop the node for longer than ``camera_timeout_s`` and let it continue, as
    on a machine that is suspended or swaps memory. After each stop, the order of two events
    is random: the node checks for silent cameras, and the node receives the images that waited.
    """
    ending = threading.Event()

    def stop_and_continue() -> None:
        while not ending.is_set():
            bench.process.send_signal(signal.SIGSTOP)
            time.sleep(1.5 * bench.values['camera_timeout_s'])
            bench.process.send_signal(signal.SIGCONT)
            ending.wait(1.5)

    thread = threading.Thread(target=stop_and_continue)
    thread.start()
    try:
        yield
    finally:
        ending.set()
        thread.join()


@contextmanager
def impossible_transitions(bench: Bench) -> Iterator[None]:
    """Request transitions that are invalid in the active state, and unknown transitions."""
    assert not any(
        bench.change(transition_id) for transition_id in (CONFIGURE, ACTIVATE, CLEANUP, 0, 99, 255)
    )
    yield


@contextmanager
def calibration_that_never_came(bench: Bench) -> Iterator[None]:
    """Omit CameraInfo of CAM_BACK, and clean up the node, so that the node discards the
    calibration of CAM_BACK. A deactivation alone would keep the calibration.
    """
    with bench.stream.fault(info=lambda camera, info: [] if camera == BACK else [info]):
        for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
            assert bench.change(transition)
        yield


def flood(bench: Bench) -> AbstractContextManager:
    return bench.stream.fault(period_s=1 / 60)
