"""Brings the lifecycle node of a launch up, whatever DDS loses, and says what keeps it down."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import suppress

from launch import Event, EventHandler, LaunchContext
from launch.actions import OpaqueCoroutine, OpaqueFunction, RegisterEventHandler
from launch.logging import get_logger
from launch_ros.actions import LifecycleNode
from launch_ros.ros_adapters import get_ros_node
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState

EARLIEST_S = 0.5
"""A node that is heard before this time is another one: ours is still importing torch."""
OTHERS_PATIENCE_S = 30.0
"""How long others of the same name may take to leave; DDS keeps those that were killed for 20
s."""
APPEARANCE_PATIENCE_S = 180.0
"""How long the node may take to appear, on a machine that is busy or reads from a slow disk."""
ANSWER_S = 1.0
"""Requests that are not answered for this time are repeated, unless the node is at work."""
ATTEMPTS = 5
WORD_PERIOD_S = 5.0
"""While nothing happens, what is waited for is said so often."""
POLL_S = 0.05


class BringUpError(Exception):
    """The node is not active; the message says why.

    Attributes:
        mendable: the node runs, and can be configured and activated by hand.
    """

    def __init__(self, sentence: str, mendable: bool = False):
        super().__init__(sentence)
        self.mendable = mendable


class BringUpEnded(Event):
    """The node is active, or it is known why not."""

    name = 'bevdepth_ros.BringUpEnded'

    def __init__(self, error: BringUpError | None):
        self.error = error


def bring_up(detector: LifecycleNode, autostart: bool, on_end) -> list:
    """Return actions that configure and activate a node, to be executed after the action that
    starts it.

    Args:
        detector: the node.
        autostart: without it, others change its state, and its being active is waited for.
        on_end: function of the launch context and the BringUpError, None where the node is active,
            that returns actions.
    """

    async def run(context: LaunchContext) -> None:
        with suppress(
            asyncio.CancelledError
        ):  # when the launch ends, which would take it for a failure of its own
            await context.emit_event(
                BringUpEnded(await _BringUp(context, detector).error(autostart))
            )

    def ended(context: LaunchContext) -> list:
        return [] if context.is_shutdown else on_end(context, context.locals.event.error)

    handler = EventHandler(
        matcher=lambda event: isinstance(event, BringUpEnded),
        entities=[OpaqueFunction(function=ended)],
    )
    return [RegisterEventHandler(handler), OpaqueCoroutine(coroutine=run)]


class _BringUp:
    """Asks the node for its state and for transitions until it is active.

    A request or an answer can be lost, also when the service is there: DDS lets either side know
    the other first. So what counts is the state that the node tells, and everything is asked
    again.
    """

    def __init__(self, context: LaunchContext, detector: LifecycleNode):
        self._node, self._detector, self._name = (
            get_ros_node(context),
            detector,
            detector.node_name,
        )
        self._get = self._node.create_client(GetState, f'{self._name}/get_state')
        self._change = self._node.create_client(ChangeState, f'{self._name}/change_state')
        self._log = get_logger('bring_up')
        self._began = self._spoke_at = time.monotonic()

    async def error(self, autostart: bool) -> BringUpError | None:
        """Return None when the node is active, otherwise why it is not."""
        try:
            await self._run(autostart)
        except BringUpError as error:
            return error
        return None

    async def _run(self, autostart: bool) -> None:
        await self._be_alone()
        if autostart:
            await self._reach(
                'configured', Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE
            )
            await self._reach(
                'activated', Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE
            )
        else:
            while await self._state() != State.PRIMARY_STATE_ACTIVE:
                await asyncio.sleep(10 * POLL_S)

    async def _be_alone(self) -> None:
        """Wait until the node is there, and no other of its name: that one would take its
        requests.
        """
        others = await self._others()
        while len(here := self._nodes()) != 1 or here & others:
            if len(here) > 1 or here & others:
                patience_s, fault = OTHERS_PATIENCE_S, self._name_taken()
            else:
                patience_s, fault = APPEARANCE_PATIENCE_S, 'it does not appear in the ROS graph'
            if self._seconds() > patience_s:
                raise BringUpError(f'{self._name} is not active: {fault}')
            await self._pause(fault)

    async def _others(self) -> set[tuple]:
        others: set[tuple] = set()
        here = self._nodes()
        while self._seconds() < EARLIEST_S:
            others |= here
            await self._pause()
            here = self._nodes()
        if others:
            self._log.warning(f'{self._name_taken()}; waiting for its end')
        return others

    def _nodes(self) -> set[tuple]:
        """Return an identity of each node of this name that is known."""
        return {
            tuple(info.endpoint_gid)
            for info in self._node.get_publishers_info_by_topic(f'{self._name}/transition_event')
        }

    def _name_taken(self) -> str:
        domain = os.environ.get('ROS_DOMAIN_ID') or 0
        return (
            f'another node in ROS domain {domain} is named {self._name}: end it, or set '
            'namespace:= or ROS_DOMAIN_ID'
        )

    def _seconds(self) -> float:
        return time.monotonic() - self._began

    async def _reach(self, done: str, transition_id: int, goal: int) -> None:
        for _ in range(ATTEMPTS):
            answer = await self._request(transition_id, f'it is being {done}')
            if await self._state() == goal:
                return
            if answer is not None and not answer.success:
                raise BringUpError(
                    f'the detector was not {done}, for the reason that it gave above',
                    mendable=True,
                )
            self._log.warning(f'{self._name} did not hear that it shall be {done}: asking again')
        raise BringUpError(
            f'{self._name} did not hear {ATTEMPTS} times that it shall be {done}', mendable=True
        )

    async def _request(self, transition_id: int, waiting: str) -> ChangeState.Response | None:
        """Ask for a transition, however long it takes; return None when request or answer was
        lost.
        """
        future = self._change.call_async(
            ChangeState.Request(transition=Transition(id=transition_id))
        )
        while not await self._is_done(future, waiting):
            await self._state(waiting)  # which a node at work answers afterwards
            if not await self._is_done(future, waiting):
                self._change.remove_pending_request(future)
                return None
        return future.result()

    async def _state(self, waiting: str = 'it does not answer') -> int:
        while True:
            future = self._get.call_async(GetState.Request())
            if await self._is_done(future, waiting):
                return future.result().current_state.id
            self._get.remove_pending_request(future)

    async def _is_done(self, future, waiting: str) -> bool:
        """Return whether an answer came within ANSWER_S."""
        deadline = time.monotonic() + ANSWER_S
        while not future.done() and time.monotonic() < deadline:
            await self._pause(waiting)
        return future.done()

    async def _pause(self, waiting: str = '') -> None:
        """Sleep a little; say now and then what is waited for, and end with the node's process."""
        if self._detector.return_code is not None:
            raise BringUpError(
                f'the detector ended with exit status {self._detector.return_code} before it was '
                'active'
            )
        now = time.monotonic()
        if now - self._spoke_at > WORD_PERIOD_S:
            self._spoke_at = now
            self._log.warning(
                f'{self._name} is not active after {self._seconds():.0f} s: {waiting}'
            )
        await asyncio.sleep(POLL_S)
