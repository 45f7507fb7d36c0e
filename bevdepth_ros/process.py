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
"""Longest time, in seconds, until a spinning process handles a signal."""
PAUSE_S = 0.01
"""Pause after an exception, in seconds. Without a pause, repeated exceptions would use a whole CPU
core."""
LOG_PERIOD_S = 10.0
SWITCH_S = 0.0005
"""Switch interval of the Python interpreter. Python's default of 5 ms could delay each image set
by 5 ms at every hand-over between the receiving, detecting and publishing threads."""

NAME_FORMATS = {
    'node': 'the name of a node consists of letters, digits and _, and must not begin with a '
    'digit',
    'ns': 'a namespace begins with / and consists of letters, digits, _ and /; a / must not be '
    'followed by a digit or by another /',
}
_NAME_RULE = re.compile(r"remap rule: '.*?(__(node|ns):=.*)'\. Error")


def split_arguments(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split a command line into the arguments of the program and the arguments of ROS.

    The arguments of ROS are the words from ``--ros-args`` up to ``--`` or to the end. The program
    must pass only these words to rclpy, because rclpy interprets a word such as ``/old:=/new`` as
    a remapping even if this word is before ``--ros-args``.
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
        arguments: arguments of ROS; if None, the whole command line of the process.
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
    """End the process immediately. Before this call, nodes must be destroyed and files closed.

    A normal exit waits for the running threads and unloads torch. On a busy machine, this takes
    many seconds, so launch would kill the process.
    """
    # Nodes in reference cycles must be destroyed. Otherwise, other nodes would list them for 20 s.
    gc.collect()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _reason(error: Exception) -> str:
    """Return the reason of an error of rcl, and a remedy. The reason is the first part of rcl's
    message, without the names of source files.
    """
    reason = str(error).split(', at /')[0].strip()
    if name := _NAME_RULE.search(reason):
        return f'{name[1]} is invalid: {NAME_FORMATS[name[2]]}'
    if 'log directory' in reason:
        return f'{reason}; set ROS_LOG_DIR to a folder that can be written'
    return f'{reason}; check the names and values after --ros-args'


def start_problem(error: Exception) -> str:
    """Return why a node cannot be created. If the message of rclpy does not name the cause, return
    the cause and the remedy instead of the message.
    """
    if 'NOT_SET' in str(error):
        return (
            'a parameter has an empty list or no value, which rclpy rejects: write [""], or leave '
            'the parameter out'
        )
    return str(error)


def spin_until_signal(node: Node, on_error: Callable[[Exception], None] | None = None) -> None:
    """Execute the callbacks of ``node`` until SIGINT or SIGTERM.

    Args:
        node: the node, which continues after an exception in a callback. Callbacks of rclpy itself
            raise exceptions for some messages, such as a time before 1970 on /clock.
        on_error: called with the exception; if None, the exception is logged.
    """
    executor = make_executor()
    executor.add_node(node)
    # A timeout of the executor would not be sufficient: while messages arrive faster than they are
    # handled, the executor does not check its timeout.
    ended = Future()
    signals.on_signal = partial(ended.set_result, None)
    # Python calls a signal handler only between two Python instructions. While no messages arrive,
    # only this timer executes Python instructions.
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
    processor time of SingleThreadedExecutor, which builds a wait set of all entities after every
    callback. Humble does not have EventsExecutor.
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
