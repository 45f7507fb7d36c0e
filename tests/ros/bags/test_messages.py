"""Creates messages without ROS, and checks them after ROS has deserialized them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message
from rosidl_runtime_py.utilities import get_message
from sensor_msgs_py.point_cloud2 import read_points
from visualization_msgs.msg import Marker

from bevdepth_core.geometry import rigid_from_quaternion
from bevdepth_core.visualization import class_color
from bevdepth_ros.bags import messages
from bevdepth_ros.bags.messages import Annotated, message_types, quaternions_of_yaw
from bevdepth_ros.rig.tf_listener import matrix_from_transform

STAMP_NS = 1_700_000_001_000_000_002
K = np.array([(600.0, 0, 330), (0, 610, 250), (0, 0, 1)])
BOXES = Annotated(
    [(1.0, 2, 3), (4, 5, 6)],
    [(4.0, 2, 1.5), (1, 0.6, 1.7)],
    quaternions_of_yaw([0.3, -2.5]),
    ['car', 'pedestrian'],
    ['first', ''],
)


def ros(message: Any, kind: str) -> Any:
    """Serialize ``message`` with rosbags, deserialize it with ROS, and return the result."""
    data = message_types().serialize_cdr(message, kind)
    return deserialize_message(bytes(data), get_message(kind))


def stamped(message: Any) -> tuple[int, str]:
    stamp = message.header.stamp
    return stamp.sec * 10**9 + stamp.nanosec, message.header.frame_id


def test_a_transform_has_the_rotation_and_translation_of_its_matrix() -> None:
    turn = np.array([0.5, -0.5, 0.5, -0.5])
    pose = rigid_from_quaternion(turn, (1, 2, 3))
    message = messages.transform(STAMP_NS, 'map', 'base_link', pose)
    found = ros(message, 'geometry_msgs/msg/TransformStamped')
    assert stamped(found) == (STAMP_NS, 'map')
    assert found.child_frame_id == 'base_link'
    assert np.allclose(matrix_from_transform(found), pose)


@pytest.mark.parametrize(
    ('given', 'expected', 'model'),
    [
        ((), (0.0,) * 5, 'plumb_bob'),
        ((0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5), 'plumb_bob'),
        ((0.1,) * 6, (*(0.1,) * 6, 0, 0), 'rational_polynomial'),
        ((0.1,) * 8, (0.1,) * 8, 'rational_polynomial'),
    ],
)
def test_camera_info_has_the_intrinsics_and_the_distortion(given, expected, model: str) -> None:
    message = messages.camera_info(STAMP_NS, 'front', K, 640, 480, given)
    found = ros(message, 'sensor_msgs/msg/CameraInfo')
    assert stamped(found) == (STAMP_NS, 'front')
    assert (found.width, found.height, found.distortion_model) == (640, 480, model)
    assert tuple(found.d) == pytest.approx(expected)
    assert np.array_equal(np.reshape(found.k, (3, 3)), K)
    assert np.array_equal(np.reshape(found.r, (3, 3)), np.eye(3))
    assert np.array_equal(np.reshape(found.p, (3, 4)), np.column_stack((K, np.zeros(3))))
    roi = found.roi
    assert not any((roi.x_offset, roi.y_offset, roi.width, roi.height, roi.do_rectify))
    assert (found.binning_x, found.binning_y) == (0, 0)


def test_image_messages_have_the_given_bytes_and_the_layout_of_the_pixels() -> None:
    found = ros(
        messages.compressed_image(STAMP_NS, 'front', b'jpeg'), 'sensor_msgs/msg/CompressedImage'
    )
    assert (stamped(found), found.format, bytes(found.data)) == (
        (STAMP_NS, 'front'), 'jpeg', b'jpeg',
    )  # fmt: skip
    pixels = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)[:, 1:]
    found = ros(messages.raw_image(STAMP_NS, 'front', pixels, 'bgr8'), 'sensor_msgs/msg/Image')
    assert (stamped(found), found.encoding) == ((STAMP_NS, 'front'), 'bgr8')
    assert (found.width, found.height, found.step, found.is_bigendian) == (4, 4, 12, 0)
    assert bytes(found.data) == pixels.tobytes()
    assert messages.raw_image(STAMP_NS, 'front', pixels).encoding == 'rgb8'


def test_a_point_cloud_has_all_columns_of_all_points() -> None:
    points = np.array([(1.5, 2, 3, 0.25, 31), (4, 5, 6, 255, 0)])
    found = ros(messages.point_cloud(STAMP_NS, 'lidar', points), 'sensor_msgs/msg/PointCloud2')
    assert stamped(found) == (STAMP_NS, 'lidar')
    assert (found.height, found.width, found.is_dense, found.is_bigendian) == (1, 2, True, False)
    assert found.row_step == found.width * found.point_step == len(found.data)
    read = read_points(found)
    assert read.dtype.names == ('x', 'y', 'z', 'intensity', 'ring')
    assert np.column_stack([read[name] for name in read.dtype.names]).tolist() == points.tolist()


def test_annotations_become_detections_of_score_1_with_the_ids_of_their_objects() -> None:
    message = messages.detection_array(STAMP_NS, 'base_link', BOXES)
    found = ros(message, 'vision_msgs/msg/Detection3DArray')
    assert stamped(found) == (STAMP_NS, 'base_link')
    assert [detection.id for detection in found.detections] == ['first', '']
    assert [
        detection.results[0].hypothesis.class_id for detection in found.detections
    ] == BOXES.class_names
    for detection, (center, size, (w, x, y, z), *_) in zip(
        found.detections, BOXES.rows(), strict=True
    ):
        box = detection.bbox
        position, turn = box.center.position, box.center.orientation
        assert detection.header == found.header
        assert [position.x, position.y, position.z] == center
        assert [box.size.x, box.size.y, box.size.z] == size
        assert [turn.w, turn.x, turn.y, turn.z] == [w, x, y, z]
        assert detection.results[0].pose.pose == box.center
        assert detection.results[0].hypothesis.score == 1
        assert not np.any(detection.results[0].pose.covariance)


def test_markers_delete_earlier_markers_and_have_a_lifetime_between_0_5_and_1_s() -> None:
    message = messages.marker_array(STAMP_NS, 'map', BOXES)
    clear, *cubes = ros(message, 'visualization_msgs/msg/MarkerArray').markers
    assert (clear.action, stamped(clear)) == (Marker.DELETEALL, (STAMP_NS, 'map'))
    assert [cube.id for cube in cubes] == [0, 1]
    for cube, (center, size, turn, name, _) in zip(cubes, BOXES.rows(), strict=True):
        assert (cube.type, cube.action, cube.ns) == (Marker.CUBE, Marker.ADD, 'annotations')
        assert stamped(cube) == (STAMP_NS, 'map')
        assert 0.5 < cube.lifetime.sec + 1e-9 * cube.lifetime.nanosec < 1
        assert cube.frame_locked
        position, orientation = cube.pose.position, cube.pose.orientation
        assert [position.x, position.y, position.z] == center
        assert [orientation.w, orientation.z] == [turn[0], turn[3]]
        assert [cube.scale.x, cube.scale.y, cube.scale.z] == size
        color = np.array((cube.color.r, cube.color.g, cube.color.b))
        assert np.allclose(color, np.array(class_color(name)) / 255)
        assert 0.2 < cube.color.a < 1


def test_quaternions_of_yaw_rotate_about_z() -> None:
    found = quaternions_of_yaw(np.array([0.0, math.pi / 2, -0.4], np.float32))
    assert found.dtype == np.float64
    expected = [(1, 0, 0, 0), (0.5**0.5, 0, 0, 0.5**0.5), (math.cos(0.2), 0, 0, -math.sin(0.2))]
    np.testing.assert_allclose(found, expected, atol=1e-7)
