"""Tests the interpolation of annotated boxes."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.types import Boxes3D
from bevdepth_ros.rendering.annotations import Annotation, AnnotationHistory

HALF_SECOND_NS = 500_000_000


def annotation(half_seconds: int, objects: dict[str, tuple[float, float]]) -> Annotation:
    """Return objects by id at (x, yaw) in the world."""
    count = len(objects)
    center = np.array([(x, 0, 1) for x, _ in objects.values()], float).reshape(count, 3)
    yaw = np.array([yaw for _, yaw in objects.values()])
    boxes = Boxes3D(center, np.tile((4.0, 2.0, 1.5), (count, 1)), yaw, np.zeros((count, 2)))
    return Annotation(half_seconds * HALF_SECOND_NS, boxes, np.zeros(count, int), tuple(objects))


def history(*annotations: Annotation) -> AnnotationHistory:
    result = AnnotationHistory(10)
    for each in annotations:
        result.add(each)
    return result


def test_an_object_is_interpolated_between_two_annotations_with_its_velocity() -> None:
    known = history(annotation(1, {'car': (3.0, -3.1)}), annotation(0, {'car': (1.0, 3.1)}))
    boxes, labels = known.at(HALF_SECOND_NS // 4, np.eye(4))
    np.testing.assert_allclose(boxes.center, [(1.5, 0, 1)])
    np.testing.assert_allclose(boxes.velocity, [(4, 0)])
    np.testing.assert_allclose(np.cos(boxes.yaw), np.cos(3.1 + (2 * np.pi - 6.2) / 4), atol=1e-5)
    assert labels.tolist() == [0]


def test_an_object_is_extrapolated_for_at_most_half_an_annotation_period() -> None:
    known = history(annotation(0, {'car': (1.0, 0)}), annotation(1, {'car': (2.0, 0)}))
    boxes, _ = known.at(round(1.5 * HALF_SECOND_NS), np.eye(4))
    np.testing.assert_allclose(boxes.center, [(2.5, 0, 1)])
    assert known.at(4 * HALF_SECOND_NS, np.eye(4)) is None


def test_an_object_without_an_id_is_shown_with_its_own_annotation_only() -> None:
    known = history(annotation(0, {'': (1.0, 0)}), annotation(1, {'': (2.0, 0)}))
    assert known.at(HALF_SECOND_NS // 2, np.eye(4)) is None
    boxes, _ = known.at(HALF_SECOND_NS + 20_000_000, np.eye(4))
    np.testing.assert_allclose(boxes.center, [(2, 0, 1)])


def test_boxes_are_returned_in_the_frame_of_the_vehicle() -> None:
    world_from_ego = np.array(((0.0, -1, 0, 1), (1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)))
    boxes, _ = history(annotation(0, {'car': (3.0, 0)})).at(0, world_from_ego)
    np.testing.assert_allclose(boxes.center, [(0, -2, 1)], atol=1e-6)
    assert boxes.yaw[0] == pytest.approx(-np.pi / 2)


def test_no_boxes_are_returned_without_annotations() -> None:
    assert history().at(0, np.eye(4)) is None
