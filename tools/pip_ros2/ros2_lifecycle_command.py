"""``ros2 lifecycle`` for the pip-only ROS 2, which does not have this command."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import rclpy
from lifecycle_msgs.srv import ChangeState, GetAvailableTransitions, GetState
from rclpy.node import Node
from ros2cli.command import CommandExtension

DISCOVERY_S = 10.0
"""Longest wait for the discovery of the services of a node, seconds."""
SETTLE_S = 3.0
"""Time to discover nodes before the lifecycle nodes are listed, seconds."""
RESPONSE_S = 300.0
"""Longest wait for the response of a service, seconds; a transition may take long."""


class LifecycleError(Exception):
    """A request to a node failed; the message gives the reason."""


class LifecycleCommand(CommandExtension):
    """Get and change the state of lifecycle nodes."""

    def add_arguments(self, parser: argparse.ArgumentParser, cli_name: str) -> None:
        """Declare the verbs get, set, list and nodes."""
        verbs = parser.add_subparsers(dest='verb', required=True)
        get = verbs.add_parser('get', help='print the state of a node, or of all lifecycle nodes')
        get.add_argument('node', nargs='?')
        change = verbs.add_parser('set', help='trigger a transition of a node')
        change.add_argument('node')
        change.add_argument('transition', help='label, such as configure or activate')
        available = verbs.add_parser('list', help='print the transitions that are possible now')
        available.add_argument('node')
        verbs.add_parser('nodes', help='print the lifecycle nodes')

    def main(self, *, parser: argparse.ArgumentParser, args: argparse.Namespace) -> int | str:
        """Run the verb; return 0, or an error message if the verb fails."""
        try:
            with _node() as node:
                for line in getattr(self, f'_{args.verb}')(node, args):
                    print(line)
        except LifecycleError as error:
            return str(error)
        return 0

    def _get(self, node: Node, args: argparse.Namespace) -> Iterator[str]:
        if args.node:
            yield _state(node, args.node)
        else:
            for name in lifecycle_nodes(node):
                yield f'{name}: {_state(node, name)}'

    def _set(self, node: Node, args: argparse.Namespace) -> Iterator[str]:
        request = ChangeState.Request()
        request.transition.label = args.transition
        if not _call(node, args.node, ChangeState, 'change_state', request).success:
            raise LifecycleError(
                f'{args.node} did not {args.transition}; its log and `ros2 lifecycle list '
                f'{args.node}` show why'
            )
        yield 'Transitioning successful'

    def _list(self, node: Node, args: argparse.Namespace) -> Iterator[str]:
        service, name = GetAvailableTransitions, 'get_available_transitions'
        response = _call(node, args.node, service, name, service.Request())
        for transition in response.available_transitions:
            yield f'- {transition.transition.label} [{transition.transition.id}]'
            yield f'\tStart: {transition.start_state.label}'
            yield f'\tGoal: {transition.goal_state.label}'

    def _nodes(self, node: Node, args: argparse.Namespace) -> Iterator[str]:
        yield from lifecycle_nodes(node)


@contextmanager
def _node() -> Iterator[Node]:
    rclpy.init()
    node = Node('_ros2_lifecycle', start_parameter_services=False)
    try:
        yield node
    finally:
        node.destroy_node()
        rclpy.try_shutdown()


def lifecycle_nodes(node: Node) -> list[str]:
    """Return the names of all lifecycle nodes."""
    time.sleep(SETTLE_S)
    suffix, kind = '/get_state', 'lifecycle_msgs/srv/GetState'
    services = node.get_service_names_and_types()
    return sorted(name.removesuffix(suffix) for name, kinds in services if kind in kinds)


def _state(node: Node, name: str) -> str:
    state = _call(node, name, GetState, 'get_state', GetState.Request()).current_state
    return f'{state.label} [{state.id}]'


def _call(node: Node, name: str, service: Any, service_name: str, request: Any) -> Any:
    """Return the response of a service of the node ``name``."""
    full = name if name.startswith('/') else f'/{name}'
    client = node.create_client(service, f'{full}/{service_name}')
    if not client.wait_for_service(DISCOVERY_S):
        raise LifecycleError(
            f'{full} is not a lifecycle node in this domain; see `ros2 node list`'
        )
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=RESPONSE_S)
    if not future.done():
        raise LifecycleError(f'{full} did not respond within {RESPONSE_S:.0f} s')
    return future.result()
