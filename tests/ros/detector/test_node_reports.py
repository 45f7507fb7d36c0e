"""Tests the problems and values that the running node reports in /diagnostics."""

from __future__ import annotations

import re
from functools import partial

import pytest
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

from bevdepth_ros.detector import node as node_module
from tests.ros.camera_rig import Rig
from tests.ros.detector.running import ACTIVATE, CAMERAS, CONFIGURE, DEACTIVATE, Detector
from tests.ros.graph import Graph, wait_until


def send_sets_until_detections(node: Detector) -> None:
    """Send image sets until the node publishes detections. Image sets that arrive before the
    CameraInfo messages have no result."""
    step = iter(range(1, 10**6))

    def has_detections() -> bool:
        time_s = 0.5 * next(step)
        node.rig.send_poses(time_s)
        node.rig.send_images(time_s)
        return bool(node.detections)

    wait_until(has_detections, 'detections')


@pytest.mark.parametrize(
    ('infos', 'extrinsics', 'area', 'problem', 'counter'),
    [
        (
            ('left',),
            ('left', 'right'),
            'sets',
            'camera right has no CameraInfo: no message was received on /right/camera_info',
            'dropped_no_camera_info',
        ),
        (
            ('left', 'right'),
            ('left', 'rihgt'),
            'tf',
            'tf has no base_link <- right: tf does not contain right, only base_link, left',
            'dropped_no_extrinsics',
        ),
    ],
    ids=('CameraInfo', 'extrinsics'),
)
def test_during_startup_no_detections_are_published_until_all_cameras_are_calibrated(
    detector, infos, extrinsics, area, problem, counter
):
    node = detector(camera_startup_s=60.0)
    node.start()
    node.rig.send_extrinsics(extrinsics)
    node.rig.send_infos(cameras=infos)
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0)
    wait_until(lambda: node.diagnostics.reports(area, problem), 'the report')
    wait_until(lambda: node.diagnostics.values('sets')[counter] == '1', 'the count')
    assert not node.detections
    node.rig.send_extrinsics()
    node.rig.send_infos()
    send_sets_until_detections(node)
    wait_until(lambda: node.diagnostics.is_ok(area), 'recovery')


def test_an_image_whose_size_differs_from_its_calibration_is_reported(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos(size=(400, 704))
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0)
    wait_until(
        lambda: node.diagnostics.reports(
            'cameras', 'camera left is 352x200, but its calibration is for 704x400'
        ),
        'the report',
    )


def test_a_camera_that_never_publishes_is_reported_by_name(detector):
    node = detector()
    node.start()

    def left_only() -> bool:
        node.rig.send_images(0.0, cameras=('left',))
        return node.diagnostics.reports('cameras', 'no image of right on /right/image for')

    wait_until(left_only, 'the report')
    assert 'no image of left' not in node.diagnostics.status('cameras').message


def test_odometry_that_does_not_arrive_is_reported_although_tf_has_the_ego_poses(
    graph: Graph, detector
):
    node = detector(odometry_topic='/wheels')
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    send_sets_until_detections(node)
    report = 'no odometry was received on /wheels: start its publisher or correct odometry_topic'
    wait_until(lambda: node.diagnostics.reports('tf', report), 'the report')
    publisher = graph.node.create_publisher(Odometry, '/wheels', 1)

    def is_solved() -> bool:
        publisher.publish(Odometry(child_frame_id='base_link'))
        return not node.diagnostics.reports('tf', report)

    wait_until(is_solved, 'recovery')


def test_a_remapped_topic_is_reported_by_its_new_name(detector):
    node = detector(cli_args=['--ros-args', '-r', '/right/image:=/renamed'])
    assert node.change(CONFIGURE) and node.change(ACTIVATE)
    wait_until(lambda: node.graph.node.count_subscribers('/left/image'), 'the subscription')

    def left_only() -> bool:
        node.rig.send_images(0.0, cameras=('left',))
        return node.diagnostics.reports('cameras', 'no image of right on /renamed for')

    wait_until(left_only, 'the report')


