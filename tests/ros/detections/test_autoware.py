"""Tests the messages for Autoware with classes generated from its public definitions."""

from __future__ import annotations

import dataclasses
import math
import sys
import uuid

import numpy as np
import pytest

from bevdepth_core.uncertainty import BoxCovariance
from bevdepth_ros.detections.autoware import autoware_messages, detected_objects, tracked_objects
from bevdepth_ros.detections.messages import header
from bevdepth_ros.detector.autoware_publishers import AutowarePublishers
from tests.ros.detections.autoware_classes import message_module
from tests.ros.detections.objects import STAMP_NS, detections, tracks

MSG = message_module()
POSE = np.arange(48.0).reshape(3, 4, 4)
VELOCITY = np.array([[[2.0, 0.3], [0.3, 5]], [[1, 0], [0, 1]], [[2, 0.5], [0.5, 7]]])
COVARIANCE = BoxCovariance(POSE, VELOCITY)
NAMESPACE = uuid.UUID(int=7)


def with_covariance(objects):
    """Return ``objects`` with the covariances of this file."""
    return dataclasses.replace(objects, pose_covariance=POSE, velocity_covariance=VELOCITY)


def test_a_detected_object_has_the_probability_class_and_shape_of_its_detection() -> None:
    found = detections()
    message = detected_objects(MSG, found, COVARIANCE, 'map')
    assert message.header == header(STAMP_NS, 'map')
    assert len(message.objects) == 3
    for item, score, size in zip(message.objects, found.scores, found.boxes.size, strict=True):
        assert item.existence_probability == pytest.approx(float(score))
        (classification,) = item.classification
        assert classification.probability == 1.0
        dimensions = item.shape.dimensions
        assert (dimensions.x, dimensions.y, dimensions.z) == tuple(size.tolist())
        assert item.shape.type == MSG.Shape.BOUNDING_BOX
        assert not item.shape.footprint.points
    labels = [item.classification[0].label for item in message.objects]
    kind = MSG.ObjectClassification
    assert labels == [kind.CAR, kind.PEDESTRIAN, kind.UNKNOWN]


@pytest.mark.parametrize(
    ('name', 'label'),
    [
        ('construction_vehicle', 'TRUCK'),
        ('Bus', 'BUS'),
        ('trailer', 'TRAILER'),
        ('BICYCLE', 'BICYCLE'),
        ('motorcycle', 'MOTORCYCLE'),
        ('traffic_cone', 'UNKNOWN'),
        ('hazard', 'UNKNOWN'),  # version 1.0 of the messages does not have this label
        ('types', 'UNKNOWN'),
    ],
)
def test_the_autoware_label_of_a_class_follows_from_its_published_name(name, label) -> None:
    found = dataclasses.replace(detections(), class_names=(name, 'car', 'car'))
    message = detected_objects(MSG, found, COVARIANCE, 'base_link')
    assert message.objects[0].classification[0].label == getattr(MSG.ObjectClassification, label)


def test_a_detected_object_has_the_pose_and_the_covariance_of_its_box() -> None:
    item = detected_objects(MSG, detections(), COVARIANCE, 'base_link').objects[1]
    kinematics, box = item.kinematics, detections().boxes[1:2]
    position = kinematics.pose_with_covariance.pose.position
    assert (position.x, position.y, position.z) == tuple(box.center[0].tolist())
    q = kinematics.pose_with_covariance.pose.orientation
    assert 2 * math.atan2(q.z, q.w) == pytest.approx(-2.0)
    matrix = np.reshape(kinematics.pose_with_covariance.covariance, (6, 6))
    axes = [0, 1, 2, 5]
    assert np.array_equal(matrix[np.ix_(axes, axes)], POSE[1])
    assert not matrix[3:5].any()
    assert kinematics.has_position_covariance
    assert kinematics.orientation_availability == MSG.DetectedObjectKinematics.AVAILABLE


def test_the_linear_velocity_of_a_twist_is_expressed_in_the_axes_of_the_box() -> None:
    kinematics = detected_objects(MSG, detections(), COVARIANCE, 'map').objects[2].kinematics
    assert kinematics.has_twist
    assert kinematics.has_twist_covariance
    twist = kinematics.twist_with_covariance.twist
    # The box points along -x and moves along +y.
    assert twist.linear.x == pytest.approx(0, abs=1e-5)
    assert twist.linear.y == pytest.approx(-2)
    matrix = np.reshape(kinematics.twist_with_covariance.covariance, (6, 6))
    assert np.allclose(matrix[:2, :2], VELOCITY[2], atol=1e-5)
    assert not matrix[2:].any()


