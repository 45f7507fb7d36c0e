"""Configures and activates a lifecycle node of a launch, and repeats requests that DDS lost.

The terms of this module:

* Our node: the lifecycle node that this launch starts and brings up.
* Bring-up: the actions from the start of the process of our node until our node is active and, if
  required, a topic has a subscriber.
* Other node: another node with the same name as our node. The other node would also receive the
  requests to our node, so the bring-up waits until the other node ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from launch import Event, EventHandler, LaunchContext
from launch.actions import OpaqueCoroutine, OpaqueFunction, RegisterEventHandler
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode, Node
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

OTHERS_TIMEOUT_S = 30.0
"""Longest wait, in seconds, until the other nodes have ended. DDS lists a killed node for another
20 s."""
APPEARANCE_TIMEOUT_S = 600.0
"""Longest wait, in seconds, until DDS has discovered our node. Importing torch takes minutes on a
busy machine."""
RESPONSE_S = 1.0
"""A request is sent again if no response arrives within this time, in seconds, unless the node is
in a transition."""
ATTEMPTS = 5
"""Largest number of times that a transition is requested."""
FIRST_LOG_S = 5.0
"""Waiting is logged after this time, in seconds, and again each time the waiting time has
doubled."""
SLOW_S = 300.0
"""Waiting is logged as information before this time, in seconds, and as a warning after it."""
POLL_S = 0.05
"""Interval, in seconds, at which responses and the process of our node are checked."""
GRAPH_POLL_S = 1.0
"""Interval, in seconds, at which the launch searches for other nodes after the bring-up."""
SIGNAL_S = 5.0
"""Ctrl-C reaches the launch and its processes in any order. The end of a process after Ctrl-C is
an error only if the launch does not shut down within this time, in seconds."""


class BringUpError(Exception):
    """The node did not become active; the message gives the reason.

    Attributes:
        transition: label of the transition that failed. The user can request this transition
            again after removing the cause. Empty if no transition failed.
    """

    def __init__(self, message: str, transition: str = '') -> None:
        super().__init__(message)
        self.transition = transition


class BringUpEnded(Event):
    """The bring-up of a node has succeeded or failed.

    Attributes:
        node: the node; a launch can bring up several nodes.
        error: error of the bring-up; None if the node is active.
    """

    name = 'bevdepth_ros.BringUpEnded'

    def __init__(self, node: LifecycleNode, error: BringUpError | None) -> None:
        self.node, self.error = node, error


def bring_up(
    node: LifecycleNode,
    enclave: str,
    autostart: bool,
    on_end: Callable[[LaunchContext, BringUpError | None], list],
    subscriber: Node | None = None,
    topic: str = '',
) -> list:
    """Return launch actions that configure and activate a node. Execute them after the action
    that starts the process of the node.

    Args:
        node: the lifecycle node.
        enclave: result of ``new_enclave``; the node must have received it as its ROS argument
            ``--enclave``.
        autostart: if False, the actions only wait until the node is active, and the user must
            request the transitions.
        on_end: called at the end of the bring-up with two arguments: the launch context, and the
            BringUpError, which is None if the node is active. Returns the actions that launch
            then executes.
        subscriber: another node of this launch, or None. If a node is given, the bring-up ends
            only after ``topic`` has a subscriber.
        topic: fully qualified name of the topic for ``subscriber``.
    """

    async def run(context: LaunchContext) -> None:
        with suppress(asyncio.CancelledError):  # launch would report the cancellation as an error
            started = _BringUp(context, node, enclave, subscriber, topic)
            error = await started.attempt(autostart)
            await context.emit_event(BringUpEnded(node, error))
            await started.report_other_nodes()

    def ended(context: LaunchContext) -> list:
        return [] if context.is_shutdown else on_end(context, context.locals.event.error)

    handler = EventHandler(
        matcher=lambda event: isinstance(event, BringUpEnded) and event.node is node,
        entities=[OpaqueFunction(function=ended)],
    )
    return [RegisterEventHandler(handler), OpaqueCoroutine(coroutine=run)]


def new_enclave() -> str:
    """Return a new enclave, which only the node of this launch has. If SROS 2 is in use, return
    '', because the keys of SROS 2 belong to enclaves that the user chooses.

    The ROS graph lists the enclave of each node. If two nodes have the same name, the enclave
    shows which node belongs to this launch.
    """
    is_secure = os.environ.get('ROS_SECURITY_ENABLE', '').lower() == 'true'
    return '' if is_secure else f'/bevdepth_{uuid.uuid4().hex}'


def is_interrupted(return_code: int | None) -> bool:
    """Return True if SIGINT or SIGTERM may have ended a process that has this exit status."""
    return return_code in (0, -signal.SIGINT, -signal.SIGTERM)


class _BringUp:
    """Requests the transitions of a node until the node is active.

    DDS can lose a request or a response, even after both sides have discovered the service. So a
    request without a response is sent again. The state of the node shows whether a transition
    succeeded.
    """

    def __init__(
        self,
        context: LaunchContext,
        node: LifecycleNode,
        enclave: str,
        subscriber: Node | None,
        topic: str,
    ) -> None:
        self._ros, self._process, self._name = get_ros_node(context), node, node.node_name
        self._enclave, self._subscriber, self._topic = enclave, subscriber, topic
        self._get = self._ros.create_client(GetState, f'{self._name}/get_state')
        self._change = self._ros.create_client(ChangeState, f'{self._name}/change_state')
        self._log = get_logger('bring_up')
        self._began, self._log_due_s = time.monotonic(), FIRST_LOG_S
        self._is_reported = False

    async def attempt(self, autostart: bool) -> BringUpError | None:
        """Bring up our node; return None after a success, otherwise the error. If a signal may
        have ended a process, return only after ``SIGNAL_S``.
        """
        try:
            await self._run(autostart)
        except BringUpError as error:
            processes = filter(None, (self._process, self._subscriber))
            if any(is_interrupted(process.return_code) for process in processes):
                await asyncio.sleep(SIGNAL_S)
            return error
        return None

    async def report_other_nodes(self) -> None:
        """Report other nodes until the process of our node ends. DDS may discover another node
        only seconds after our node has become active.
        """
        while self._process.return_code is None:
            self._find_others()
            await asyncio.sleep(GRAPH_POLL_S)

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
        """Wait until our node is discovered and there is no other node. Raise BringUpError after
        ``APPEARANCE_TIMEOUT_S`` or ``OTHERS_TIMEOUT_S``.
        """
        while not self._nodes()[0]:
            if self._seconds() > APPEARANCE_TIMEOUT_S:
                raise BringUpError(
                    f'{self._name} was not discovered within {APPEARANCE_TIMEOUT_S:.0f} s, '
                    'although its process runs; check the network settings of ROS'
                )
            await self._pause('its process is starting')
        if self._find_others():
            self._log.info(
                f'no requests are sent to {self._name} until the other node of this name has ended'
            )
        deadline = time.monotonic() + OTHERS_TIMEOUT_S
        while self._find_others():
            if time.monotonic() > deadline:
                raise BringUpError(f'{self._name} is not active: {self._name_is_taken()}')
            await self._pause(self._name_is_taken())

    def _find_others(self) -> bool:
        """Return True if there is another node; log a warning when another node appears."""
        has_others = bool(self._nodes()[1])
        if has_others and not self._is_reported:
            self._log.warning(self._name_is_taken())
        self._is_reported = has_others
        return has_others

    def _nodes(self) -> tuple[list[str], list[str]]:
        """Return the enclaves of the discovered nodes that have the name of our node, as two
        lists. The first list contains our node after its discovery. The second list contains the
        other nodes. Without an enclave of our node, the first node found is taken as our node.
        """
        enclaves = [
            enclave
            for name, namespace, enclave in self._ros.get_node_names_and_namespaces_with_enclaves()
            if f'{namespace.rstrip("/")}/{name}' == self._name
        ]
        if not self._enclave:
            return enclaves[:1], enclaves[1:]
        ours = [enclave for enclave in enclaves if enclave == self._enclave]
        return ours, [enclave for enclave in enclaves if enclave != self._enclave]

    def _name_is_taken(self) -> str:
        domain = os.environ.get('ROS_DOMAIN_ID') or 0
        return (
            f'another node in ROS domain {domain} is named {self._name}: end the other node, or '
            'set namespace:= or ROS_DOMAIN_ID'
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    async def _reach(self, verb: str, transition_id: int, goal: int) -> None:
        """Request a transition until our node is in the state ``goal``.

        Args:
            verb: label of the transition, for messages.
            transition_id: id of the transition.
            goal: id of the state after the transition.

        Raises:
            BringUpError: the transition failed, or our node did not respond.
        """
        for _ in range(ATTEMPTS):
            await self._wait_for_the_only_node()
            response = await self._request(
                transition_id, f'the node has not yet responded to the request to {verb}'
            )
            if await self._state() == goal:
                return
            if response is not None and not response.success:
                # An interrupted node first fails the transition, and then its process ends.
                await self._watch(RESPONSE_S)
                raise BringUpError(
                    f'{self._name} did not {verb}; the node has logged the reason above', verb
                )
            state = 'active' if goal == State.PRIMARY_STATE_ACTIVE else 'inactive'
            self._log.info(
                f'{self._name} is not yet {state} after the request to {verb}; sending it again'
            )
        raise BringUpError(
            f'{self._name} did not respond to {ATTEMPTS} requests to {verb}; check the network '
            'settings of ROS',
            verb,
        )

    async def _request(self, transition_id: int, waiting: str) -> ChangeState.Response | None:
        """Request a transition and return the response, which arrives at the end of the
        transition. Return None if the request or the response was lost: our node responds to a
        request for its state, but not to the request for the transition. ``waiting`` is the reason
        that is logged while this function waits.
        """
        future = self._change.call_async(
            ChangeState.Request(transition=Transition(id=transition_id))
        )
        while not await self._is_done(future, waiting):
            await self._state(waiting)  # the node responds only after the end of a transition
            if not await self._is_done(future, waiting):
                self._change.remove_pending_request(future)
                return None
        return future.result()

    async def _state(self, waiting: str = 'the node does not respond') -> int:
        """Return the id of the state of our node. Repeat the request until a response arrives,
        which is after the end of a transition.
        """
        while True:
            future = self._get.call_async(GetState.Request())
            if await self._is_done(future, waiting):
                return future.result().current_state.id
            self._get.remove_pending_request(future)

    async def _is_done(self, future: Any, waiting: str) -> bool:
        """Wait for at most RESPONSE_S; return True if the response in ``future`` has arrived."""
        deadline = time.monotonic() + RESPONSE_S
        while not future.done() and time.monotonic() < deadline:
            await self._pause(waiting)
        return future.done()

    async def _wait_for_subscriber(self) -> None:
        """If a subscriber is expected, wait until the topic has one. Raise BringUpError if the
        process of the subscriber ends before.
        """
        while self._subscriber is not None and not self._has_subscriber():
            if self._subscriber.return_code is not None:
                raise BringUpError(
                    f'{self._subscriber.node_package} {self._subscriber.node_executable} ended '
                    f'with exit status {self._subscriber.return_code} before it subscribed; its '
                    'output above contains the reason'
                )
            await self._pause(f'{self._topic} has no subscriber yet')

    def _has_subscriber(self) -> bool:
        return self._ros.count_subscribers(self._topic) > 0

    async def _watch(self, seconds: float) -> None:
        """Wait for ``seconds``; raise BringUpError if the node's process ends during this time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            await self._pause()

    async def _pause(self, waiting: str = '') -> None:
        """Sleep for ``POLL_S``. Log ``waiting``, the reason for the wait, at growing intervals.
        Raise BringUpError if the node's process has ended.
        """
        self._find_others()
        if self._process.return_code is not None:
            raise BringUpError(
                f'{self._name} ended with exit status {self._process.return_code} before it was '
                'active; its output above contains the reason'
            )
        if (seconds := self._seconds()) > self._log_due_s:
            self._log_due_s = 2 * seconds
            log = self._log.info if seconds < SLOW_S else self._log.warning
            log(f'waiting for {self._name} for {seconds:.0f} s: {waiting}')
        await asyncio.sleep(POLL_S)