def test_reports_about_all_inputs_contain_the_remapped_topic_names(
    graph: Graph, detector, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(node_module, 'CLOCK_STARTUP_S', 0.5)
    rules = {
        '/left/image': '/new/left',
        '/right/image': '/new/right',
        '/right/camera_info': '/new/info',
        '/tf': '/new/tf',
        '/clock': '/new/clock',
    }
    words = [word for old, new in rules.items() for word in ('-r', f'{old}:={new}')]
    node = detector(
        rig=Rig(graph.node, CAMERAS, image_topic='/new/{camera}'),
        cli_args=['--ros-args', *words],
        use_sim_time=True,
    )
    assert node.change(CONFIGURE) and node.change(ACTIVATE)
    wait_until(lambda: graph.node.count_subscribers('/new/left'), 'the subscription')
    node.rig.send_infos(cameras=('left',))
    node.rig.send_images(0.0, stamp_ns=0)
    step = iter(range(1, 10**6))

    def reports(area: str, report: str, data: dict[str, bytes] | None = None) -> bool:
        node.rig.send_images(0.5 * next(step), data=data)
        return node.diagnostics.was_reported(area, report)

    no_images = {'left': b'no image', 'right': b'no image'}
    for area, report, data in (
        ('cameras', 'images on /new/left have no time stamp', None),
        ('cameras', 'camera right has no CameraInfo: no message was received on /new/info;', None),
        ('tf', 'nothing was received on /new/tf and /tf_static', None),
        ('cameras', 'image of left on /new/left ', no_images),
        ('node', 'no message was received on /new/clock', None),
    ):
        wait_until(partial(reports, area, report, data), report)


def test_two_cameras_that_are_remapped_to_one_topic_are_rejected(detector):
    node = detector(cli_args=['--ros-args', '-r', '/right/image:=/left/image'])
    assert not node.change(CONFIGURE)
    words = 'after remappings, two cameras have the same image topic'
    wait_until(lambda: node.diagnostics.reports('node', words), 'the report')


def test_if_all_cameras_pause_and_resume_together_no_single_camera_is_reported(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    wait_until(lambda: node.diagnostics.reports('cameras', 'no camera sends images'), 'the pause')
    node.rig.send_all(15.0)
    node.wait_for_detections(2)
    assert not node.diagnostics.was_reported('cameras', 'no image of right')
    assert not node.diagnostics.was_reported('sets', 'none fit into a set')
    assert not node.diagnostics.was_reported('sets', 'image sets were lost')


def test_camera_info_that_is_not_latched_causes_no_warning(detector, capfd):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert 'incompatible QoS' not in capfd.readouterr().err


def test_latched_camera_info_that_was_sent_once_before_the_start_is_received(
    graph: Graph, detector
):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    rig = Rig(graph.node, CAMERAS, info_qos=latched)
    rig.send_infos()
    node = detector(rig=rig, camera_startup_s=60.0)
    node.start()
    rig.send_extrinsics()
    send_sets_until_detections(node)


def test_best_effort_camera_info_is_received_and_kept_for_the_next_activation(
    graph: Graph, detector
):
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    node = detector(rig=Rig(graph.node, CAMERAS, info_qos=best_effort), camera_startup_s=60.0)
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert node.change(DEACTIVATE)
    assert node.change(ACTIVATE)
    node.rig.wait_for_detector()
    node.rig.send_poses(1.0)
    node.rig.send_images(1.0)
    node.wait_for_detections(2)


def test_the_queue_depth_of_image_subscriptions_is_image_queue_size(detector):
    node = detector(image_queue_size=7)
    node.start()
    subscriptions = [
        subscription
        for subscription in node.node.subscriptions
        if subscription.topic_name == '/left/image'
    ]
    assert [subscription.qos_profile.depth for subscription in subscriptions] == [7]


def test_the_report_of_a_camera_topic_without_a_publisher_suggests_a_similar_topic(
    graph: Graph, detector
):
    node = detector(image_topics=['/{camera}/imgae'])
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    words = 'has no publisher; start the camera or set image_topics (did you mean /left/image?)'
    wait_until(lambda: node.diagnostics.reports('cameras', words), 'the report')


def test_the_log_contains_the_reason_if_a_short_replay_gave_no_image_set(
    graph: Graph, detector, capfd: pytest.CaptureFixture
):
    other_context = rclpy.Context()
    rclpy.init(context=other_context)
    replay = Node('replay', context=other_context)
    node = detector(
        rig=Rig(replay, CAMERAS), image_topics=['/{camera}/imgae'], camera_startup_s=60.0
    )
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    wait_until(lambda: node.node._pipeline._intake._reports._reasons, 'the discovery')
    replay.destroy_node()
    rclpy.shutdown(context=other_context)
    wait_until(lambda: not graph.node.count_publishers('/left/image'), 'the end of the replay')
    assert node.change(DEACTIVATE)
    reason = re.search(r'\[ERROR\].*: no camera sent images.*', capfd.readouterr().err)
    assert reason is not None
    assert 'for example, no image of left on /left/imgae was received' in reason[0]
    assert 'did you mean /left/image?' in reason[0]


def test_the_report_of_a_silent_camera_names_the_unexpected_message_type_of_its_topic(
    graph: Graph, detector
):
    other_context = rclpy.Context()
    rclpy.init(context=other_context)
    other = Node('other', context=other_context)
    node = detector(rig=Rig(other, CAMERAS, Image))
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    words = 'the topic has messages of type Image, not CompressedImage; set image_transport to raw'
    wait_until(lambda: node.diagnostics.reports('cameras', words), 'the report')
    other.destroy_node()
    rclpy.shutdown(context=other_context)


def test_a_publisher_with_incompatible_quality_of_service_is_reported(graph: Graph, detector):
    lossy = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    node = detector(rig=Rig(graph.node, CAMERAS, image_qos=lossy), image_reliability='reliable')
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    wait_until(
        lambda: node.diagnostics.reports(
            'cameras',
            'the publisher of /left/image is best effort, so its images are not received',
        ),
        'the report',
    )


def test_a_durability_that_the_publisher_does_not_offer_is_reported(graph: Graph, detector):
    name = 'qos_overrides./left/image.subscription.durability'
    node = detector(rig=Rig(graph.node, CAMERAS), **{name: 'transient_local'})
    assert node.change(CONFIGURE)
    assert node.change(ACTIVATE)
    words = (
        f'does not offer the requested durability, so its images are not received: correct {name}'
    )
    wait_until(lambda: node.diagnostics.reports('cameras', words), 'the report')


def test_a_camera_whose_stamps_never_match_is_excluded_and_reported_with_its_offset(
    detector,
):
    node = detector(cameras=('a', 'b', 'c'))
    node.start()
    step = iter(range(10**6))

    def c_is_late() -> bool:
        time_s = 0.5 * next(step)
        node.rig.send_images(time_s, cameras=('a', 'b'))
        node.rig.send_images(time_s + 0.2, cameras=('c',))
        return node.diagnostics.reports('cameras', 'c is excluded: its stamps are +0.')

    wait_until(c_is_late, 'the report')


def test_images_without_a_stamp_are_reported(detector):
    node = detector()
    node.start()
    node.rig.send_images(0.0, stamp_ns=0)
    wait_until(
        lambda: node.diagnostics.reports('cameras', 'images on /left/image have no time stamp'),
        'the report',
    )


def test_simulated_time_without_a_clock_is_reported(detector, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(node_module, 'CLOCK_STARTUP_S', 0.5)
    node = detector(use_sim_time=True)
    node.start()
    wait_until(
        lambda: node.diagnostics.reports('node', 'no message was received on /clock'),
        'the report',
    )


def test_after_a_late_start_of_the_clock_silent_cameras_are_reported(
    graph: Graph, detector, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(node_module, 'CLOCK_STARTUP_S', 1000.0)
    node = detector(use_sim_time=True)
    node.start()
    publisher = graph.node.create_publisher(Clock, '/clock', 1)
    seconds = iter(range(1_000, 10**6))

    def is_reported() -> bool:
        publisher.publish(Clock(clock=Time(sec=next(seconds))))
        return node.diagnostics.reports('cameras', 'no camera sends images')

    wait_until(is_reported, 'the report')
    assert not node.diagnostics.was_reported('node', 'no message was received on /clock')


def test_the_durations_of_the_stages_of_a_result_add_up_to_its_total(graph: Graph, detector):
    node = detector()
    records = graph.collect(DiagnosticArray, '/bevdepth_detector/latency')
    node.start()
    wait_until(lambda: graph.node.count_publishers('/bevdepth_detector/latency'), 'the publisher')
    for number in range(3):
        node.rig.send_all(0.1 * number)
    wait_until(lambda: records, 'a record')
    stages_ms = {
        value.key: float(value.value)
        for value in records[0].status[0].values
        if value.key.endswith('_ms')
    }
    del stages_ms['tracking_ms']  # tracking follows the publication and is not in total_ms
    assert stages_ms.pop('total_ms') == pytest.approx(sum(stages_ms.values()), abs=0.1)


def test_diagnostics_contain_rates_spread_latency_device_and_memory(detector):
    node = detector()
    node.start()
    for number in range(3):
        node.rig.send_all(0.1 * number)
    wait_until(
        lambda: node.detections and node.diagnostics.values('latency'), 'detections and latency'
    )
    values = node.diagnostics.values
    assert float(values('cameras')['left.rate_hz']) > 0
    assert float(values('sets')['spread_p50_ms']) == 8.0
    stages = (
        'waiting',
        'decoding',
        'geometry',
        'checks',
        'preprocess',
        'image_branch',
        'view_transform',
        'bev_head',
        'decode',
        'host',
        'publish',
        'total',
        'tracking',
    )
    assert set(values('latency')) == {
        f'{stage}_p{percent}_ms' for stage in stages for percent in (50, 95)
    }
    assert (values('node')['device'], values('node')['precision'], values('node')['state']) == (
        'cpu',
        'fp32',
        'active',
    )
    assert float(values('node')['memory_mb']) > 0
