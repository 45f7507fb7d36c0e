"""Tests that every request for a lifecycle transition gets a response."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState

from bevdepth_ros.detector.transitions import respond_to_every_transition_request


@pytest.mark.parametrize(
    ('transition', 'name'),
    [(Transition(id=3), '3'), (Transition(label='activate'), 'activate')],
    ids=['id', 'label'],
)
@pytest.mark.parametrize(
    ('message', 'reason'),
    [('', ''), ('not valid\nat line 3', 'not valid')],
    ids=['empty', 'lines'],
)
def test_a_request_whose_callback_raises_an_error_gets_a_response_and_a_log_entry(
    transition: Transition, name: str, message: str, reason: str
) -> None:
    def change(request: ChangeState.Request, response: ChangeState.Response) -> None:
        raise RuntimeError(message)

    log: list[str] = []
    service = SimpleNamespace(srv_name='/detector/change_state', callback=change)
    node = SimpleNamespace(
        services=[service], get_logger=lambda: SimpleNamespace(warning=log.append)
    )
    respond_to_every_transition_request(node)
    request = ChangeState.Request(transition=transition)
    response = service.callback(request, ChangeState.Response(success=True))
    assert response.success is False
    assert log == [f'transition {name} is invalid: {reason}']
