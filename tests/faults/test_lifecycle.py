"""Lifecycle tests: many cycles, concurrent requests, signals at any time."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State

from tests.faults.bench import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE, START_TIMEOUT_S, Bench
from tests.ros.graph import wait_until

ROUNDS = 100
WARM_UP = 50
"""Number of rounds until caches are filled. With ONNX Runtime, memory grows by 40 MB in the first
40 rounds, and by less than 20 MB in 100 later rounds."""
MAX_THREAD_GROWTH = 4
MAX_GROWTH_MB = 30.0
"""Limit for the growth of memory after the warm-up. If a network of these tests leaked in each
round, memory would grow by 45 MB per round."""
STORM_S = 10.0
STORM_PERIOD_S = 1 / 12
"""Trigger cycle during the concurrent requests, seconds. Shorter cycles overlap within the slop,
so stamps would not show whether the images of a set belong to one cycle."""
IMPORT_MOMENTS_S = (0.0, 0.3, 1.0)
"""Times between the first line of the program and the signal, seconds."""


def cycle_states(bench: Bench) -> None:
    for transition in (DEACTIVATE, CLEANUP, CONFIGURE, ACTIVATE):
        assert bench.change(transition)


def fail_to_activate(bench: Bench) -> None:
    """Let an activation fail because of an invalid topic name, then activate the node with the
    valid name.
    """
    assert bench.change(DEACTIVATE)
    assert bench.set('camera_info_topics', ['/no topic']) == ''
    assert not bench.change(ACTIVATE)
    assert bench.set('camera_info_topics', bench.values['camera_info_topics']) == ''
    assert bench.change(ACTIVATE)


def usage_when_healthy(bench: Bench) -> dict[str, float]:
    """Wait until the node is healthy, so that all threads of the node have run, and return the
    resources that the process of the node uses.
    """
    began = time.monotonic()
    wait_until(lambda: bench.is_healthy(began), 'a healthy node')
    return bench.usage()


def test_lifecycle_rounds_with_failed_activations_leak_no_memory_threads_or_file_handles(
    bench: Bench,
):
    for _ in range(WARM_UP):
        fail_to_activate(bench)
        cycle_states(bench)
    before = usage_when_healthy(bench)
    for _ in range(ROUNDS - WARM_UP):
        fail_to_activate(bench)
        cycle_states(bench)
    after = usage_when_healthy(bench)
    print(f'after {WARM_UP} rounds {before}, after {ROUNDS} rounds {after}')
    # The threads of an ONNX Runtime session end some time after the session. A thread pool may
    # have started its last threads after the warm-up. A leak would add one thread per round.
    most = before['threads'] + MAX_THREAD_GROWTH
    wait_until(
        lambda: bench.usage()['threads'] <= most,
        f'at most {most} threads instead of {after["threads"]}',
    )
    assert after['handles'] == before['handles']
    assert after['memory_mb'] - before['memory_mb'] < MAX_GROWTH_MB


def test_the_node_is_healthy_after_concurrent_images_parameters_and_transitions(bench: Bench):
    ends_at = time.monotonic() + STORM_S

    def set_parameters() -> None:
        number = 0
        while time.monotonic() < ends_at:
            number += 1
            bench.set('score_threshold', 0.001 * (number % 2))
            bench.set('camera_timeout_s', 0.8 + 0.1 * (number % 3))
            bench.set('min_cameras', 1 + number % 3)

    def drop_and_return() -> None:
        while time.monotonic() < ends_at:
            with bench.stream.fault(
                image=lambda camera, message: [] if 'FRONT' in camera else [message]
            ):
                time.sleep(0.3)
            bench.stream.send_extrinsics()
            bench.stream.shift_ns -= 10**9

    threads = [threading.Thread(target=target) for target in (set_parameters, drop_and_return)]
    began, first_round = time.monotonic(), len(bench.stream.rounds)
    with bench.stream.fault(period_s=STORM_PERIOD_S):
        for thread in threads:
            thread.start()
        while time.monotonic() < ends_at:
            cycle_states(bench)
        for thread in threads:
            thread.join()
    for name, value in (('score_threshold', 0.0), ('camera_timeout_s', 0.8), ('min_cameras', 1)):
        assert bench.set(name, value) == ''
    ended = time.monotonic()
    wait_until(lambda: bench.is_healthy(ended), 'a healthy node')
    assert not bench.mixed(began, first_round)
    assert not {problem for problem in bench.problems(began) if 'failed' in problem}


def test_the_node_is_unconfigured_after_cleanup_and_inactive_after_configure(bench: Bench):
    assert bench.change(DEACTIVATE)
    assert bench.change(CLEANUP)
    assert bench.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert bench.change(CONFIGURE)
    assert bench.state() == State.PRIMARY_STATE_INACTIVE
    assert bench.change(ACTIVATE)


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_imports_ends_the_program_without_a_traceback(
    bench: Bench, number: int
):
    for moment_s in IMPORT_MOMENTS_S:
        process = subprocess.Popen(
            [sys.executable, '-m', 'bevdepth_ros.detector'],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        wait_until(
            lambda process=process: catches(process.pid, signal.SIGTERM),
            'the first line of the program',
        )
        time.sleep(moment_s)
        process.send_signal(number)
        output = process.communicate(timeout=START_TIMEOUT_S)[0]
        assert process.returncode == 0
        assert 'Traceback' not in output, (moment_s, output)


def catches(pid: int, number: int) -> bool:
    """Return True if the process has a handler for the signal."""
    status = Path(f'/proc/{pid}/status').read_text()
    caught = int(
        next(line for line in status.splitlines() if line.startswith('SigCgt')).split()[1], 16
    )
    return bool(caught >> (number - 1) & 1)


def test_sigterm_ends_an_active_node_with_status_0_and_without_a_traceback(bench: Bench):
    """This must be the last test of the file, because it ends the node."""
    bench.process.send_signal(signal.SIGTERM)
    assert bench.process.wait(START_TIMEOUT_S) == 0
    assert 'Traceback' not in bench.log_text()
