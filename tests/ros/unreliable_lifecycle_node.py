"""A lifecycle node with an unreliable service for transitions.

The first request for each transition has no effect and gets no response. The second request is
executed, but gets no response. Later requests get the response that the transition failed, because
the node is already in the new state.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import rclpy
from lifecycle_msgs.msg import State, Transition, TransitionEvent
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy._rclpy_pybind11 import InvalidHandle
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node

GOALS = {
    Transition.TRANSITION_CONFIGURE: State.PRIMARY_STATE_INACTIVE,
    Transition.TRANSITION_ACTIVATE: State.PRIMARY_STATE_ACTIVE,
}


class UnreliableLifecycleNode(Node):
    def __init__(self):
        super().__init__('bevdepth_detector')
        self._state, self._asked = State.PRIMARY_STATE_UNCONFIGURED, Counter()
        self._events = self.create_publisher(TransitionEvent, '~/transition_event', 10)
        self.create_service(GetState, '~/get_state', self._get_state)
        self._serve_changes()

    def _serve_changes(self) -> None:
        self._service = self.create_service(ChangeState, '~/change_state', self._change)

    def _get_state(self, _, response: GetState.Response) -> GetState.Response:
        response.current_state.id = self._state
        return response

    def _change(
        self, request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        transition = request.transition.id
        self._asked[transition] += 1
        response.success = self._asked[transition] > 1 and self._state != GOALS[transition]
        if response.success:
            self._state = GOALS[transition]
        if self._asked[transition] < 3:
            self.destroy_service(self._service)  # without the service, no response is sent
            self._serve_changes()
        return response


if __name__ == '__main__':
    rclpy.init()
    node = UnreliableLifecycleNode()
    with suppress(KeyboardInterrupt, ExternalShutdownException):
        while rclpy.ok():
            with suppress(InvalidHandle):
                rclpy.spin(node)
