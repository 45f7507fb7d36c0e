"""The running node, seen from outside: through its topics, services and parameters."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import rclpy
from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray, LabelInfo
from visualization_msgs.msg import MarkerArray

from bevdepth_ros.detector.node import DetectorNode
from bevdepth_ros.detector.synchronizer import stamp_ns
from tests.ros.graph import Diagnostics, Graph, wait_until
from tests.ros.rig import Rig, jpeg

CAMERAS = ('left', 'right')
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_CLEANUP,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
)


class Detector:
    """The node under test with a rig in front of it and ears behind it."""

    def __init__(self, graph: Graph, checkpoint: Path, cameras: tuple[str, ...] = CAMERAS, rig: Rig | None = None, **parameters):
        values = {
            'cameras': list(cameras), 'image_topics': ['/{camera}/image'], 'checkpoint': str(checkpoint), 'device': 'cpu',
            'score_threshold': 0.0, 'geometry_timeout_s': 0.5, 'camera_startup_s': 0.5, **parameters,
        }  # fmt: skip
        self.graph = graph
        self._clients: dict = {}
        self.rig = Rig(graph.node, cameras) if rig is None else rig
        self.node = graph.add(DetectorNode(parameter_overrides=[Parameter(name, value=value) for name, value in values.items()]))
        self.detections = graph.collect(Detection3DArray, '/bevdepth_detector/detections')
        self.objects = graph.collect(PointCloud2, '/bevdepth_detector/objects')
        self.markers = graph.collect(MarkerArray, '/bevdepth_detector/markers')
        self.diagnostics: Diagnostics = graph.diagnostics()

    def change(self, transition_id: int) -> bool:
        """Ask for a transition; return whether it succeeded."""
        request = ChangeState.Request(transition=Transition(id=transition_id))
        return self._call(ChangeState, 'change_state', request).success

    def state(self) -> int:
        return self._call(GetState, 'get_state', GetState.Request()).current_state.id

    def set(self, name: str, value) -> str:
        """Set a parameter; return the reason when it is refused, otherwise an empty string."""
        message: ParameterMessage = Parameter(name, value=value).to_parameter_msg()
        result = self._call(SetParameters, 'set_parameters', SetParameters.Request(parameters=[message])).results[0]
        assert result.successful == (result.reason == '')
        return result.reason

    def start(self) -> None:
        """Configure, activate and wait until the rig and the ears are connected."""
        assert self.change(CONFIGURE)
        assert self.change(ACTIVATE)
        self.rig.wait_for_detector()
        count = self.graph.node.count_publishers
        for name in ('detections', 'objects', 'markers'):
            wait_until(lambda name=name: count(f'/bevdepth_detector/{name}') == 1, name)

    def answers(self, count: int) -> None:
        """Wait until ``count`` sets were answered on all topics."""
        for messages in (self.detections, self.objects, self.markers):
            wait_until(lambda messages=messages: len(messages) >= count, f'answer {count}')

    def velocities(self) -> np.ndarray:
        points = read_points(self.objects[-1])
        return np.column_stack((points['vx'], points['vy']))

    def _call(self, kind, name: str, request):
        if name not in self._clients:
            self._clients[name] = self.graph.node.create_client(kind, f'/bevdepth_detector/{name}')
        client = self._clients[name]
        assert client.wait_for_service(60)
        future = client.call_async(request)
        wait_until(future.done, name)
        return future.result()


@pytest.fixture
def detector(graph: Graph, tiny_checkpoint: Path) -> Iterator[Callable[..., Detector]]:
    """Return a maker of detectors, which are taken down at the end."""
    made: list[Detector] = []

    def make(**options) -> Detector:
        made.append(Detector(graph, **{'checkpoint': tiny_checkpoint, **options}))
        return made[-1]

    yield make
    graph.stop()
    for one in made:
        one.node.release()
        one.node.destroy_node()


def test_a_set_of_images_is_answered_on_every_topic_at_the_mean_stamp_in_the_base_frame(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.answers(1)
    headers = [node.detections[0].header, node.objects[0].header, node.markers[0].markers[0].header]
    assert all(header == headers[0] for header in headers)
    assert headers[0].frame_id == 'base_link'
    assert stamp_ns(node.detections[0]) == node.rig.mean_stamp_ns(0.0)
    assert len(node.detections[0].detections) == node.objects[0].width > 0


@pytest.mark.parametrize('cameras', [('only',), ('a', 'b', 'c')])
def test_any_number_of_cameras_is_answered(detector, cameras: tuple[str, ...]):
    node = detector(cameras=cameras)
    node.start()
    node.rig.send_all(0.0)
    node.answers(1)


def test_raw_images_give_the_same_boxes_as_the_pictures_they_were_decoded_from(graph: Graph, detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.answers(1)
    assert node.change(DEACTIVATE)
    assert node.set('image_transport', 'raw') == ''
    assert node.set('image_topics', ['/{camera}/raw']) == ''
    raw = Rig(graph.node, CAMERAS, Image, image_topic='/{camera}/raw')
    assert node.change(ACTIVATE)
    raw.wait_for_detector()
    raw.send_all(0.0)
    node.answers(2)
    assert node.detections[1].detections == node.detections[0].detections


def test_the_label_table_reaches_late_subscribers(graph: Graph, detector):
    node = detector()
    node.start()
    late = graph.collect(LabelInfo, '/bevdepth_detector/label_info', QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL))
    wait_until(lambda: late, 'the label table')
    assert {entry.class_id: entry.class_name for entry in late[0].class_map}[8] == 'pedestrian'


def test_the_life_cycle_can_go_round_and_only_an_active_node_answers(detector):
    node = detector()
    threads = threading.active_count()
    for round_number in range(1, 4):
        node.start()
        node.rig.send_all(0.0)
        node.answers(round_number)
        assert node.change(DEACTIVATE)
        assert threading.active_count() == threads
        assert node.state() == State.PRIMARY_STATE_INACTIVE
        node.rig.send_all(1.0)
        assert node.change(CLEANUP)
        assert node.state() == State.PRIMARY_STATE_UNCONFIGURED
    assert len(node.detections) == 3


def test_a_wrong_checkpoint_fails_with_a_sentence_and_the_node_recovers_with_a_right_one(detector, tiny_checkpoint: Path, tmp_path: Path):
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(tiny_checkpoint.read_bytes()[:1000])
    node = detector(checkpoint='/nowhere/weights.pth')
    assert not node.change(CONFIGURE)
    assert node.state() == State.PRIMARY_STATE_UNCONFIGURED
    wait_until(lambda: node.diagnostics.says('node', 'configure failed: /nowhere/weights.pth: no such checkpoint file'), 'the sentence')
    assert node.set('checkpoint', str(broken)) == ''
    assert not node.change(CONFIGURE)
    wait_until(lambda: node.diagnostics.says('node', f'configure failed: {broken}'), 'the other sentence')
    assert node.set('checkpoint', str(tiny_checkpoint)) == ''
    node.start()
    wait_until(lambda: node.diagnostics.is_ok('node'), 'recovery')
    node.rig.send_all(0.0)
    node.answers(1)


def test_an_empty_checkpoint_and_a_device_that_does_not_exist_fail_with_the_remedy(detector, tiny_checkpoint: Path):
    node = detector(checkpoint='')
    assert not node.change(CONFIGURE)
    wait_until(lambda: node.diagnostics.says('node', 'give the path of the weights'), 'the remedy')
    assert node.set('checkpoint', str(tiny_checkpoint)) == ''
    assert node.set('device', 'cuda:99') == ''
    assert not node.change(CONFIGURE)
    wait_until(lambda: node.diagnostics.says('node', 'configure failed: device cuda:99 is not available'), 'the sentence')


def test_weights_are_swapped_by_deactivate_set_activate(detector, tiny_checkpoint: Path, tmp_path: Path):
    other = tmp_path / 'other.safetensors'
    shutil.copy(tiny_checkpoint, other)
    node = detector()
    node.start()
    assert 'cannot change while the node is active' in node.set('checkpoint', str(other))
    assert node.change(DEACTIVATE)
    assert node.set('checkpoint', str(other)) == ''
    assert node.change(ACTIVATE)
    wait_until(lambda: node.diagnostics.values('node').get('checkpoint') == str(other), 'the other weights')
    assert node.change(DEACTIVATE)
    assert node.set('checkpoint', '/nowhere') == ''
    assert not node.change(ACTIVATE)
    assert node.state() == State.PRIMARY_STATE_INACTIVE


def test_the_score_threshold_changes_live(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.answers(1)
    assert node.set('score_threshold', 1.0) == ''
    node.rig.send_all(0.1)
    node.answers(2)
    assert [len(message.detections) > 0 for message in node.detections] == [True, False]


def test_a_parameter_is_refused_with_the_reason(detector):
    node = detector()
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    for name, value, reason in (
        ('score_threshold', 1.5, 'out of range'),
        ('precision', 'fp8', 'precision must be one of fp32, fp16, bf16'),
        ('diagnostics_period_s', 2.0, 'read-only'),
        ('base_frame', 'rear_axle', 'base_frame cannot change while the node is active: deactivate it, set, activate'),
        ('min_cameras', 3, 'min_cameras must not exceed the number of cameras (2), got 3'),
        ('no_such_parameter', 1, 'undeclared'),
    ):
        assert reason in node.set(name, value)


def test_until_cameras_had_time_to_begin_nothing_is_published_without_the_camera_info_of_all(detector):
    node = detector(camera_startup_s=60.0)
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos(cameras=('left',))
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0)
    wait_until(lambda: node.diagnostics.says('sets', 'camera right has no CameraInfo: nothing came on /right/camera_info'), 'the sentence')
    wait_until(lambda: node.diagnostics.values('sets')['dropped_no_camera_info'] == '1', 'the count')
    assert not node.detections
    node.rig.send_all(0.1)
    node.answers(1)
    wait_until(lambda: node.diagnostics.is_ok('sets'), 'recovery')


def test_until_cameras_had_time_to_begin_nothing_is_published_without_the_extrinsics_of_all(detector):
    node = detector(camera_startup_s=60.0)
    node.start()
    node.rig.send_extrinsics(('left', 'rihgt'))
    node.rig.send_infos()
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0)
    wait_until(
        lambda: node.diagnostics.says('tf', 'tf has no base_link <- right: it does not know right, only base_link, left'), 'the sentence'
    )
    wait_until(lambda: node.diagnostics.values('sets')['dropped_no_extrinsics'] == '1', 'the count')
    assert not node.detections
    node.rig.send_all(0.1)
    node.answers(1)
    wait_until(lambda: node.diagnostics.is_ok('tf'), 'recovery')


def test_without_ego_poses_boxes_come_without_velocities(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    node.rig.send_images(0.0)
    node.answers(1)
    assert np.isnan(node.velocities()).all()
    wait_until(lambda: node.diagnostics.says('tf', 'without ego motion there are no velocities'), 'the sentence')
    words = 'off: tf has no map <- base_link'
    wait_until(lambda: node.diagnostics.values('tf').get('temporal_fusion', '').startswith(words), 'the reason')


def test_a_frame_half_a_second_back_switches_temporal_fusion_on(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.answers(1)
    assert np.isnan(node.velocities()).all()
    node.rig.send_all(0.5)
    node.answers(2)
    assert np.isfinite(node.velocities()).all()
    wait_until(lambda: node.diagnostics.values('tf').get('temporal_fusion') == 'on', 'fusion')
    assert math.isclose(float(node.diagnostics.values('tf')['past_frame_age_s']), 0.5)


def test_answers_go_on_when_a_bag_starts_again(detector):
    node = detector()
    node.start()
    for count, time_s in enumerate((30.0, 30.5, 0.0, 0.1, 0.6), start=1):
        node.rig.send_all(time_s)
        node.answers(count)
    assert np.isfinite(node.velocities()).all()


def test_a_broken_image_costs_its_camera_one_frame_and_nothing_more(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0, data={'right': jpeg()[:-300]})
    wait_until(lambda: node.diagnostics.says('cameras', 'image of right on /right/image is a broken JPEG'), 'the sentence')
    node.answers(1)
    assert stamp_ns(node.detections[0]) == node.rig.stamps_ns(0.0)[0]
    node.rig.send_all(0.1)
    node.answers(2)
    assert stamp_ns(node.detections[1]) == node.rig.mean_stamp_ns(0.1)
    wait_until(lambda: node.diagnostics.values('cameras')['right.unusable'] == '1', 'the count')


def test_an_image_unlike_its_calibration_is_refused(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos(size=(400, 704))
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0)
    wait_until(lambda: node.diagnostics.says('cameras', 'camera left is 352x200, but its calibration is for 704x400'), 'the sentence')


def test_of_a_flood_the_newest_set_is_answered_and_every_other_counted(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    for number in range(20):
        node.rig.send_poses(0.1 * number)
        node.rig.send_images(0.1 * number)
    newest = node.rig.mean_stamp_ns(1.9)
    wait_until(lambda: node.detections and node.detections[-1].header.stamp.nanosec == newest % 10**9, 'the newest set')
    counts = node.diagnostics.values
    wait_until(lambda: int(counts('sets')['received']) == int(counts('sets')['answered']) + int(counts('sets')['dropped']), 'the counts')
    assert counts('sets')['dropped'] == counts('sets')['dropped_replaced']


def test_a_device_that_failed_for_good_ends_in_the_error_state_from_which_the_node_can_be_configured_again(detector):
    node = detector()
    node.start()
    node.node._on_device_failure('cpu failed twice')
    wait_until(lambda: node.state() == State.PRIMARY_STATE_UNCONFIGURED, 'the end')
    wait_until(lambda: node.diagnostics.says('node', 'cpu failed twice'), 'the sentence')
    node.start()
    wait_until(lambda: node.diagnostics.is_ok('node'), 'recovery')
    node.rig.send_all(0.0)
    node.answers(1)


def test_deactivation_answers_the_set_that_was_complete(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    wait_until(lambda: node.node._monitor.counts()['received'] == 1, 'the set')
    assert node.change(DEACTIVATE)
    node.answers(1)


def test_a_camera_that_never_publishes_is_named(detector):
    node = detector()
    node.start()

    def left_only() -> bool:
        node.rig.send_images(0.0, cameras=('left',))
        return node.diagnostics.says('cameras', 'no image of right on /right/image for')

    wait_until(left_only, 'the sentence')
    assert 'left' not in node.diagnostics.status('cameras').message


def test_silence_names_a_topic_nobody_publishes(graph: Graph, detector):
    node = detector(image_topics=['/{camera}/imgae'])
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    words = 'nobody publishes it; start the camera or set image_topics'
    wait_until(lambda: node.diagnostics.says('cameras', words), 'the sentence')


def test_silence_names_a_topic_of_another_type(graph: Graph, detector):
    another_process = rclpy.Context()
    rclpy.init(context=another_process)
    other = Node('other', context=another_process)
    node = detector(rig=Rig(other, CAMERAS, Image))
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    words = 'it is published as Image, not CompressedImage; set image_transport'
    wait_until(lambda: node.diagnostics.says('cameras', words), 'the sentence')
    other.destroy_node()
    rclpy.shutdown(context=another_process)


def test_a_publisher_that_offers_less_than_asked_for_is_named(graph: Graph, detector):
    lossy = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    node = detector(rig=Rig(graph.node, CAMERAS, image_qos=lossy), image_reliability='reliable')
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    wait_until(lambda: node.diagnostics.says('cameras', 'a best-effort publisher of /left/image is not heard'), 'the sentence')


def test_a_camera_that_never_agrees_with_the_others_is_left_out_and_named_with_its_offset(detector):
    node = detector(cameras=('a', 'b', 'c'))
    node.start()
    step = iter(range(10**6))

    def c_is_late() -> bool:
        time_s = 0.5 * next(step)
        node.rig.send_images(time_s, cameras=('a', 'b'))
        node.rig.send_images(time_s + 0.2, cameras=('c',))
        return node.diagnostics.says('cameras', 'c is left out, its images fit no set: its stamps are +0.')

    wait_until(c_is_late, 'the sentence')


def test_images_without_a_stamp_are_named(detector):
    node = detector()
    node.start()
    node.rig.send_images(0.0, stamp_ns=0)
    wait_until(lambda: node.diagnostics.says('cameras', 'images on /left/image have no time stamp'), 'the sentence')


def test_simulated_time_without_a_clock_is_named(detector):
    node = detector(use_sim_time=True)
    node.start()
    wait_until(lambda: node.diagnostics.says('node', 'nothing came on /clock'), 'the sentence')


def test_diagnostics_tell_rates_spread_latency_device_and_memory(detector):
    node = detector()
    node.start()
    for number in range(3):
        node.rig.send_all(0.1 * number)
    wait_until(lambda: node.detections and node.diagnostics.values('latency'), 'an answer')
    values = node.diagnostics.values
    assert float(values('cameras')['left.rate_hz']) > 0
    assert float(values('sets')['spread_p50_ms']) == 8.0
    stages = ('queue', 'frame', 'preprocess', 'image_branch', 'view_transform', 'bev_head', 'decode', 'publish', 'total')
    assert set(values('latency')) == {f'{stage}_p{percent}_ms' for stage in stages for percent in (50, 95)}
    assert (values('node')['device'], values('node')['precision'], values('node')['state']) == ('cpu', 'fp32', 'active')
    assert float(values('node')['memory_mb']) > 0
