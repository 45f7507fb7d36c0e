"""Tests the results of the running node, which are received through its topics."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sensor_msgs.msg import Image

from bevdepth_ros.rig.stamps import stamp_ns
from tests.ros.camera_rig import Rig, jpeg
from tests.ros.detector.running import ACTIVATE, CAMERAS, DEACTIVATE
from tests.ros.graph import Graph, wait_until


def test_results_on_every_topic_are_in_the_base_frame_and_have_the_mean_stamp_of_the_set(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    headers = [
        node.detections[0].header,
        node.objects[0].header,
        node.markers[0].markers[0].header,
    ]
    assert all(header == headers[0] for header in headers)
    assert headers[0].frame_id == 'base_link'
    assert stamp_ns(node.detections[0]) == node.rig.mean_stamp_ns(0.0)
    assert len(node.detections[0].detections) == node.objects[0].width > 0


@pytest.mark.parametrize('cameras', [('only',), ('a', 'b', 'c')])
def test_a_rig_with_one_camera_or_three_cameras_has_results(detector, cameras: tuple[str, ...]):
    node = detector(cameras=cameras)
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)


def test_compressed_images_and_the_raw_images_decoded_from_them_give_the_same_boxes(
    graph: Graph, detector
):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert node.change(DEACTIVATE)
    assert node.set('image_transport', 'raw') == ''
    assert node.set('image_topics', ['/{camera}/raw']) == ''
    raw = Rig(graph.node, CAMERAS, Image, image_topic='/{camera}/raw')
    assert node.change(ACTIVATE)
    raw.wait_for_detector()
    raw.send_all(0.0)
    node.wait_for_detections(2)
    assert node.detections[1].detections == node.detections[0].detections


def test_without_ego_poses_boxes_are_published_without_velocities(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    node.rig.send_images(0.0)
    node.wait_for_detections(1)
    assert np.isnan(node.velocities()).all()
    wait_until(
        lambda: node.diagnostics.reports('tf', 'without ego motion there are no velocities'),
        'the report',
    )
    words = 'off: tf has no map <- base_link'
    wait_until(
        lambda: node.diagnostics.values('tf').get('temporal_fusion', '').startswith(words),
        'the reason',
    )


def test_temporal_fusion_starts_with_a_past_frame_half_a_second_old(detector):
    node = detector()
    node.start()
    node.rig.send_all(0.0)
    node.wait_for_detections(1)
    assert np.isnan(node.velocities()).all()
    node.rig.send_all(0.5)
    node.wait_for_detections(2)
    assert np.isfinite(node.velocities()).all()
    wait_until(lambda: node.diagnostics.values('tf').get('temporal_fusion') == 'on', 'fusion')
    assert math.isclose(float(node.diagnostics.values('tf')['past_frame_age_s']), 0.5)


def test_after_a_restart_of_the_bag_results_continue_and_have_velocities_again(detector):
    node = detector()
    node.start()
    for count, time_s in enumerate((30.0, 30.5, 0.0, 0.5, 30.0, 0.0, 0.1, 0.6), start=1):
        node.rig.send_all(time_s)
        node.wait_for_detections(count)
    assert np.isfinite(node.velocities()).all()
    wait_until(lambda: node.diagnostics.is_ok('tf'), 'the end of all reports')
    assert not node.diagnostics.was_reported('tf', 'without ego motion')


def test_an_image_set_with_a_damaged_image_is_processed_without_the_camera_of_this_image(detector):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    node.rig.send_poses(0.0)
    node.rig.send_images(0.0, data={'right': jpeg()[:-300]})
    wait_until(
        lambda: node.diagnostics.reports(
            'cameras', 'image of right on /right/image is a damaged or unsupported JPEG'
        ),
        'the report',
    )
    node.wait_for_detections(1)
    assert stamp_ns(node.detections[0]) == node.rig.stamps_ns(0.0)[0]
    node.rig.send_all(0.1)
    node.wait_for_detections(2)
    assert stamp_ns(node.detections[1]) == node.rig.mean_stamp_ns(0.1)
    wait_until(lambda: node.diagnostics.values('cameras')['right.unusable'] == '1', 'the count')


def test_if_images_arrive_too_fast_the_newest_set_is_processed_and_replaced_sets_are_counted(
    detector,
):
    node = detector()
    node.start()
    node.rig.send_extrinsics()
    node.rig.send_infos()
    for number in range(20):
        node.rig.send_poses(0.1 * number)
        node.rig.send_images(0.1 * number)
    newest = node.rig.mean_stamp_ns(1.9)
    wait_until(
        lambda: node.detections and node.detections[-1].header.stamp.nanosec == newest % 10**9,
        'the newest set',
    )
    counts = node.diagnostics.values
    wait_until(
        lambda: (
            int(counts('sets')['received'])
            == int(counts('sets')['processed']) + int(counts('sets')['dropped'])
        ),
        'the counts',
    )
    assert counts('sets')['dropped'] == counts('sets')['dropped_replaced']
