from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import PointCloud2
from sensor_msgs_py.point_cloud2 import read_points
from vision_msgs.msg import Detection3DArray
from visualization_msgs.msg import Marker, MarkerArray

from bevdepth_core.visualization import class_color
from bevdepth_ros.detections.messages import (
    BOX_FIELDS,
    OBJECT_FIELDS,
    header,
    label_info,
    latency_record,
    marker_array,
    objects_cloud,
)
from tests.ros.detections.message_objects import detection_array
from tests.ros.detections.objects import CLASSES, STAMP_NS, detections, tracks


def serialized_and_read(message):
    return deserialize_message(serialize_message(message), type(message))


def test_every_header_has_the_stamp_of_the_detections_and_the_given_frame():
    array = detection_array(detections(), 'base_link')
    for found in (array.header, *(detection.header for detection in array.detections)):
        assert found == header(STAMP_NS, 'base_link')
        assert found.stamp.sec * 10**9 + found.stamp.nanosec == STAMP_NS


def test_boxes_have_the_detected_center_size_and_heading():
    array = detection_array(detections(), 'base_link')
    for index, detection in enumerate(array.detections):
        center, size, q = (
            detection.bbox.center.position,
            detection.bbox.size,
            detection.bbox.center.orientation,
        )
        assert np.allclose((center.x, center.y, center.z), detections().boxes.center[index])
        assert np.allclose((size.x, size.y, size.z), detections().boxes.size[index])
        yaw = math.atan2(2 * (q.w * q.z + q.x * q.y), 1 - 2 * (q.y**2 + q.z**2))
        assert math.isclose(math.cos(yaw - detections().boxes.yaw[index]), 1, abs_tol=1e-6)
        assert detection.results[0].pose.pose == detection.bbox.center
        assert not np.any(detection.results[0].pose.covariance)


def test_a_detection_has_its_class_name_and_score():
    array = detection_array(detections(), 'base_link')
    assert [detection.results[0].hypothesis.class_id for detection in array.detections] == list(
        CLASSES
    )
    assert np.allclose(
        [detection.results[0].hypothesis.score for detection in array.detections], (0.9, 0.5, 0.2)
    )


def test_the_objects_cloud_contains_all_numbers_of_all_boxes():
    points = read_points(serialized_and_read(objects_cloud(detections(), 'base_link')))
    boxes = detections().boxes
    expected = np.column_stack(
        (
            boxes.center,
            boxes.size,
            boxes.yaw,
            boxes.velocity,
            detections().scores,
            detections().labels,
        )
    )
    assert points.dtype.names == OBJECT_FIELDS
    assert np.array_equal(np.column_stack([points[name] for name in BOX_FIELDS]), expected)
    assert not points['track_id'].any()
    assert np.isnan(points['vx_variance']).all()


def test_the_objects_cloud_contains_the_covariance_of_the_velocity_and_the_track_id():
    covariance = np.array([[[1, 2], [2, 3]], [[4, 5], [5, 6]], [[7, 8], [8, 9]]], float)
    found = dataclasses.replace(detections(), track_ids=np.array((7, 0, 9)))
    cloud = objects_cloud(found, 'base_link', covariance)
    points = read_points(serialized_and_read(cloud))
    assert cloud.is_dense
    assert points['vx_variance'].tolist() == [1, 4, 7]
    assert points['vx_vy_covariance'].tolist() == [2, 5, 8]
    assert points['vy_variance'].tolist() == [3, 6, 9]
    assert points['track_id'].tolist() == [7, 0, 9]


def test_without_a_past_frame_velocities_are_nan_in_the_objects_cloud_and_have_no_arrows():
    cloud = objects_cloud(detections(past_stamp_ns=None), 'base_link', np.ones((3, 2, 2)))
    points = read_points(cloud)
    for name in ('vx', 'vy', 'vx_variance', 'vx_vy_covariance', 'vy_variance'):
        assert np.isnan(points[name]).all()
    assert not cloud.is_dense
    assert not any(
        marker.ns == 'velocities'
        for marker in marker_array(detections(past_stamp_ns=None), 'base_link', 0.5).markers
    )