def test_the_covariance_of_the_twist_is_rotated_to_the_axes_of_the_box() -> None:
    boxes = dataclasses.replace(detections().boxes, yaw=np.full(3, np.pi / 2, np.float32))
    found = dataclasses.replace(detections(), boxes=boxes)
    kinematics = detected_objects(MSG, found, COVARIANCE, 'map').objects[0].kinematics
    twist = kinematics.twist_with_covariance
    assert (twist.twist.linear.x, twist.twist.linear.y) == pytest.approx((-1, -6), abs=1e-5)
    matrix = np.reshape(twist.covariance, (6, 6))
    assert np.allclose(matrix[:2, :2], [[5, -0.3], [-0.3, 2]], atol=1e-5)


def test_without_a_past_frame_detected_objects_have_no_twist() -> None:
    message = detected_objects(MSG, detections(None), COVARIANCE, 'map')
    for item in message.objects:
        assert not item.kinematics.has_twist
        assert not item.kinematics.has_twist_covariance
        assert item.kinematics.twist_with_covariance.twist.linear.x == 0


def test_tracked_objects_have_ids_that_are_stable_and_differ_between_trackers() -> None:
    def ids(*track_ids: int, namespace: uuid.UUID = NAMESPACE) -> list[bytes]:
        message = tracked_objects(MSG, tracks(track_ids, (0, 1)), namespace, 'map')
        return [bytes(item.object_id.uuid) for item in message.objects]

    first, second = ids(1, 2)
    assert ids(2, 1) == [second, first]
    assert first != second
    assert first not in ids(1, 2, namespace=uuid.UUID(int=8))


def test_a_tracked_object_has_pose_twist_and_covariance_of_its_track() -> None:
    message = tracked_objects(MSG, with_covariance(tracks((1, 2, 3), (0, 1, 2))), NAMESPACE, 'map')
    expected = detected_objects(MSG, detections(), COVARIANCE, 'map')
    assert message.header == expected.header
    for item, other in zip(message.objects, expected.objects, strict=True):
        assert item.existence_probability == other.existence_probability
        assert item.classification == other.classification
        assert item.shape == other.shape
        kinematics = item.kinematics
        assert kinematics.pose_with_covariance == other.kinematics.pose_with_covariance
        assert kinematics.twist_with_covariance == other.kinematics.twist_with_covariance
        assert kinematics.orientation_availability == MSG.TrackedObjectKinematics.AVAILABLE
        assert not kinematics.is_stationary


class Topic:
    """A publisher that stores its messages and has ``subscribers`` subscribers."""

    def __init__(self, subscribers: int):
        self.subscribers, self.messages = subscribers, []

    def get_subscription_count(self) -> int:
        return self.subscribers

    def publish(self, message) -> None:
        self.messages.append(message)


@pytest.mark.parametrize('subscribers', [0, 1])
def test_messages_are_built_only_if_their_topics_have_subscribers(subscribers: int) -> None:
    topics: dict[str, Topic] = {}

    def create(kind: type, name: str) -> Topic:
        return topics.setdefault(f'{name} {kind.__name__}', Topic(subscribers))

    publishers = AutowarePublishers(MSG, create)
    publishers.publish(detections(), COVARIANCE, None, 'map')
    publishers.publish(detections(), COVARIANCE, tracks((1,), (0,)), 'map')
    counts = {name: len(topic.messages) for name, topic in topics.items()}
    assert counts == {
        '~/detected_objects DetectedObjects': 2 * subscribers,
        '~/tracked_objects TrackedObjects': subscribers,
    }


def test_without_the_autoware_package_no_publisher_is_created(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'autoware_perception_msgs', None)
    assert autoware_messages() is None
    publishers = AutowarePublishers(None, lambda kind, name: pytest.fail(name))
    publishers.publish(detections(), COVARIANCE, tracks((1,), (0,)), 'map')


def test_the_autoware_package_is_used_if_it_is_installed(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, 'autoware_perception_msgs', MSG)
    monkeypatch.setitem(sys.modules, 'autoware_perception_msgs.msg', MSG)
    assert autoware_messages() is MSG
