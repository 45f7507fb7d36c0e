"""Handles requests for transitions that are invalid in the current state."""

from __future__ import annotations

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def respond_to_every_transition_request(node: LifecycleNode) -> None:
    """Respond to invalid requests with failure: rclpy raises instead of responding, so the client
    would wait forever.
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
            node.get_logger().warning(
                f'transition {request.transition.id} is invalid: {str(error).splitlines()[0]}'
            )
        except KeyboardInterrupt:  # the node ends; rclpy would log the exception as fatal
            pass
        response.success = False
        return response

    service.callback = respond
