"""Tests the interpolation of annotated boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bevdepth_core.types import Boxes3D
from bevdepth_ros.rendering.annotations import Annotation, AnnotationHistory, transformed

HALF_SECOND_NS = 500_000_000


def annotation(half_seconds: int, objects: dict[str, tuple[float, float]]) -> Annotation:
    """Return an annotation; ``objects`` maps ids to (x, yaw) in the world, meters and radians."""
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


def test_pose_and_velocity_of_an_object_are_interpolated_between_two_annotations() -> None:
    known = history(annotation(1, {'car': (3.0, -3.1)}), annotation(0, {'car': (1.0, 3.1)}))
    boxes, labels = known.at(HALF_SECOND_NS // 4, np.eye(4))
    np.testing.assert_allclose(boxes.center, [(1.5, 0, 1)])
    np.testing.assert_allclose(boxes.velocity, [(4, 0)])
    np.testing.assert_allclose(np.cos(boxes.yaw), np.cos(3.1 + (2 * np.pi - 6.2) / 4), atol=1e-5)
    assert labels.tolist() == [0]


def test_an_object_is_extrapolated_by_250_ms_but_not_by_1_5_s() -> None:
    known = history(annotation(0, {'car': (1.0, 0)}), annotation(1, {'car': (2.0, 0)}))
    boxes, _ = known.at(round(1.5 * HALF_SECOND_NS), np.eye(4))
    np.testing.assert_allclose(boxes.center, [(2.5, 0, 1)])
    assert known.at(4 * HALF_SECOND_NS, np.eye(4)) is None


def test_an_object_without_an_id_is_shown_only_near_the_time_of_its_annotation() -> None:
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


MS = 1_000_000


def at_x(known: AnnotationHistory, stamp_ns: int) -> list[float] | None:
    """Return x of the center of each box at ``stamp_ns``; None if there are no boxes."""
    found = known.at(stamp_ns, np.eye(4))
    return None if found is None else found[0].center[:, 0].tolist()


@pytest.mark.parametrize(('gap_ms', 'x'), [(1100, [1.25]), (1101, None)])
def test_annotations_more_than_1_1_s_apart_are_not_interpolated(gap_ms: int, x) -> None:
    known = AnnotationHistory(10)
    for stamp_ns, place in ((0, 1.0), (gap_ms * MS, 2.0)):
        known.add(replace(annotation(0, {'car': (place, 0)}), stamp_ns=stamp_ns))
    assert at_x(known, gap_ms * MS // 4) == (None if x is None else pytest.approx(x))
    assert at_x(known, 60 * MS)[0] == pytest.approx(1.0, abs=0.06)
    assert at_x(known, gap_ms * MS)[0] == 2.0


@pytest.mark.parametrize(('after_ms', 'is_shown'), [(550, True), (551, False)])
def test_more_than_550_ms_from_all_annotations_no_boxes_are_shown(
    after_ms: int, is_shown: bool
) -> None:
    known = history(annotation(0, {'car': (1.0, 0)}), annotation(1, {'car': (2.0, 0)}))
    assert (at_x(known, HALF_SECOND_NS + after_ms * MS) is not None) == is_shown
    assert (at_x(known, -after_ms * MS) is not None) == is_shown


@pytest.mark.parametrize(('after_ms', 'x'), [(60, [2.24, 5.0]), (61, [2.244])])
def test_an_object_with_one_annotation_is_shown_for_60_ms_and_other_objects_are_extrapolated(
    after_ms, x
):
    known = history(
        annotation(0, {'car': (0.0, 0)}), annotation(1, {'car': (2.0, 0), 'new': (5.0, 0)})
    )
    found, labels = known.at(HALF_SECOND_NS + after_ms * MS, np.eye(4))
    np.testing.assert_allclose(found.center[:, 0], x, rtol=1e-6)
    assert len(labels) == len(x)
    assert found.velocity[0].tolist() == pytest.approx([4, 0])


def test_a_history_stores_the_newest_annotations_and_only_one_annotation_per_stamp() -> None:
    known = AnnotationHistory(2)
    for number in (0, 2, 1, 2):
        known.add(annotation(number, {'car': (float(number), 0)}))
    assert len(known) == 2
    assert at_x(known, 2 * HALF_SECOND_NS) == [2.0]
    known.add(annotation(2, {'car': (9.0, 0)}))
    assert (len(known), at_x(known, 2 * HALF_SECOND_NS)) == (2, [9.0])


def test_an_object_is_extrapolated_backward_before_the_first_annotation() -> None:
    known = history(annotation(0, {'car': (1.0, 0)}), annotation(1, {'car': (2.0, 0)}))
    assert at_x(known, -HALF_SECOND_NS // 2) == [0.5]
    later = history(*(annotation(n, {'car': (float(n), 0)}) for n in range(4)))
    assert at_x(later, 5 * HALF_SECOND_NS // 2) == [2.5]


def test_a_transform_rotates_and_moves_boxes_and_keeps_their_size() -> None:
    turn = np.array(((0.0, -1, 0, 5), (1, 0, 0, 6), (0, 0, 1, 7), (0, 0, 0, 1)))
    box = Boxes3D([[1.0, 2, 3]], [[4.0, 2, 1]], [0.25], [[3.0, 1]])
    found = transformed(box, turn)
    np.testing.assert_allclose(found.center, [(3, 7, 10)])
    np.testing.assert_allclose(found.velocity, [(-1, 3)])
    np.testing.assert_allclose(found.yaw, 0.25 + np.pi / 2)
    assert np.array_equal(found.size, box.size)
