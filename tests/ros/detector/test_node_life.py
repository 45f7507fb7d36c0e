"""Tests transitions, weights and parameters of the running node."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from lifecycle_msgs.msg import State, Transition
from rclpy.qos import DurabilityPolicy, QoSProfile
from vision_msgs.msg import LabelInfo

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.export.writing import export_onnx
from tests.ros.detector.running import ACTIVATE, CLEANUP, CONFIGURE, DEACTIVATE
from tests.ros.graph import Graph, wait_until


def threads_of_node() -> set[threading.Thread]:
    """Return the threads of this process except the thread pool that resizes images."""
    return {thread for thread in threading.enumerate() if not thread.name.startswith('resize')}


def test_the_label_table_reaches_late_subscribers(graph: Graph, detector):
    node = detector()
    node.start()
    late = graph.collect(
        LabelInfo,
        '/bevdepth_detector/label_info',
        QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL),
    )
    wait_until(lambda: late, 'the label table')
    assert {entry.class_id: entry.class_name for entry in late[0].class_map}[8] == 'pedestrian'


def test_the_lifecycle_can_be_repeated_and_only_an_active_node_publishes_results(detector):
    node = detector()
    threads = threads_of_node()
    for round_number in range(1, 4):
        node.start()
        node.rig.send_all(0.0)
        node.wait_for_detections(round_number)
        assert node.change(DEACTIVATE)
        wait_until(lambda: threads_of_node() == threads, 'the end of all threads')
        assert node.state() == State.PRIMARY_STATE_INACTIVE
        node.rig.send_all(1.0)
        assert node.change(CLEANUP)
        assert node.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert len(node.detections) == 3


@pytest.mark.parametrize(
    ('transitions', 'shutdown'),
    [
        ((), Transition.TRANSITION_UNCONFIGURED_SHUTDOWN),
        ((CONFIGURE,), Transition.TRANSITION_INACTIVE_SHUTDOWN),
        ((CONFIGURE, ACTIVATE), Transition.TRANSITION_ACTIVE_SHUTDOWN),
    ],
    ids=['unconfigured', 'inactive', 'active'],
)
def test_the_node_can_be_shut_down_in_every_state(
    detector, transitions: tuple[int, ...], shutdown: int
):
    node = detector()
    threads = threads_of_node()
    for transition in transitions:
        assert node.change(transition)
    assert node.change(shutdown)
    assert node.state() == State.PRIMARY_STATE_FINALIZED
    wait_until(lambda: threads_of_node() == threads, 'the end of all threads')


def test_configure_fails_with_a_message_for_an_invalid_checkpoint_and_succeeds_with_a_valid_one(
    detector, tiny_checkpoint: Path, tmp_path: Path
):
    truncated = tmp_path / 'truncated.safetensors'
    truncated.write_bytes(tiny_checkpoint.read_bytes()[:1000])
    node = detector(checkpoint='/nowhere/weights.pth')
    assert not node.change(CONFIGURE)
    assert node.state() == State.PRIMARY_STATE_UNCONFIGURED
    wait_until(
        lambda: node.diagnostics.reports(
            'node', 'configure failed: /nowhere/weights.pth: no such checkpoint file'
        ),
        'the report',
    )
    assert node.set('checkpoint', str(truncated)) == ''
    assert not node.change(CONFIGURE)
    wait_until(
        lambda: node.diagnostics.reports('node', f'configure failed: {truncated}'),
        'the other report',
    )
    assert node.set('checkpoint', str(tiny_checkpoint)) == ''
    node.start()
    wait_until(lambda: node.diagnostics.is_ok('node'), 'recovery')
    node.rig.send_all(0.0)
    node.wait_for_detections(1)


def test_configure_fails_with_a_message_for_an_empty_checkpoint_and_for_an_absent_device(
    detector, tiny_checkpoint: Path
):
    node = detector(checkpoint='')
    assert not node.change(CONFIGURE)
    wait_until(
        lambda: node.diagnostics.reports('node', 'give the path or the name of weights'),
        'the remedy',
    )
    assert node.set('checkpoint', str(tiny_checkpoint)) == ''
    assert node.set('device', 'cuda:99') == ''
    assert not node.change(CONFIGURE)
    wait_until(
        lambda: node.diagnostics.reports(
            'node', 'configure failed: device cuda:99 is not available'
        ),
        'the report',
    )


def test_weights_can_be_changed_only_while_the_node_is_not_active(
    detector, tiny_checkpoint: Path, tmp_path: Path
):
    other = tmp_path / 'other.safetensors'
    shutil.copy(tiny_checkpoint, other)
    node = detector()
    node.start()
    assert 'cannot change while the node is active' in node.set('checkpoint', str(other))
    assert node.change(DEACTIVATE)
    assert node.set('checkpoint', str(other)) == ''
    assert node.change(ACTIVATE)
    wait_until(
        lambda: node.diagnostics.values('node').get('checkpoint') == str(other),
        'the other weights',
    )
    assert node.change(DEACTIVATE)
    assert node.set('checkpoint', '/nowhere') == ''
    assert not node.change(ACTIVATE)
    assert node.state() == State.PRIMARY_STATE_INACTIVE


def test_the_node_runs_an_exported_network(detector, tiny_checkpoint: Path, tmp_path: Path):
    export_onnx(load_checkpoint(tiny_checkpoint), tmp_path / 'exported')
    node = detector(runtime='onnx', onnx_folder=str(tmp_path / 'missing'))
    assert not node.change(CONFIGURE)
    wait_until(
        lambda: node.diagnostics.reports('node', 'manifest.json: cannot be read'), 'the reason'
    )
    assert node.set('onnx_folder', str(tmp_path / 'exported')) == ''
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert node.diagnostics.values('node')['runtime'] == 'onnx'


def test_the_score_threshold_can_change_while_the_node_is_active(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert node.set('score_threshold', 1.0) == ''
    node.rig.send_all(0.1)
    node.wait_for_detections(2)
    assert [len(message.detections) > 0 for message in node.detections] == [True, False]


def test_invalid_parameter_values_are_rejected_with_the_reason(detector):
    node = detector()
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    for name, value, reason in (
        ('score_threshold', 1.5, 'out of range'),
        ('precision', 'fp8', 'precision must be one of auto, fp32, fp16, bf16'),
        ('diagnostics_period_s', 2.0, 'read-only'),
        (
            'base_frame',
            'rear_axle',
            'base_frame cannot change while the node is active: deactivate the node, '
            'set the parameter, activate the node',
        ),
        ('min_cameras', 3, 'min_cameras must not exceed the number of cameras (2), got 3'),
        ('no_such_parameter', 1, 'undeclared'),
    ):
        assert reason in node.set(name, value)


def test_a_node_whose_device_failed_can_be_configured_again(
    detector,
):
    node = detector()
    node.start()
    node.node._on_device_failure('cpu failed twice')
    wait_until(lambda: node.state() == State.PRIMARY_STATE_UNCONFIGURED, 'the end')
    wait_until(lambda: node.diagnostics.reports('node', 'cpu failed twice'), 'the report')
    node.start()
    wait_until(lambda: node.diagnostics.is_ok('node'), 'recovery')
    node.rig.send_all(0.0)
    node.wait_for_detections(1)


def test_the_result_of_a_complete_set_is_published_before_deactivation_ends(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    wait_until(lambda: node.node._monitor.counts()['received'] == 1, 'the set')
    assert node.change(DEACTIVATE)
    node.wait_for_detections(1)
