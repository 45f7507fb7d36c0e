"""Runs the node on bags with common topic layouts, each with the camera preset for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from tf2_msgs.msg import TFMessage

from bevdepth_core.geometry import quaternion_from_rotation
from bevdepth_core.inference import Detector
from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.recording import SceneRecording
from bevdepth_core.types import Detections3D
from bevdepth_ros.bags.player import Player
from bevdepth_ros.bags.player_options import Options
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.detector.node import DetectorNode
from tests.reference import ROOT
from tests.ros.bags.layouts import LAYOUTS, Drive, Layout, write_calibration_files
from tests.ros.graph import Graph, wait_until

COLUMNS = ('x', 'y', 'z', 'length', 'width', 'height', 'yaw', 'score', 'label')
HALF_SECOND = 0.62
"""Length of a bag: two key frames, and the ego pose after the second."""


@pytest.fixture(scope='module')
def drive(recording: SceneRecording, dataroot: Path) -> Drive:
    return Drive(recording, dataroot)


@pytest.fixture(scope='module')
def expected(drive: Drive, small_checkpoint: Path) -> tuple[Detections3D, Detections3D]:
    """Return the detections of the first two key frames; the first is the past frame of the
    second.
    """
    detector = Detector.from_checkpoint(small_checkpoint, 'cpu')
    first, second = detector(drive.frame(drive.shots(0))), detector(drive.frame(drive.shots(1)))
    assert (first.past_stamp_ns, second.past_stamp_ns) == (None, first.stamp_ns)
    return first, second


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.preset)
def layout(request) -> Layout:
    return request.param


@pytest.fixture
def answers(
    layout: Layout, drive: Drive, graph: Graph, small_checkpoint: Path, tmp_path: Path
) -> Iterator[list[PointCloud2]]:
    """Yield what the node publishes while the bag of the layout is played."""
    layout.write(drive, tmp_path / 'bag')
    write_calibration_files(drive, tmp_path)
    answers = graph.collect(PointCloud2, '/bevdepth_detector/objects', 100)
    node = DetectorNode(
        parameter_overrides=preset_parameters(layout.preset, small_checkpoint, tmp_path)
    )
    player_node = Node('bag_player')
    try:
        node.trigger_configure()
        node.trigger_activate()
        graph.add(node)
        if layout.mount_frame:
            publish_mounts(graph.node, drive, layout.mount_frame)
        with Bag(tmp_path / 'bag', pytest.fail) as bag:
            player = Player(player_node, bag, Options(duration_s=HALF_SECOND))
            player.wait_for_subscribers(60.0)
            player.play()
        yield answers
    finally:
        graph.stop()
        node.release()
        node.destroy_node()
        player_node.destroy_node()


def preset_parameters(preset: str, checkpoint: Path, calibration_folder: Path) -> list[Parameter]:
    """Return the preset as the launch file gives it to the node, looking for calibration files in
    the test's folder."""
    values = yaml.safe_load((ROOT / 'config' / 'cameras' / f'{preset}.yaml').read_text())['/**'][
        'ros__parameters'
    ]
    values |= {'checkpoint': str(checkpoint), 'device': 'cpu', 'score_threshold': 0.0}
    if values['camera_info_files'] != ['']:
        values['camera_info_files'] = [str(calibration_folder / '{camera}.yaml')]
    return [Parameter(name, value=value) for name, value in values.items()]


def publish_mounts(node: Node, drive: Drive, frame: str) -> None:
    """Publish where the cameras are, as static_transform_publisher does."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    message = TFMessage()
    for camera in CAMERAS:
        transform = TransformStamped(child_frame_id=frame.format(camera=camera.lower()))
        transform.header.frame_id = 'base_link'
        moved, turned = transform.transform.translation, transform.transform.rotation
        moved.x, moved.y, moved.z = drive.mounts[camera][:3, 3].tolist()
        turned.w, turned.x, turned.y, turned.z = quaternion_from_rotation(
            drive.mounts[camera][:3, :3]
        )
        message.transforms.append(transform)
    node.create_publisher(TFMessage, '/tf_static', latched).publish(message)


def table(answer: PointCloud2) -> np.ndarray:
    points = read_points(answer)
    return np.column_stack([points[name] for name in COLUMNS])


def offline_table(detections: Detections3D) -> np.ndarray:
    boxes = detections.boxes
    return np.column_stack(
        (boxes.center, boxes.size, boxes.yaw, detections.scores, detections.labels)
    )


def stamp_ns(answer: PointCloud2) -> int:
    return Time.from_msg(answer.header.stamp).nanoseconds


def test_the_node_publishes_the_boxes_of_the_dataset_in_the_base_frame_and_fuses_past_frames(
    layout: Layout, answers: list[PointCloud2], expected: tuple[Detections3D, Detections3D]
) -> None:
    wait_until(
        lambda: any(answer.is_dense for answer in answers),
        'an answer with velocities, which need ego motion',
    )
    assert {answer.header.frame_id for answer in answers} == {'base_link'}
    np.testing.assert_allclose(table(answers[0]), offline_table(expected[0]), atol=1e-3)
    fused = [answer for answer in answers if stamp_ns(answer) == expected[1].stamp_ns]
    if layout.exact and fused:
        np.testing.assert_allclose(table(fused[0]), offline_table(expected[1]), atol=1e-3)
