"""Starts, spins and ends the processes of this package."""

from __future__ import annotations

import gc
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import NoReturn

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import Executor, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from bevdepth_ros.signals import interruptible, signals

SPIN_S = 0.2
"""Longest time until a spinning process handles a signal."""
PAUSE_S = 0.01
"""Pause after an exception, so that an exception that repeats does not use a whole CPU core."""
LOG_PERIOD_S = 10.0
SWITCH_S = 0.0005
"""Switch interval of the Python interpreter. Python's default of 5 ms could delay each image set
by 5 ms at every hand-over between the receiving, detecting and publishing threads."""

NAME_FORMATS = {
    'node': 'the name of a node consists of letters, digits and _, and begins with no digit',
    'ns': 'a namespace begins with / and consists of letters, digits, _ and /; after each / '
    'follows no digit and no second /',
}
_NAME_RULE = re.compile(r"remap rule: '.*?(__(node|ns):=.*)'\. Error")


def split_arguments(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the arguments of the program, and those of ROS: ``--ros-args`` up to ``--``.

    rclpy takes words such as ``/old:=/new`` for its own, even those before ``--ros-args``.
    """
    parts: tuple[list[str], list[str]] = [], []
    is_ros = False
    for word in words:
        is_ros = is_ros or word == '--ros-args'
        parts[is_ros].append(word)
        is_ros = is_ros and word != '--'
    return parts


@contextmanager
def ros_process(arguments: Sequence[str] | None = None) -> Iterator[None]:
    """Initialize rclpy for the body of the context, and shut it down afterwards, also on SIGINT
    and SIGTERM.

    A failure of rclpy, such as an invalid node name or a log folder that cannot be written, ends
    the process with a message.

    Args:
        arguments: arguments of ROS; None: all of the command line.
    """
    signals.note()
    sys.setswitchinterval(SWITCH_S)
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except (RuntimeError, OSError) as error:  # RCLError and UnknownROSArgsError are RuntimeErrors
        sys.exit(f'ROS 2 does not start: {_reason(error)}')
    try:
        with suppress(KeyboardInterrupt):
            yield
    finally:
        rclpy.shutdown()
        signals.ignore()


def end_process() -> NoReturn:
    """End the process at once, after its nodes were destroyed and its files were closed.

    A normal exit waits for threads that work and unloads torch, which takes many seconds on a busy
    machine, so that launch would kill the process.
    """
    gc.collect()  # destroys nodes in reference cycles: others would list them for 20 s
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _reason(error: Exception) -> str:
    """Return the first part of rcl's message, without the names of source files, and the
    remedy.
    """
    reason = str(error).split(', at /')[0].strip()
    if name := _NAME_RULE.search(reason):
        return f'{name[1]} is invalid: {NAME_FORMATS[name[2]]}'
    if 'log directory' in reason:
        return f'{reason}; set ROS_LOG_DIR to a folder that can be written'
    return f'{reason}; check the names and values after --ros-args'


def start_problem(error: Exception) -> str:
    """Return why a node cannot be created, with the remedy where rclpy does not name the cause."""
    if 'NOT_SET' in str(error):
        return (
            'a parameter has an empty list or no value, which rclpy rejects: write [""], or leave '
            'the parameter out'
        )
    return str(error)


def spin_until_signal(node: Node, on_error: Callable[[Exception], None] | None = None) -> None:
    """Execute the callbacks of ``node`` until SIGINT or SIGTERM.

    Args:
        node: continues after an exception in a callback. rclpy's own callbacks raise for some
            messages, such as a /clock before 1970.
        on_error: receives the exception; None logs it.
    """
    executor = make_executor()
    executor.add_node(node)
    # A timeout would not do: while messages arrive faster than they are handled, none is checked.
    ended = Future()
    signals.on_signal = partial(ended.set_result, None)
    # Python calls the handler of a signal only between its own instructions: the timer runs some.
    node.create_timer(SPIN_S, lambda: None, clock=Clock(clock_type=ClockType.STEADY_TIME))
    try:
        while not signals.received and node.context.ok():
            try:
                # spin_once would return after each event, which costs 50 us per message.
                executor.spin_until_future_complete(ended)
            except Exception as error:
                (on_error or partial(_log, node))(error)
                time.sleep(PAUSE_S)
    finally:
        signals.on_signal = None
        executor.shutdown()


def make_executor() -> Executor:
    """Return an executor that runs callbacks in the thread that spins it.

    rclpy's EventsExecutor receives a camera image in a third of the time and with a quarter of the
    processor time of SingleThreadedExecutor, which builds a set of all entities to wait for after
    every callback. Humble does not have it.
    """
    try:
        from rclpy.experimental import EventsExecutor
    except ImportError:
        return SingleThreadedExecutor()
    return EventsExecutor()


def callback_problem(error: Exception) -> str:
    """Return the message for an exception that a callback of rclpy raised."""
    return (
        f'a callback failed ({type(error).__name__}: {error}); a possible cause is an invalid '
        'time on /clock: check its publisher'
    )


def _log(node: Node, error: Exception) -> None:
    node.get_logger().error(callback_problem(error), throttle_duration_sec=LOG_PERIOD_S)


def sleep_until(due: float) -> None:
    """Sleep until time.monotonic() is ``due``; SIGINT and SIGTERM raise KeyboardInterrupt."""
    with interruptible():
        time.sleep(max(0.0, due - time.monotonic()))
