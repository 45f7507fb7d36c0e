"""A launch test: the launch file replays the real sample, and the published boxes are those of the offline pipeline.

test_launch.py prepares the files and runs it with launch_testing.
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
PATIENCE_S = 120.0
CENTRE_TOLERANCE_M, SCORE_TOLERANCE, VELOCITY_TOLERANCE = 1e-3, 1e-4, 1e-3


@launch_testing.markers.keep_alive
def generate_test_description() -> LaunchDescription:
    arguments = [DeclareLaunchArgument(name) for name in (*FORWARDED, 'expected')]
    source = PythonLaunchDescriptionSource(f'{get_package_share_directory("bevdepth_ros")}/launch/detect.launch.py')
    forwarded = [*((name, LaunchConfiguration(name)) for name in FORWARDED), ('device', 'cpu'), ('loop', 'true')]
    return LaunchDescription([*arguments, IncludeLaunchDescription(source, launch_arguments=forwarded), ReadyToTest()])


class PublishedDetections(unittest.TestCase):
    """What arrives on the topics of the launched node."""

    def setUp(self) -> None:
        rclpy.init()
        self.node = rclpy.create_node('listener')

    def tearDown(self) -> None:
        self.node.destroy_node()
        rclpy.shutdown()

    def listen(self, message_type, topic: str, stamp_ns: int, accept=lambda message: True):
        """Return the first accepted message of ``stamp_ns``."""
        found: list = []

        def take(message) -> None:
            stamp = message.header.stamp
            if stamp.sec * 10**9 + stamp.nanosec == stamp_ns and accept(message):
                found.append(message)

        subscription = self.node.create_subscription(message_type, topic, take, 10)
        deadline = time.monotonic() + PATIENCE_S
        while not found and time.monotonic() < deadline:
            rclpy.spin_once(self.node, timeout_sec=0.1)
        self.node.destroy_subscription(subscription)
        assert found, f'nothing came on {topic}'
        return found[0]

    def test_boxes_are_those_of_the_offline_pipeline(self, test_args) -> None:
        expected = np.load(test_args['expected'])
        message = self.listen(Detection3DArray, '/bevdepth_detector/detections', int(expected['stamp_ns']))
        assert message.header.frame_id == 'base_link'
        assert len(message.detections) == len(expected['score'])
        hypotheses = [detection.results[0].hypothesis for detection in message.detections]
        positions = [detection.bbox.center.position for detection in message.detections]
        centre = np.array([(position.x, position.y, position.z) for position in positions])
        score = np.array([hypothesis.score for hypothesis in hypotheses])
        name = np.array([hypothesis.class_id for hypothesis in hypotheses])
        for index in range(len(score)):
            same = (expected['name'] == name[index]) & (np.abs(expected['score'] - score[index]) <= SCORE_TOLERANCE)
            distance = np.linalg.norm(expected['centre'][same] - centre[index], axis=1)
            assert distance.min(initial=np.inf) <= CENTRE_TOLERANCE_M, f'{name[index]} at {centre[index]}'

    def test_velocities_are_those_of_the_offline_pipeline(self, test_args) -> None:
        expected = np.load(test_args['expected'])
        fused = self.listen(PointCloud2, '/bevdepth_detector/objects', int(expected['stamp_ns']), accept=lambda message: message.is_dense)
        points = read_points(fused)
        order = np.lexsort((points['x'], points['label'])), np.lexsort((expected['centre'][:, 0], expected['label']))
        for axis, name in enumerate(('vx', 'vy')):
            np.testing.assert_allclose(points[name][order[0]], expected['velocity'][order[1], axis], atol=VELOCITY_TOLERANCE)


@launch_testing.post_shutdown_test()
class EndOfTheProcesses(unittest.TestCase):
    """How the launched processes ended."""

    def test_every_process_ended_cleanly(self, proc_info) -> None:
        launch_testing.asserts.assertExitCodes(proc_info)
