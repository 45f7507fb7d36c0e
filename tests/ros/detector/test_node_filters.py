"""Sets the filters of the outputs while the node runs.

The rig sends the same images in every trigger cycle, so the network detects the same boxes.
"""

from __future__ import annotations

import numpy as np
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray, LabelInfo

from tests.ros.camera_rig import SPEED
from tests.ros.detector.running import Detector
from tests.ros.graph import wait_until

LABELS = '/bevdepth_detector/label_info'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def send(node: Detector, time_s: float) -> None:
    """Send the messages of a trigger cycle, and wait for all messages of its result."""
    count = len(node.tracks)
    node.rig.send_all(time_s)
    wait_until(lambda: len(node.tracks) > count, f'tracks of {time_s}')
    node.wait_for_detections(count + 1)


def points(node: Detector) -> np.ndarray:
    return read_points(node.objects[-1])


def centers(message: Detection3DArray) -> np.ndarray:
    positions = [detection.bbox.center.position for detection in message.detections]
    return np.array([(at.x, at.y, at.z) for at in positions]).reshape(-1, 3)


def test_all_topics_have_the_same_filters_and_invalid_values_are_rejected(tracking):
    send(tracking, 0.0)
    x = np.median(points(tracking)['x'])
    region = f'[[{x}, -200], [200, -200], [200, 200], [{x}, 200]]'
    assert tracking.set('region_of_interest', region) == ''
    assert 'must not cross itself' in tracking.set(
        'region_of_interest', '[[0, 0], [9, 9], [9, 0], [0, 9]]'
    )
    assert "classes: the detector has no class 'cat'" in tracking.set('classes', ['cat'])
    send(tracking, 0.1)
    count = len(points(tracking))
    assert 0 < count < len(read_points(tracking.objects[0]))
    assert (points(tracking)['x'] > x).all()
    assert len(tracking.detections[-1].detections) == count
    assert sum(marker.ns == 'boxes' for marker in tracking.markers[-1].markers) == count
    assert (centers(tracking.tracks[-1])[:, 0] > x).all()
    ids = {int(detection.id) for detection in tracking.tracks[-1].detections}
    assert {*points(tracking)['track_id'].tolist()} - {0} <= ids


def test_classes_can_be_selected_and_renamed_while_the_node_is_active(graph, tracking):
    labels = graph.collect(LabelInfo, LABELS, LATCHED)
    send(tracking, 0.0)
    names = [
        detection.results[0].hypothesis.class_id
        for detection in tracking.detections[-1].detections
    ]
    chosen = max(set(names), key=names.count)
    assert tracking.set('classes', [chosen]) == ''
    assert tracking.set('class_name_map', [f'{chosen}=THING']) == ''
    send(tracking, 0.1)
    for message in (tracking.detections[-1], tracking.tracks[-1]):
        found = [detection.results[0].hypothesis.class_id for detection in message.detections]
        assert set(found) == {'THING'}
    assert len(tracking.detections[-1].detections) == names.count(chosen)
    wait_until(
        lambda: 'THING' in [label.class_name for label in labels[-1].class_map],
        'the table of labels',
    )


def test_results_are_published_in_the_output_frame_or_dropped_if_its_transform_is_missing(
    tracking,
):
    send(tracking, 0.0)
    assert tracking.set('output_frame', 'map') == ''
    send(tracking, 2.0)
    before, after = tracking.detections[0], tracking.detections[-1]
    assert after.header.frame_id == tracking.objects[-1].header.frame_id == 'map'
    assert tracking.tracks[-1].header.frame_id == tracking.markers[-1].markers[1].header.frame_id
    assert before.header.frame_id == 'base_link'
    first = centers(after)[0]
    moved = centers(before) + np.array((SPEED * 2.004, 0, 0))
    assert np.abs(moved - first).max(axis=1).min() < 1e-3
    assert tracking.set('output_frame', 'utm') == ''
    tracking.rig.send_all(2.1)
    words = (
        'so nothing can be published in utm: publish this transform, or set output_frame to '
        'base_link'
    )
    wait_until(lambda: tracking.diagnostics.reports('tf', words), 'the report')
    assert tracking.diagnostics.values('sets')['dropped_no_output_frame'] == '1'
    assert tracking.set('output_frame', '') == ''
    send(tracking, 2.2)
    assert len(tracking.detections) == 3


def test_max_rate_hz_limits_the_published_results_by_stamp_but_all_results_are_tracked(tracking):
    send(tracking, 0.0)
    assert tracking.set('max_rate_hz', 1.0) == ''
    send(tracking, 0.1)
    for number in range(2, 5):
        tracking.rig.send_all(number / 10)
        wait_until(
            lambda n=number: tracking.diagnostics.values('sets').get('unpublished') == str(n - 1),
            'a result that is not published',
        )
    send(tracking, 1.2)
    assert len(tracking.detections) == len(tracking.tracks) == 3
    ids = [{detection.id for detection in message.detections} for message in tracking.tracks]
    assert ids[0] & ids[2]
