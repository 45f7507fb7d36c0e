"""A launch test: the launch file replays a synthetic drive, and the published boxes must equal the
boxes of the offline pipeline.

tests/end_to_end/test_launch.py prepares the files and runs this test with launch_testing.
"""

from __future__ import annotations

import time
import unittest

import launch_testing.asserts
import launch_testing.markers
import numpy as np
import rclpy
from ament_index_python.packages import get_package_share_directory
from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_testing.actions import ReadyToTest
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray

FORWARDED = ('bag', 'checkpoint')
TIMEOUT_S = 270.0
TOLERANCES = np.array((1e-3, 1e-3, 1e-3, 1e-4, 1e-3, 1e-3))
"""Tolerances of x, y, z in meters, of the score, and of vx and vy in m/s."""


@launch_testing.markers.keep_alive
def generate_test_description() -> LaunchDescription:
    arguments = [
        DeclareLaunchArgument(name) for name in (*FORWARDED, 'expected_first', 'expected_second')
    ]
    source = PythonLaunchDescriptionSource(
        f'{get_package_share_directory("bevdepth_ros")}/launch/detect.launch.py'
    )
    forwarded = [
        *((name, LaunchConfiguration(name)) for name in FORWARDED),
        ('device', 'cpu'),
        ('loop', 'true'),
    ]
    return LaunchDescription(
        [*arguments, IncludeLaunchDescription(source, launch_arguments=forwarded), ReadyToTest()]
    )


class PublishedDetections(unittest.TestCase):
    """Compares the published boxes with the boxes of the offline pipeline."""

    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node('listener')

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def listen(self, message_type, topic: str, stamp_ns: int, accept=lambda message: True):
        """Return the first message with this stamp for which ``accept`` returns True."""
        found: list = []

        def take(message) -> None:
            stamp = message.header.stamp
            if stamp.sec * 10**9 + stamp.nanosec == stamp_ns and accept(message):
                found.append(message)

        subscription = self.node.create_subscription(message_type, topic, take, 10)
        deadline = time.monotonic() + TIMEOUT_S
        while not found and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.1)
        self.node.destroy_subscription(subscription)
        assert found, f'no accepted message with stamp {stamp_ns} ns arrived on {topic}'
        return found[0]

    def test_a_single_frame_gives_the_boxes_of_the_offline_pipeline(self, test_args) -> None:
        expected = np.load(test_args['expected_first'])
        message = self.listen(
            Detection3DArray, '/bevdepth_detector/detections', int(expected['stamp_ns'])
        )
        assert message.header.frame_id == 'base_link'
        names = [detection.results[0].hypothesis.class_id for detection in message.detections]
        positions = [detection.bbox.center.position for detection in message.detections]
        numbers = [
            (position.x, position.y, position.z, detection.results[0].hypothesis.score)
            for position, detection in zip(positions, message.detections, strict=True)
        ]
        require_match(
            np.column_stack((expected['center'], expected['score'])),
            expected['name'],
            np.array(numbers),
            np.array(names),
        )

    def test_two_fused_frames_give_the_boxes_and_velocities_of_the_offline_pipeline(
        self, test_args
    ) -> None:
        expected = np.load(test_args['expected_second'])
        fused = self.listen(
            PointCloud2,
            '/bevdepth_detector/objects',
            int(expected['stamp_ns']),
            accept=lambda message: message.is_dense,
        )
        points = read_points(fused)
        numbers = np.column_stack([points[name] for name in ('x', 'y', 'z', 'score', 'vx', 'vy')])
        wanted = np.column_stack((expected['center'], expected['score'], expected['velocity']))
        require_match(wanted, expected['label'], numbers, points['label'])


def require_match(
    expected: np.ndarray,
    expected_classes: np.ndarray,
    found: np.ndarray,
    found_classes: np.ndarray,
) -> None:
    """Assert that the found rows and the expected rows match one to one, in any order.

    Two rows match if their classes are equal and their numbers differ by at most TOLERANCES.
    """
    assert len(found) == len(expected)
    tolerances = TOLERANCES[: expected.shape[1]]
    free = np.ones(len(expected), bool)
    for row, name in zip(found, found_classes, strict=True):
        near = (
            free & (expected_classes == name) & (np.abs(expected - row) <= tolerances).all(axis=1)
        )
        assert near.any(), f'{name} at {row} is not expected'
        free[near.argmax()] = False


@launch_testing.post_shutdown_test()
class EndOfTheProcesses(unittest.TestCase):
    """Tests the exit codes of the launched processes."""

    def test_every_process_exits_with_code_0(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
