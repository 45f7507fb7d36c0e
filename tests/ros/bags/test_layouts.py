"""Runs the node on bags with common topic layouts. Each layout has its own camera preset."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rclpy
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
from bevdepth_core.nuscenes.recording import read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.synthetic.dataset.capture import Sensors
from bevdepth_core.synthetic.dataset.writing import VERSION, DatasetPlan, write_dataset
from bevdepth_core.types import Detections3D, Frame
from bevdepth_ros.bags.player import Player
from bevdepth_ros.bags.player_options import Options
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.detector.node import DetectorNode
from tests.networks import write_varied_checkpoint
from tests.reference import ROOT
from tests.ros.bags.layouts import LAYOUTS, SETS, Drive, Layout, write_calibration_files
from tests.ros.graph import Graph, wait_until

COLUMNS = ('x', 'y', 'z', 'length', 'width', 'height', 'yaw', 'score', 'label')
RESULTS = '/bevdepth_detector/objects'
DURATION_S = 1.2
"""Bag time that is played, seconds. It includes the image sets ``SETS`` and the ego pose after the
last image set."""
RATES = (0.5, 0.1, 0.02)
"""Playback rates. They are tried in this order until a result has velocities. A result has
velocities only if the detector processed two image sets that are half a second apart. A busy
machine processes both image sets only at a low rate."""
END_S = 5.0
"""Longest time to wait for a result with velocities after the end of the bag, seconds. After this
time, the next rate is tried."""
SAME_SET_NS = 50_000_000


@pytest.fixture(scope='module')
def drive(tmp_path_factory: pytest.TempPathFactory) -> Drive:
    """Return a scene that consists of three key frames and of sweeps."""
    root = tmp_path_factory.mktemp('nuscenes') / 'synthetic'
    plan = DatasetPlan(0, 1, 1.5, Sensors(160, 90, 4, True))
    write_dataset(root, plan, jobs=2, progress=False)
    return Drive(read_recording(open_devkit(root, VERSION), 'val-0001'), root)


@pytest.fixture(scope='module')
def frames(drive: Drive) -> list[Frame]:
    """Return the detector input of every image set of the dataset."""
    return [drive.frame(drive.shots(number)) for number in range(SETS.stop)]


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_varied_checkpoint(tmp_path_factory.mktemp('weights') / 'varied.safetensors')


@pytest.fixture(params=LAYOUTS, ids=lambda layout: layout.preset)
def layout(request) -> Layout:
    return request.param


@pytest.fixture
def results(
    layout: Layout, drive: Drive, domain_id: int, checkpoint: Path, tmp_path: Path
) -> list[PointCloud2]:
    """Return the results for the bag of the layout. The bag is played at the rates ``RATES`` until
    a result has velocities; the results of earlier rates are dropped."""
    layout.write(drive, tmp_path / 'bag')
    write_calibration_files(drive, tmp_path)
    parameters = preset_parameters(layout.preset, checkpoint, tmp_path)
    for rate in RATES:
        rclpy.init()
        try:
            results = play(tmp_path / 'bag', rate, parameters, layout, drive)
        finally:
            rclpy.shutdown()
        if has_velocities(results):
            break
    return results


def play(
    folder: Path, rate: float, parameters: list[Parameter], layout: Layout, drive: Drive
) -> list[PointCloud2]:
    """Play a bag for a new detector, and return the results of this detector."""
    graph, player_node = Graph(), Node('bag_player')
    results = graph.collect(PointCloud2, RESULTS, 100)
    detector = DetectorNode(parameter_overrides=parameters)
    try:
        detector.trigger_configure()
        detector.trigger_activate()
        graph.add(detector)
        if layout.mount_frame:
            publish_mounts(graph.node, drive, layout.mount_frame)
        with Bag(folder, pytest.fail) as bag:
            player = Player(player_node, bag, Options(duration_s=DURATION_S, rate=rate))
            wait_until(
                lambda: is_connected(player_node, detector), 'the subscriptions of the node'
            )
            player.play()
        with suppress(AssertionError):
            wait_until(lambda: has_velocities(results), 'a result with velocities', END_S)
    finally:
        graph.stop()
        detector.release()
        detector.destroy_node()
        player_node.destroy_node()
        graph.node.destroy_node()
    return results


def has_velocities(results: list[PointCloud2]) -> bool:
    return any(result.is_dense for result in results)


def is_connected(player_node: Node, detector: Node) -> bool:
    """Return True if each topic that the player publishes for the detector has a subscriber, and
    the results of the detector have a subscriber."""
    names = {subscription.topic_name for subscription in detector.subscriptions}
    publishers = [
        publisher for publisher in player_node.publishers if publisher.topic_name in names
    ]
    publishers += [
        publisher for publisher in detector.publishers if publisher.topic_name == RESULTS
    ]
    return all(publisher.get_subscription_count() for publisher in publishers)


def preset_parameters(preset: str, checkpoint: Path, calibration_folder: Path) -> list[Parameter]:
    """Return the parameters of the node for the camera preset ``preset``. Calibration files are
    read from ``calibration_folder``."""
    values = yaml.safe_load((ROOT / 'config' / 'cameras' / f'{preset}.yaml').read_text())['/**'][
        'ros__parameters'
    ]
    values |= {'checkpoint': str(checkpoint), 'device': 'cpu', 'score_threshold': 0.0}
    # The node must reject incomplete image sets, because the offline detector receives only
    # complete image sets.
    values['min_cameras'] = len(CAMERAS)
    if values['camera_info_files'] != ['']:
        values['camera_info_files'] = [str(calibration_folder / '{camera}.yaml')]
    return [Parameter(name, value=value) for name, value in values.items()]


def publish_mounts(node: Node, drive: Drive, frame: str) -> None:
    """Publish the extrinsics of the cameras, as static_transform_publisher does. ``frame`` is the
    pattern of the names of the camera frames."""
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


def table(result: PointCloud2) -> np.ndarray:
    points = read_points(result)
    return np.column_stack([points[name] for name in COLUMNS])


def offline_table(detections: Detections3D) -> np.ndarray:
    boxes = detections.boxes
    return np.column_stack(
        (boxes.center, boxes.size, boxes.yaw, detections.scores, detections.labels)
    )


def frame_of(result: PointCloud2, frames: list[Frame]) -> Frame:
    """Return the frame of the image set to which the result belongs."""
    stamp_ns = Time.from_msg(result.header.stamp).nanoseconds
    frame = min(frames, key=lambda frame: abs(frame.stamp_ns - stamp_ns))
    assert abs(frame.stamp_ns - stamp_ns) < SAME_SET_NS
    return frame


def test_the_node_publishes_the_boxes_of_the_offline_detector_and_fuses_past_frames(
    layout: Layout, results: list[PointCloud2], frames: list[Frame], checkpoint: Path
) -> None:
    """The offline detector processes only the image sets for which the node published a result,
    in the same order."""
    assert has_velocities(results), (
        'no result has velocities: they need ego poses and a past frame'
    )
    assert {result.header.frame_id for result in results} == {'base_link'}
    assert not results[0].is_dense
    detector = Detector.from_checkpoint(checkpoint, 'cpu')
    detector.score_threshold = 0.0
    for result in results:
        expected = detector(frame_of(result, frames))
        if layout.exact or not result.is_dense:
            assert result.is_dense == (expected.past_stamp_ns is not None)
            assert len(expected.scores)
            np.testing.assert_allclose(table(result), offline_table(expected), atol=1e-3)
