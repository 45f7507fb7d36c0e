"""Tests how processes get ROS domains."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bevdepth_ros.launching import LaunchError, domain_variables, free_domain
from tests.ros.graph import wait_until

ISOLATED = 'from bevdepth_ros.launching import isolate; isolate()\n'
GRAPH = """
import os, rclpy
rclpy.init()
node = rclpy.create_node('whole_graph')
print(os.environ['ROS_DOMAIN_ID'], flush=True)
while input():
    print(node.get_node_names().count('whole_graph'), flush=True)
rclpy.shutdown()
"""


class Process:
    """A process that prints its ROS domain. Then it prints, for each line of input, the number of
    nodes called ``whole_graph`` that it discovers, including its own node.
    """

    def __init__(self, program: str, environment: dict[str, str]):
        self._process = subprocess.Popen(
            [sys.executable, '-c', program],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def printed_number(self) -> int:
        return int(self._process.stdout.readline())

    def discovered_nodes(self) -> int:
        print('count', file=self._process.stdin, flush=True)
        return self.printed_number()

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.communicate('\n')


@pytest.fixture
def isolated() -> Iterator[list[Process]]:
    """Yield two processes that start at the same time; each calls ``isolate``."""
    processes = [Process(ISOLATED + GRAPH, dict(os.environ)) for _ in range(2)]
    yield processes
    for process in processes:
        process.end()


def test_isolated_processes_discover_only_nodes_of_their_own_domain(
    isolated: list[Process],
):
    first, second = isolated
    domains = [process.printed_number() for process in isolated]
    assert len({*domains, int(os.environ['ROS_DOMAIN_ID'])}) == 3
    intruder = Process(GRAPH, {**os.environ, **domain_variables(domains[0])})
    try:
        assert intruder.printed_number() == domains[0]
        wait_until(
            lambda: first.discovered_nodes() == intruder.discovered_nodes() == 2,
            'the intruder in the first domain',
        )
        assert second.discovered_nodes() == 1
        first.end()
        with pytest.raises(LaunchError, match='are in use'):
            free_domain(domains[:1])
    finally:
        intruder.end()


def test_a_leased_domain_is_not_leased_again_until_its_lease_is_closed():
    domain, lease = free_domain()
    with (
        lease,
        pytest.raises(LaunchError, match=f'all ROS domains from {domain} to {domain} are in use'),
    ):
        free_domain((domain,))
    again, lease = free_domain((domain,))
    lease.close()
    assert again == domain


def test_the_ros_domain_of_this_test_process_is_leased():
    assert domain_variables(int(os.environ['ROS_DOMAIN_ID'])).items() <= os.environ.items()
    with pytest.raises(LaunchError):
        free_domain((int(os.environ['ROS_DOMAIN_ID']),))
