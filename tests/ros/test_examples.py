"""Tests the examples in launch/examples."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from launch import LaunchContext
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from rclpy.parameter_client import AsyncParameterClient
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points_numpy
from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose

from bevdepth_ros.bring_up.arguments import ARGUMENTS
from tests.reference import ROOT
from tests.ros.graph import Graph, wait_until

EXAMPLES = ROOT / 'launch' / 'examples'


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def detections(*scores: float) -> Detection3DArray:
    """Return one box per score, 4 m x 2 m in size, at (10, 5) m and rotated by 90 degrees."""
    message = Detection3DArray()
    message.header.frame_id = 'base_link'
    for score in scores:
        detection = Detection3D()
        detection.bbox.center.position.x, detection.bbox.center.position.y = 10.0, 5.0
        detection.bbox.center.orientation.z = detection.bbox.center.orientation.w = 0.5**0.5
        detection.bbox.size.x, detection.bbox.size.y, detection.bbox.size.z = 4.0, 2.0, 1.5
        hypothesis = ObjectHypothesisWithPose()
        hypothesis.hypothesis.class_id, hypothesis.hypothesis.score = 'car', score
        detection.results.append(hypothesis)
        message.detections.append(detection)
    return message


@pytest.mark.parametrize('path', sorted(EXAMPLES.glob('*.launch.py')), ids=lambda path: path.name)
def test_the_example_launch_files_pass_only_existing_arguments_to_detect_launch_py(path: Path):
    source = PythonLaunchDescriptionSource(str(path))
    known = {argument.name for argument in ARGUMENTS}

    def includes(entities: list) -> list[IncludeLaunchDescription]:
        found = []
        for entity in entities:
            if isinstance(entity, IncludeLaunchDescription):
                found.append(entity)
            elif hasattr(entity, 'get_sub_entities'):
                found += includes(entity.get_sub_entities())
        return found

    found = includes(source.get_launch_description(LaunchContext()).entities)
    assert found
    for include in found:
        assert {name for name, _ in include.launch_arguments} <= known


def test_boxes_above_the_score_threshold_are_published_as_points_on_their_outlines(graph: Graph):
    node = graph.add(example('boxes_to_points').BoxesToPoints())
    clouds = graph.collect(PointCloud2, '/detected_obstacles')
    topic = '/bevdepth_detector/detections'
    publisher = graph.node.create_publisher(Detection3DArray, topic, 10)
    wait_until(
        lambda: publisher.get_subscription_count() and node._publisher.get_subscription_count(),
        'the subscriptions',
    )
    publisher.publish(detections(0.9, 0.1))
    wait_until(lambda: clouds, 'a cloud')
    graph.stop()
    node.destroy_node()
    points = read_points_numpy(clouds[0], ('x', 'y', 'z'))
    assert clouds[0].header.frame_id == 'base_link'
    np.testing.assert_allclose(points.min(axis=0), (9, 3, 0), atol=0.21)
    np.testing.assert_allclose(points.max(axis=0), (11, 7, 0), atol=0.21)
    assert len(points) == 60


def test_without_boxes_the_marking_cloud_is_empty_and_the_clearing_cloud_is_a_ring(graph: Graph):
    costmap = yaml.safe_load((EXAMPLES / 'nav2_costmap.yaml').read_text())
    parameters = costmap['local_costmap']['local_costmap']['ros__parameters']
    layer, module = parameters['detections'], example('boxes_to_points')
    marking, clearing = (layer[name] for name in layer['observation_sources'].split())
    assert (marking['marking'], clearing['clearing']) == (True, True)
    node = graph.add(module.BoxesToPoints())
    clouds = [graph.collect(PointCloud2, source['topic']) for source in (marking, clearing)]
    publisher = graph.node.create_publisher(Detection3DArray, '/bevdepth_detector/detections', 10)
    wait_until(
        lambda: (
            publisher.get_subscription_count()
            and all(p.get_subscription_count() for p in (node._publisher, node._free_space))
        ),
        'the subscriptions',
    )
    publisher.publish(detections())
    wait_until(lambda: all(clouds), 'both clouds')
    graph.stop()
    node.destroy_node()
    assert clouds[0][0].width == 0
    ring = read_points_numpy(clouds[1][0], ('x', 'y', 'z'))
    ranges = np.linalg.norm(ring[:, :2], axis=1)
    np.testing.assert_allclose(ranges, clearing['raytrace_max_range'], rtol=1e-5)
    gaps = np.linalg.norm(ring - np.roll(ring, 1, axis=0), axis=1)
    assert gaps.max() <= module.SPACING_M + 1e-3 <= parameters['resolution'] + 2e-3
    heights = clearing['min_obstacle_height'], clearing['max_obstacle_height']
    assert heights[0] <= ring[:, 2].min() <= ring[:, 2].max() <= heights[1]


def test_the_subscriber_logs_each_box(graph: Graph, capfd: pytest.CaptureFixture):
    node = graph.add(example('boxes_subscriber').BoxesSubscriber())
    topic = '/bevdepth_detector/detections'
    publisher = graph.node.create_publisher(Detection3DArray, topic, 10)
    wait_until(publisher.get_subscription_count, 'the subscription')
    publisher.publish(detections(0.9, 0.4))
    output: list[str] = []

    def has_logged() -> bool:
        captured = capfd.readouterr()
        output.extend((captured.out, captured.err))
        return all(
            f'car {score} at (10.0, 5.0) m in base_link' in ''.join(output)
            for score in ('0.90', '0.40')
        )

    wait_until(has_logged, 'the log')
    graph.stop()
    node.destroy_node()


def wait_until_spinning(graph: Graph, name: str) -> None:
    """Wait until the node called ``name`` has answered a service request."""
    client = AsyncParameterClient(graph.node, name)
    requests = []

    def has_answered() -> bool:
        if client.services_are_ready():
            requests.append(client.list_parameters())
        return any(request.done() for request in requests)

    wait_until(has_answered, f'an answer from {name}')


def terminate(process: subprocess.Popen) -> None:
    """Send SIGTERM until ``process`` ends.

    rclpy.spin can miss a signal: if the spinning thread wakes up before the context is shut down,
    the thread waits again, until the next signal.
    """

    def has_ended() -> bool:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(30.0)
        return process.returncode is not None

    wait_until(has_ended, 'the end of the process')


@pytest.mark.parametrize('name', ['boxes_subscriber', 'boxes_to_points'])
def test_an_example_exits_with_0_and_prints_no_traceback_after_sigterm(graph: Graph, name: str):
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLES / f'{name}.py')], stderr=subprocess.PIPE, text=True
    )
    wait_until_spinning(graph, name)
    terminate(process)
    assert (process.returncode, process.stderr.read()) == (0, '')