def test_the_first_marker_deletes_the_markers_of_the_previous_message():
    markers = serialized_and_read(marker_array(detections(), 'base_link', 0.5)).markers
    assert [marker.action for marker in markers] == [Marker.DELETEALL] + [Marker.ADD] * (
        len(markers) - 1
    )


def test_markers_have_pose_color_lifetime_and_a_unique_pair_of_namespace_and_id():
    markers = marker_array(detections(), 'base_link', 1.25).markers[1:]
    assert len({(marker.ns, marker.id) for marker in markers}) == len(markers)
    assert {(marker.lifetime.sec, marker.lifetime.nanosec) for marker in markers} == {
        (1, 250_000_000)
    }
    boxes = [marker for marker in markers if marker.ns == 'boxes']
    array = detection_array(detections(), 'base_link')
    for name, marker, detection in zip(CLASSES, boxes, array.detections, strict=True):
        assert marker.pose == detection.bbox.center
        assert marker.scale == detection.bbox.size
        assert np.allclose(
            (marker.color.r, marker.color.g, marker.color.b), np.array(class_color(name)) / 255
        )


def test_the_arrow_of_a_moving_box_ends_where_the_box_will_be_one_second_later():
    arrows = {
        marker.id: marker
        for marker in marker_array(detections(), 'base_link', 0.5).markers
        if marker.ns == 'velocities'
    }
    assert set(arrows) == {0, 2}
    start, end = arrows[0].points
    assert np.allclose(
        (start.x, start.y, start.z, end.x, end.y, end.z), (10, -4, 0.8, 16, -5, 0.8)
    )


def test_text_markers_contain_class_and_score():
    texts = [
        marker.text
        for marker in marker_array(detections(), 'base_link', 0.5).markers
        if marker.ns == 'labels'
    ]
    assert texts == ['car 0.90', 'pedestrian 0.50', 'hovercraft 0.20']


def test_text_markers_of_tracked_detections_also_contain_the_track_id():
    found = dataclasses.replace(detections(), track_ids=np.array((7, 0, 12)))
    message = marker_array(found, 'base_link', 0.5)
    texts = [marker.text for marker in message.markers if marker.ns == 'labels']
    assert texts == ['car 0.90 #7', 'pedestrian 0.50', 'hovercraft 0.20 #12']


def test_a_track_that_moved_has_a_trail_in_the_color_of_its_class():
    trails = [np.array([(1.0, 2, 3), (1.5, 2, 3), (4, 6, 3)]), np.array([(0, 0, 0), (0.9, 0, 0)])]
    found = tracks((12, 7), (1, 0))
    markers = marker_array(detections(), 'base_link', 1.25, found, trails).markers
    (trail,) = [marker for marker in markers if marker.ns == 'trails']
    assert [(point.x, point.y, point.z) for point in trail.points] == [
        (1, 2, 3),
        (1.5, 2, 3),
        (4, 6, 3),
    ]
    assert (trail.id, trail.type, trail.header) == (12, Marker.LINE_STRIP, markers[0].header)
    assert (trail.lifetime.sec, trail.lifetime.nanosec) == (1, 250_000_000)
    assert np.allclose(
        (trail.color.r, trail.color.g, trail.color.b), np.array(class_color('pedestrian')) / 255
    )


@pytest.mark.parametrize(
    ('make', 'kind', 'length'),
    [
        (detection_array, Detection3DArray, lambda message: len(message.detections)),
        (objects_cloud, PointCloud2, lambda message: message.width),
        (
            lambda found, frame: marker_array(found, frame, 0.5),
            MarkerArray,
            lambda message: len(message.markers) - 1,
        ),
    ],
)
def test_without_detections_the_message_is_empty_and_valid(make, kind, length):
    message = serialized_and_read(make(detections().above(2.0), 'base_link'))
    assert isinstance(message, kind)
    assert length(message) == 0


