"""Recordings of the detector that cannot be completed."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

from sensor_msgs.msg import PointCloud2

from tests.ros.graph import Graph, wait_until

MAX_FILE_BYTES = 500_000


def test_a_recording_that_fills_the_disk_ends_with_a_message_and_leaves_no_file(
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
