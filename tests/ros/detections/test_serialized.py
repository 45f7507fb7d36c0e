"""Compares serialized detections with messages that rclpy serializes.

Padding bytes may have any value. The tests therefore compare the length of the data and the values
after deserialization, not the bytes.
"""

from __future__ import annotations

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from vision_msgs.msg import Detection3DArray

from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.detections.serialized import pose_covariance, serialized_detection_array
from tests.ros.detections.message_objects import built_array

NAMES = ('car', 'construction_vehicle', 'b', 'traffic cone', 'ö', 'trailer')
STAMP_NS = 1_700_000_001_000_000_002


def detections(count: int, seed: int = 0) -> Detections3D:
    rng = np.random.default_rng(seed)
    return Detections3D(
        Boxes3D(
            rng.normal(0, 20, (count, 3)),
            rng.uniform(0.5, 9, (count, 3)),
            rng.uniform(-4, 4, count),
            rng.normal(0, 5, (count, 2)),
        ),
        np.sort(rng.random(count))[::-1],
        rng.integers(0, len(NAMES), count),
        NAMES,
        STAMP_NS,
    )


def require_equal(found: Detections3D, frame_id: str) -> None:
    expected = built_array(found, frame_id)
    data = serialized_detection_array(found, frame_id)
    assert len(data) == len(serialize_message(expected))
    assert deserialize_message(data, Detection3DArray) == expected


@pytest.mark.parametrize('frame_id', ['', 'a', 'map', 'odom', 'base_link', 'robot/base_link'])
@pytest.mark.parametrize('count', [0, 1, 2, 57])
def test_the_serialized_message_equals_the_message_that_rclpy_serializes(frame_id, count):
    require_equal(detections(count, seed=count), frame_id)


def test_fields_after_class_names_of_any_length_are_aligned_correctly():
    for first in range(len(NAMES)):
        base = detections(len(NAMES))
        labels = np.roll(np.arange(len(NAMES)), first)
        require_equal(Detections3D(base.boxes, base.scores, labels, NAMES, STAMP_NS), 'base_link')


def test_covariances_are_row_major_and_belong_to_their_detection():
    covariance = np.arange(2 * 36, dtype=float).reshape(2, 6, 6)
    data = serialized_detection_array(detections(2), 'base_link', covariance)
    message = deserialize_message(data, Detection3DArray)
    for index, detection in enumerate(message.detections):
        assert list(detection.results[0].pose.covariance) == covariance[index].ravel().tolist()


@pytest.mark.parametrize('first', [0, 7, 96, 99_990])
def test_fields_after_ids_of_any_length_are_aligned_correctly(first):
    found, ids = detections(12), np.arange(first, first + 12)
    data = serialized_detection_array(found, 'base_link', ids=ids)
    assert deserialize_message(data, Detection3DArray) == built_array(found, 'base_link', ids)


def test_pose_covariance_has_zero_rows_and_columns_for_roll_and_pitch():
    four = np.arange(32, dtype=float).reshape(2, 4, 4)
    full = pose_covariance(four)
    assert full.shape == (2, 6, 6)
    assert np.array_equal(full[np.ix_((0, 1), (0, 1, 2, 5), (0, 1, 2, 5))], four)
    assert not full[:, 3:5].any()
    assert not full[:, :, 3:5].any()
