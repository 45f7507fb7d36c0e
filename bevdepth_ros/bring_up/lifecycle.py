"""Configures and activates a lifecycle node of a launch; repeats requests that DDS loses."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from launch import Event, EventHandler, LaunchContext
from launch.actions import OpaqueCoroutine, OpaqueFunction, RegisterEventHandler
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode, Node
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

EARLIEST_S = 0.5
"""A node that is discovered before this time is not ours, which is still importing torch."""
EARLIEST_PROCESSOR_S = 1.0
"""A node that is discovered before our process has used this much processor time is not ours
either: the process needs several times as much before its node exists. On a busy machine, import
and discovery take longer."""
LATEST_S = 60.0
"""After this time, we assume that the process starts the node in another process, so its processor
time is not considered."""
OTHERS_TIMEOUT_S = 30.0
"""Longest wait for the end of other nodes with the same name, seconds. DDS lists killed nodes
for 20 s."""
APPEARANCE_TIMEOUT_S = 600.0
"""Longest wait until the node is discovered; importing torch takes minutes on a busy machine."""
RESPONSE_S = 1.0
"""A request without a response for this time is sent again, unless the node is in a transition."""
ATTEMPTS = 5
FIRST_LOG_S = 5.0
"""Waiting is first logged after this time, seconds, then after twice this time, and so on."""
SLOW_S = 300.0
"""Waiting is normal before this time, and logged as a warning after it."""
POLL_S = 0.05


class BringUpError(Exception):
    """The node did not become active; the message gives the reason.

    Attributes:
        is_recoverable: the node runs, and can be configured and activated by hand.
    """

    def __init__(self, message: str, is_recoverable: bool = False) -> None:
        super().__init__(message)
        self.is_recoverable = is_recoverable


class BringUpEnded(Event):
    """The bring-up of a node has succeeded or failed.

    Attributes:
        node: the node; a launch can bring up several.
        error: why it failed; None if the node is active.
    """

    name = 'bevdepth_ros.BringUpEnded'

    def __init__(self, node: LifecycleNode, error: BringUpError | None) -> None:
        self.node, self.error = node, error


def bring_up(
    node: LifecycleNode,
    autostart: bool,
    on_end: Callable[[LaunchContext, BringUpError | None], list],
    subscriber: Node | None = None,
    topic: str = '',
) -> list:
    """Return actions that configure and activate a node, to be executed after the action that
    starts it.

    Args:
        node: the lifecycle node.
        autostart: false: only wait until the node is active; the user changes its state.
        on_end: receives the launch context and the BringUpError, or None if the node is active,
            and returns actions.
        subscriber: node of the same launch that must also subscribe to ``topic`` first.
        topic: fully qualified name.
    """

    async def run(context: LaunchContext) -> None:
        with suppress(asyncio.CancelledError):  # launch would report it as an error of this action
            error = await _BringUp(context, node, subscriber, topic).error(autostart)
            await context.emit_event(BringUpEnded(node, error))

    def ended(context: LaunchContext) -> list:
        return [] if context.is_shutdown else on_end(context, context.locals.event.error)

    handler = EventHandler(
        matcher=lambda event: isinstance(event, BringUpEnded) and event.node is node,
        entities=[OpaqueFunction(function=ended)],
    )
    return [RegisterEventHandler(handler), OpaqueCoroutine(coroutine=run)]


def processor_time_s(pid: int) -> float:
    """Return the processor time that a process and its children have used, seconds."""
    children: list[str] = []
    with suppress(OSError):  # a kernel without CONFIG_PROC_CHILDREN has no such file
        children = Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    try:
        times = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[11:13]
    except OSError:  # it has ended
        return 0.0
    own_s = sum(map(int, times)) / os.sysconf('SC_CLK_TCK')
    return own_s + sum(processor_time_s(int(child)) for child in children)


class _BringUp:
    """Asks a node for its state and for transitions until it is active.

    DDS can lose a request or a response, even after both sides have discovered the service. So a
    request without a response is sent again, and success is read from the state of the node.
    """

    def __init__(
        self, context: LaunchContext, node: LifecycleNode, subscriber: Node | None, topic: str
    ) -> None:
        self._ros, self._process, self._name = get_ros_node(context), node, node.node_name
        self._subscriber, self._topic = subscriber, topic
        self._get = self._ros.create_client(GetState, f'{self._name}/get_state')
        self._change = self._ros.create_client(ChangeState, f'{self._name}/change_state')
        self._log = get_logger('bring_up')
        self._began, self._log_due_s = time.monotonic(), FIRST_LOG_S

    async def error(self, autostart: bool) -> BringUpError | None:
        """Bring the node up; return None when it is active, or the error."""
        try:
            await self._run(autostart)
        except BringUpError as error:
            return error
        return None

    async def _run(self, autostart: bool) -> None:
        await self._wait_for_the_only_node()
        if autostart:
            await self._reach(
                'configure', Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE
            )
            await self._reach(
                'activate', Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE
            )
        else:
            while await self._state() != State.PRIMARY_STATE_ACTIVE:
                await asyncio.sleep(10 * POLL_S)
        await self._wait_for_subscriber()

    async def _wait_for_the_only_node(self) -> None:
        """Wait until no other node has this name, because it would receive our requests."""
        others = await self._others()
        while len(nodes := self._nodes()) != 1 or nodes & others:
            if len(nodes) > 1 or nodes & others:
                timeout_s, reason = OTHERS_TIMEOUT_S, self._name_is_taken()
            else:
                timeout_s, reason = APPEARANCE_TIMEOUT_S, 'its process is starting'
            if self._seconds() > timeout_s:
                raise BringUpError(f'{self._name} is not active: {reason}')
            await self._pause(reason)

    async def _others(self) -> set[tuple]:
        """Return the nodes of this name that were discovered too early to be ours."""
        others: set[tuple] = set()
        nodes = self._nodes()
        while self._seconds() < EARLIEST_S or self._is_importing():
            others |= nodes
            await self._pause()
            nodes = self._nodes()
        if others:
            self._log.warning(f'{self._name_is_taken()}; waiting until it ends')
        return others

    def _is_importing(self) -> bool:
        details = self._process.process_details
        used_s = processor_time_s(details['pid']) if details else 0.0
        return used_s < EARLIEST_PROCESSOR_S and self._seconds() < LATEST_S

    def _nodes(self) -> set[tuple]:
        """Return an identity of each discovered node of this name."""
        return {
            tuple(info.endpoint_gid)
            for info in self._ros.get_publishers_info_by_topic(f'{self._name}/transition_event')
        }

    def _name_is_taken(self) -> str:
        domain = os.environ.get('ROS_DOMAIN_ID') or 0
        return (
            f'another node in ROS domain {domain} is named {self._name}: end it, or set '
            'namespace:= or ROS_DOMAIN_ID'
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    async def _reach(self, verb: str, transition_id: int, goal: int) -> None:
        for _ in range(ATTEMPTS):
            response = await self._request(transition_id, f'it has the request to {verb}')
            if await self._state() == goal:
                return
            if response is not None and not response.success:
                raise BringUpError(
                    f'{self._name} did not {verb}; the node has logged the reason above',
                    is_recoverable=True,
                )
            self._log.info(f'no response of {self._name} to {verb}; sending the request again')
        raise BringUpError(
            f'{self._name} did not respond to {ATTEMPTS} requests to {verb}', is_recoverable=True
        )

    async def _request(self, transition_id: int, waiting: str) -> ChangeState.Response | None:
        """Request a transition and wait for its end; return None when the request or the response
        was lost.
        """
        future = self._change.call_async(
            ChangeState.Request(transition=Transition(id=transition_id))
        )
        while not await self._is_done(future, waiting):
            await self._state(waiting)  # a node in a transition responds after it
            if not await self._is_done(future, waiting):
                self._change.remove_pending_request(future)
                return None
        return future.result()

    async def _state(self, waiting: str = 'it does not respond') -> int:
        while True:
            future = self._get.call_async(GetState.Request())
            if await self._is_done(future, waiting):
                return future.result().current_state.id
            self._get.remove_pending_request(future)

    async def _is_done(self, future: Any, waiting: str) -> bool:
        """Return True if a response came within RESPONSE_S."""
        deadline = time.monotonic() + RESPONSE_S
        while not future.done() and time.monotonic() < deadline:
            await self._pause(waiting)
        return future.done()

    async def _wait_for_subscriber(self) -> None:
        while self._subscriber is not None and not self._has_subscriber():
            if self._subscriber.return_code is not None:
                raise BringUpError(
                    f'{self._subscriber.node_package} {self._subscriber.node_executable} ended '
                    f'with exit status {self._subscriber.return_code} before it subscribed'
                )
            await self._pause(f'{self._topic} has no subscriber yet')

    def _has_subscriber(self) -> bool:
        return self._ros.count_subscribers(self._topic) > 0

    async def _pause(self, waiting: str = '') -> None:
        """Sleep for ``POLL_S``; log the reason at intervals; raise if the node's process ended."""
        if self._process.return_code is not None:
            raise BringUpError(
                f'{self._name} ended with exit status {self._process.return_code} before it was '
                'active'
            )
        if (seconds := self._seconds()) > self._log_due_s:
            self._log_due_s = 2 * seconds
            log = self._log.info if seconds < SLOW_S else self._log.warning
            log(f'waiting for {self._name} for {seconds:.0f} s: {waiting}')
        await asyncio.sleep(POLL_S)
