"""Tests that diagnostics have the same content with and without diagnostic_updater."""

from __future__ import annotations

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node
from rclpy.parameter import Parameter

from bevdepth_ros.detector import updater
from tests.ros.graph import Graph, wait_until


def fill(status: DiagnosticStatus) -> DiagnosticStatus:
    status.level, status.message = DiagnosticStatus.WARN, 'late'
    status.values = [KeyValue(key='rate', value='2')]
    return status


@pytest.mark.parametrize('with_library', [True, False])
def test_statuses_are_published_on_request_with_the_full_name_of_the_node(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, with_library: bool
) -> None:
    if not with_library:
        monkeypatch.setattr(updater, 'diagnostic_updater', None)
    node = Node(
        'detector',
        namespace='/robot',
        parameter_overrides=[Parameter(updater.PERIOD, value=0.01)],
        automatically_declare_parameters_from_overrides=True,
    )
    found = updater.make_updater(node)
    found.add('first', fill)
    found.add('second', fill)
    messages = graph.collect(DiagnosticArray, '/diagnostics', 100)
    wait_until(lambda: node.count_subscribers('/diagnostics') == 1, 'the subscription')
    for count in (1, 2):
        found.force_update()
        wait_until(lambda count=count: len(messages) >= count, 'the message')
    node.destroy_node()
    assert len(messages) == 2
    assert [status.name for status in messages[0].status] == [
        '/robot/detector: first',
        '/robot/detector: second',
    ]
    for status in messages[0].status:
        assert (status.level, status.message) == (DiagnosticStatus.WARN, 'late')
        assert status.hardware_id == 'robot/detector'
        assert [(value.key, value.value) for value in status.values] == [('rate', '2')]
    assert messages[0].header.stamp.sec > 0
