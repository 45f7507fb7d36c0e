"""Covariance of boxes: the default covariance and fitted models."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import (
    METADATA_KEY,
    SPREADS,
    BoxCovariance,
    UncertaintyModel,
    default_covariance,
    oriented_covariance,
)

CLASSES = ('car', 'pedestrian')


def detections(centers, scores=None, labels=None) -> Detections3D:
    count = len(centers)
    boxes = Boxes3D(
        np.reshape(centers, (count, 3)), np.ones((count, 3)), np.zeros(count), np.zeros((count, 2))
    )
    scores = np.full(count, 0.5) if scores is None else scores
    labels = np.zeros(count, np.int64) if labels is None else labels
    return Detections3D(boxes, scores, labels, CLASSES, 10**9)


def model(**changes) -> UncertaintyModel:
    base = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    values = {name: base + 10 * place for place, name in enumerate(SPREADS)}
    return UncertaintyModel(**{
        'class_names': CLASSES, 'ranges': np.array([10.0, 20.0, 40.0]), **values,
        'score': np.array([0.5, 0.3]), 'score_slope': np.array([2.0, 0.0]), **changes,
    })  # fmt: skip


def test_an_oriented_covariance_has_the_given_spreads_along_and_across_the_direction() -> None:
    angles = np.array([0.0, 0.7, np.pi / 2, -2.5])
    along, across = np.array([3.0, 2.0, 2.0, 1.0]), np.array([1.0, 0.5, 1.0, 4.0])
    found = oriented_covariance(angles, along, across)
    for covariance, angle, first, second in zip(found, angles, along, across, strict=True):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        np.testing.assert_allclose(covariance, turn @ np.diag((first**2, second**2)) @ turn.T)


@pytest.mark.parametrize(
    ('center', 'variances'),
    [
        ((20.0, 0, 1), (1.0**2, 0.4**2, 0.27**2)),
        ((0.0, -40, 1), (0.6**2, 1.7**2, 0.39**2)),
        ((0.0, 0, 1), (0.335**2, 0.21**2, 0.156**2)),  # a distance below 1 m counts as 1 m
    ],
)
def test_the_default_covariance_grows_with_the_distance(center, variances) -> None:
    found = default_covariance(detections([center]))
    np.testing.assert_allclose(found.pose[0], np.diag((*variances, 0.3**2)), atol=1e-12)
    np.testing.assert_allclose(found.velocity[0], np.diag((1.5**2, 1.5**2)))
    found.velocity[0] = 0  # this change of the result must not affect the next call
    assert default_covariance(detections([center])).velocity.any()


def test_an_index_selects_the_pose_and_the_velocity_covariance_of_the_same_boxes() -> None:
    pose, velocity = np.arange(48.0).reshape(3, 4, 4), np.arange(12.0).reshape(3, 2, 2)
    found = BoxCovariance(pose, velocity)[np.array([True, False, True])]
    assert np.array_equal(found.pose, pose[[0, 2]])
    assert np.array_equal(found.velocity, velocity[[0, 2]])


def test_a_box_has_the_spread_of_its_class_at_the_nearest_range() -> None:
    distances = (3.0, 14.9, 15.1, 29.9, 30.1, 99.0)
    centers = [(0.6 * distance, -0.8 * distance, 7.0) for distance in distances]
    for label in (0, 1):
        found = detections(centers, np.full(6, (0.5, 0.3)[label]), np.full(6, label))
        along = model().spreads(found)['along']
        assert along.tolist() == [3 * label + value for value in (1, 1, 2, 2, 3, 3)]


def test_the_spread_decreases_with_the_score_by_the_slope_of_the_class() -> None:
    found = detections([(5.0, 0, 0)] * 4, np.array([0.5, 0.9, 0.1, 0.9]), np.array([0, 0, 0, 1]))
    expected = [1.0, np.exp(-0.8), np.exp(0.8), 4.0]
    np.testing.assert_allclose(model().spreads(found)['along'], expected, rtol=1e-6)


def test_the_fitted_covariance_contains_the_squared_spreads() -> None:
    found = model().covariance(detections([(0.0, 12.0, 5.0)]))
    along, across, height, yaw, velocity = (1.0 + 10 * place for place in range(5))
    expected = np.diag((across**2, along**2, height**2, yaw**2))
    np.testing.assert_allclose(found.pose[0], expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.velocity[0], np.eye(2) * velocity**2, rtol=1e-6)


def test_a_model_read_from_metadata_equals_the_written_model() -> None:
    metadata = model().to_metadata()
    found = UncertaintyModel.from_metadata({**metadata, 'other': 'x'}, CLASSES)
    assert found.class_names == CLASSES
    for name in ('ranges', *SPREADS, 'score', 'score_slope'):
        assert np.array_equal(getattr(found, name), getattr(model(), name))
    assert UncertaintyModel.from_metadata({'other': 'x'}, CLASSES) is None


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ({'ranges': np.array([10.0, 10.0, 40.0])}, 'the values of ranges must increase'),
        ({'ranges': np.array([])}, 'the values of ranges must increase'),
        ({'along': np.zeros((2, 3))}, 'along must be positive'),
        ({'yaw': np.full((2, 3), np.nan)}, 'yaw must be positive'),
        ({'velocity': np.ones((2, 2))}, r'velocity must .* shape \(2, 3\)'),
        ({'score': np.array([0.5, np.nan])}, 'score must be finite'),
        ({'score_slope': np.zeros(3)}, r'score_slope must .* shape \(2,\)'),
    ],
)
def test_the_message_about_an_invalid_model_names_the_field(change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        dataclasses.replace(model(), **change)


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"class_names": 3}', '{"class_names": []}'])
def test_a_damaged_uncertainty_model_in_a_checkpoint_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match='the uncertainty model of the checkpoint is damaged'):
        UncertaintyModel.from_metadata({METADATA_KEY: text}, CLASSES)


def test_a_model_that_was_fitted_for_other_classes_or_has_unknown_fields_is_rejected() -> None:
    metadata = model().to_metadata()
    with pytest.raises(ValueError, match='was fitted for other classes: fit the'):
        UncertaintyModel.from_metadata(metadata, CLASSES[::-1])
    more = json.dumps({**json.loads(metadata[METADATA_KEY]), 'more': [1]})
    with pytest.raises(ValueError, match='is damaged'):
        UncertaintyModel.from_metadata({METADATA_KEY: more}, CLASSES)
