"""Tests the recorder with a full disk, with an existing bag, and without clock messages."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud2

from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.bags.recorder import Recorder
from bevdepth_ros.bags.writer import BagWriter
from tests.ros.graph import Graph, wait_until

MAX_FILE_BYTES = 500_000


def test_a_recording_that_fills_the_disk_ends_with_an_error_message_and_leaves_no_file(
    graph: Graph, tmp_path: Path
) -> None:
    publisher = graph.node.create_publisher(PointCloud2, '/bevdepth_detector/objects', 10)
    recorder = subprocess.Popen(
        [
            sys.executable,
            '-m',
            'bevdepth_ros.bags.recorder',
            '--out',
            str(tmp_path / 'detections'),
            '--storage',
            'sqlite3',
        ],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES)
        ),
    )
    cloud = PointCloud2(data=bytes(MAX_FILE_BYTES // 5))
    graph.node.create_timer(0.1, lambda: publisher.publish(cloud))
    wait_until(lambda: recorder.poll() is not None, 'the end of the recorder')
    assert recorder.returncode == 1
    assert 'detections was not written' in recorder.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_an_existing_bag_is_replaced_only_with_the_option_force(
    graph: Graph, tmp_path: Path
) -> None:
    out = tmp_path / 'detections'
    with BagWriter(out, 'mcap') as bag:
        bag.write_camera_info('CAM_FRONT', 10**18, np.eye(3), 16, 9)
    command = [sys.executable, '-m', 'bevdepth_ros.bags.recorder', '--out', str(out)]
    outcome = subprocess.run(command, capture_output=True, text=True)
    assert outcome.returncode == 1
    assert f'{out} exists: choose another folder' in outcome.stderr
    with Bag(out, print) as recorded:
        assert '/CAM_FRONT/camera_info' in recorded.topics
    recorder = subprocess.Popen([*command, '--force'])
    topic = '/bevdepth_detector/objects'
    wait_until(lambda: graph.node.count_subscribers(topic), 'the subscription of the recorder')
    recorder.send_signal(signal.SIGINT)
    recorder.wait()
    with Bag(out, print) as recorded:
        assert '/CAM_FRONT/camera_info' not in recorded.topics


@pytest.mark.usefixtures('graph')
def test_if_no_clock_message_arrives_all_messages_are_written_when_the_recording_ends(
    tmp_path: Path,
):
    out = tmp_path / 'detections'
    with BagWriter(out, 'mcap') as bag:
        recorder = Recorder(bag, '/bevdepth_detector')
        recorder.set_parameters([Parameter('use_sim_time', value=True)])
        for _ in range(2):
            data = serialize_message(PointCloud2())
            recorder._take('/bevdepth_detector/objects', 'sensor_msgs/msg/PointCloud2', data)
        recorder.finish()
        recorder.finish()
        recorder.destroy_node()
    with Bag(out, print) as recorded:
        assert recorded.topics['/bevdepth_detector/objects'].count == 2
