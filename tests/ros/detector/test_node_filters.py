"""The filters of the outputs, set while the node runs.

The random network detects the same boxes in every trigger cycle.
"""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray, LabelInfo

from tests.ros.camera_rig import SPEED
from tests.ros.detector.running import Detector
from tests.ros.graph import Graph, wait_until

TRACKS = '/bevdepth_detector/tracks'
LABELS = '/bevdepth_detector/label_info'
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


@pytest.fixture
def filtering(graph: Graph, detector) -> Detector:
    """Return a detector that publishes every detection as a track at once."""
    node = detector(track_birth_score=0.0, track_min_hits=1)
    node.tracks = graph.collect(Detection3DArray, TRACKS)
    node.start()
    wait_until(lambda: graph.node.count_publishers(TRACKS) == 1, 'tracks')
    return node


def send(node: Detector, time_s: float) -> None:
    """Send a trigger cycle and wait for all messages of its result."""
    count = len(node.tracks)
    node.rig.send_all(time_s)
    wait_until(lambda: len(node.tracks) > count, f'tracks of {time_s}')
    node.answers(count + 1)


def points(node: Detector) -> np.ndarray:
    return read_points(node.objects[-1])


def centers(message: Detection3DArray) -> np.ndarray:
    positions = [one.bbox.center.position for one in message.detections]
    return np.array([(at.x, at.y, at.z) for at in positions]).reshape(-1, 3)


def test_all_topics_pass_the_same_filters_and_an_invalid_value_changes_nothing(filtering):
    send(filtering, 0.0)
    x = np.median(points(filtering)['x'])
    region = f'[[{x}, -200], [200, -200], [200, 200], [{x}, 200]]'
    assert filtering.set('region_of_interest', region) == ''
    assert 'must not cross itself' in filtering.set(
        'region_of_interest', '[[0, 0], [9, 9], [9, 0], [0, 9]]'
    )
    assert "classes: the detector has no class 'cat'" in filtering.set('classes', ['cat'])
    send(filtering, 0.1)
    count = len(points(filtering))
    assert 0 < count < len(read_points(filtering.objects[0]))
    assert (points(filtering)['x'] > x).all()
    assert len(filtering.detections[-1].detections) == count
    assert sum(marker.ns == 'boxes' for marker in filtering.markers[-1].markers) == count
    assert (centers(filtering.tracks[-1])[:, 0] > x).all()
    ids = {int(one.id) for one in filtering.tracks[-1].detections}
    assert {*points(filtering)['track_id'].tolist()} - {0} <= ids


def test_classes_are_chosen_and_renamed_while_active(graph, filtering):
    labels = graph.collect(LabelInfo, LABELS, LATCHED)
    send(filtering, 0.0)
    names = [one.results[0].hypothesis.class_id for one in filtering.detections[-1].detections]
    chosen = max(set(names), key=names.count)
    assert filtering.set('classes', [chosen]) == ''
    assert filtering.set('class_name_map', [f'{chosen}=THING']) == ''
    send(filtering, 0.1)
    for message in (filtering.detections[-1], filtering.tracks[-1]):
        found = [one.results[0].hypothesis.class_id for one in message.detections]
        assert set(found) == {'THING'}
    assert len(filtering.detections[-1].detections) == names.count(chosen)
    wait_until(
        lambda: 'THING' in [one.class_name for one in labels[-1].class_map], 'the table of labels'
    )


def test_objects_are_published_in_the_map_or_not_at_all_without_its_transform(filtering):
    send(filtering, 0.0)
    assert filtering.set('output_frame', 'map') == ''
    send(filtering, 2.0)
    before, after = filtering.detections[0], filtering.detections[-1]
    assert after.header.frame_id == filtering.objects[-1].header.frame_id == 'map'
    assert filtering.tracks[-1].header.frame_id == filtering.markers[-1].markers[1].header.frame_id
    assert before.header.frame_id == 'base_link'
    first = centers(after)[0]
    moved = centers(before) + np.array((SPEED * 2.004, 0, 0))
    assert np.abs(moved - first).max(axis=1).min() < 1e-3
    assert filtering.set('output_frame', 'utm') == ''
    filtering.rig.send_all(2.1)
    words = 'so nothing can be published in utm: publish it, or set output_frame to base_link'
    wait_until(lambda: filtering.diagnostics.reports('tf', words), 'the report')
    assert filtering.diagnostics.values('sets')['dropped_no_output_frame'] == '1'
    assert filtering.set('output_frame', '') == ''
    send(filtering, 2.2)
    assert len(filtering.detections) == 3


def test_the_rate_is_limited_by_stamps_while_all_results_are_tracked(filtering):
    send(filtering, 0.0)
    assert filtering.set('max_rate_hz', 1.0) == ''
    send(filtering, 0.1)
    for number in range(2, 5):
        filtering.rig.send_all(number / 10)
        wait_until(
            lambda n=number: filtering.diagnostics.values('sets').get('unpublished') == str(n - 1),
            'a result that is not published',
        )
    send(filtering, 1.2)
    assert len(filtering.detections) == len(filtering.tracks) == 3
    ids = [{one.id for one in message.detections} for message in filtering.tracks]
    assert ids[0] & ids[2]
