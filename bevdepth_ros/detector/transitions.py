"""Responds to requests for transitions that are invalid in the current state."""

from __future__ import annotations

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def respond_to_every_transition_request(node: LifecycleNode) -> None:
    """Make ``node`` respond with a failure to requests for invalid transitions. Without this
    change, rclpy raises an exception and sends no response, so the client waits forever.
    """
    (service,) = (
        service for service in node.services if service.srv_name.endswith('/change_state')
    )
    change = service.callback

    def respond(
        request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        try:
            return change(request, response)
        except Exception as error:
            name = request.transition.label or request.transition.id
            reason = str(error).partition('\n')[0]
            node.get_logger().warning(f'transition {name} is invalid: {reason}')
        except KeyboardInterrupt:
            # SIGINT arrived during the transition, for example while weights were being loaded.
            # The process ends after this response. If the exception left this function, rclpy
            # would log a fatal error.
            pass
        response.success = False
        return response

    service.callback = respond