def test_the_label_table_maps_label_numbers_to_class_names():
    info = serialized_and_read(label_info(CLASSES, 0.25, header(STAMP_NS, 'base_link')))
    assert {entry.class_id: entry.class_name for entry in info.class_map} == dict(
        enumerate(CLASSES)
    )
    assert math.isclose(info.threshold, 0.25)


def test_markers_are_visible_and_a_label_is_half_a_meter_above_its_box():
    markers = marker_array(detections(), 'base_link', 0.5).markers[1:]
    for marker in markers:
        color = marker.color
        assert all(0 <= part <= 1 for part in (color.r, color.g, color.b))
        assert 0.5 <= color.a <= 1
    boxes = detections().boxes
    texts = [marker for marker in markers if marker.ns == 'labels']
    for marker, center, size in zip(texts, boxes.center, boxes.size, strict=True):
        position = marker.pose.position
        assert (marker.type, marker.pose.orientation.w) == (Marker.TEXT_VIEW_FACING, 1.0)
        assert (marker.color.r, marker.color.g, marker.color.b) == (1, 1, 1)
        assert np.allclose((position.x, position.y), center[:2])
        assert position.z == pytest.approx(center[2] + size[2] / 2 + 0.5)
        assert 0.3 < marker.scale.z < 1
    for arrow in (marker for marker in markers if marker.ns == 'velocities'):
        assert arrow.type == Marker.ARROW
        # x is the diameter of the shaft, y the diameter of the head, and z the length of the head.
        assert 0 < arrow.scale.x < arrow.scale.y < arrow.scale.z < 0.5


@pytest.mark.parametrize(('speed', 'has_arrow'), [(0.299, False), (0.301, True)])
def test_a_box_has_an_arrow_at_speeds_of_0_3_m_s_or_more(speed: float, has_arrow: bool):
    boxes = dataclasses.replace(detections().boxes, velocity=[[0, 0], [0, -speed], [0, 0]])
    markers = marker_array(dataclasses.replace(detections(), boxes=boxes), 'map', 0.5).markers
    assert [m.id for m in markers if m.ns == 'velocities'] == ([1] if has_arrow else [])


@pytest.mark.parametrize(('moved_m', 'count'), [(0.99, 0), (1.0, 1)])
def test_a_track_that_moved_one_meter_or_more_has_a_trail_even_if_its_id_is_large(
    moved_m: float, count: int
):
    found, trail = (
        tracks((2**31 + 5,), (0,)),
        np.array([(0.0, 0, 0), (0, 0.5, 0), (0, moved_m, 0)]),
    )
    markers = marker_array(detections(), 'map', 0.5, found, [trail]).markers
    trails = [marker for marker in markers if marker.ns == 'trails']
    assert [marker.id for marker in trails] == [5] * count
    assert all(0 < marker.scale.x < 0.5 and 0.5 < marker.color.a <= 1 for marker in trails)


@pytest.mark.parametrize(('past_ns', 'age'), [(STAMP_NS - 500_000_000, '0.500'), (None, 'none')])
def test_the_latency_record_contains_durations_cameras_and_the_age_of_the_past_frame(
    past_ns: int | None, age: str
):
    found, seconds = detections(past_stamp_ns=past_ns), {'decode': 0.0123, 'total': 0.1}
    message = latency_record(found, ('a', 'c'), ('a', 'b', 'c'), seconds, 'map')
    assert message.header == header(STAMP_NS, 'map')
    assert {entry.key: entry.value for entry in message.status[0].values} == {
        'cameras': 'a, c', 'left_out': 'b', 'past_frame_age_s': age,
        'decode_ms': '12.30', 'total_ms': '100.00',
    }  # fmt: skip
    message = latency_record(found, ('a', 'c'), ('a', 'c'), {}, 'map')
    assert {entry.key: entry.value for entry in message.status[0].values}['left_out'] == 'none'
