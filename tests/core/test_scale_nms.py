"""Scale NMS drops a box if its scaled footprint overlaps too much with the scaled footprint of a
kept box."""

import numpy as np
import pytest

from bevdepth_core.scale_nms import overlap, scale_nms
from bevdepth_core.types import Boxes3D

SQUARE = np.array([(1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)])


def boxes(*rows: tuple[float, float, float, float, float]) -> Boxes3D:
    """Return one box per row (x, y, length, width, yaw)."""
    x, y, length, width, yaw = np.array(rows).T
    zeros, count = np.zeros(len(rows)), len(rows)
    return Boxes3D(
        np.stack((x, y, zeros), axis=1),
        np.stack((length, width, zeros + 1), axis=1),
        yaw,
        np.zeros((count, 2)),
    )


@pytest.mark.parametrize(
    ('shift', 'expected'),
    [
        ((0.0, 0.0), 1.0),
        ((1.0, 0.0), 2 / 6),
        ((0.0, -1.0), 2 / 6),
        ((1.0, 1.0), 1 / 7),
        ((2.0, 0.0), 0.0),
        ((5.0, 0.0), 0.0),
    ],
)
def test_the_overlap_of_shifted_squares_is_correct(shift, expected):
    assert overlap(SQUARE, SQUARE + shift) == pytest.approx(expected)
    assert overlap(SQUARE + shift, SQUARE) == pytest.approx(expected)


def test_the_intersection_of_a_square_and_a_square_turned_by_45_degrees_is_a_regular_octagon():
    turn = np.array([(1.0, -1.0), (1.0, 1.0)]) / np.sqrt(2)
    octagon = 8 * (np.sqrt(2) - 1)
    assert overlap(SQUARE, SQUARE @ turn.T) == pytest.approx(octagon / (8 - octagon))


def test_the_overlap_of_a_square_and_a_contained_square_is_the_ratio_of_their_areas():
    assert overlap(SQUARE, SQUARE / 2) == pytest.approx(0.25)
    assert overlap(SQUARE / 2, SQUARE) == pytest.approx(0.25)


def test_the_better_box_is_kept_and_a_dropped_box_suppresses_no_other_box():
    line = boxes(*((x, 0.0, 4.0, 2.0, 0.0) for x in (0.0, 2.0, 4.0, 9.0)))
    # The first three boxes are 2 m apart; the overlap of two neighbors is 1/3.
    assert scale_nms(line, np.ones(4), 0.2).tolist() == [0, 2, 3]
    assert scale_nms(line, np.ones(4), 0.34).tolist() == [0, 1, 2, 3]


def test_a_box_whose_overlap_equals_the_limit_is_kept():
    pair = boxes((0.0, 0.0, 1.0, 1.0, 0.0), (0.0, 0.0, 2.0, 2.0, 0.0))
    assert scale_nms(pair, np.ones(2), 0.25).tolist() == [0, 1]
    assert scale_nms(pair, np.ones(2), 0.249).tolist() == [0]


def test_the_factors_scale_the_footprints():
    pair = boxes((0.0, 0.0, 1.0, 1.0, 0.0), (1.5, 0.0, 1.0, 1.0, 0.0))
    assert scale_nms(pair, np.array([1.0, 1.0]), 0.1).tolist() == [0, 1]
    assert scale_nms(pair, np.array([2.0, 2.0]), 0.1).tolist() == [0]  # the overlap is 1/7
    assert scale_nms(pair, np.array([2.0, 2.0]), 0.15).tolist() == [0, 1]
    assert scale_nms(pair, np.array([4.0, 1.0]), 0.05).tolist() == [0]
    near = boxes((0.0, 0.0, 4.0, 4.0, 0.0), (3.0, 0.0, 4.0, 4.0, 0.0))
    assert scale_nms(near, np.array([0.5, 0.5]), 0.0).tolist() == [0, 1]


def test_the_length_of_a_footprint_is_along_its_yaw():
    along = boxes((0.0, 0.0, 6.0, 1.0, np.pi / 2), (0.0, 2.5, 1.0, 1.0, 0.3))
    across = boxes((0.0, 0.0, 6.0, 1.0, 0.0), (0.0, 2.5, 1.0, 1.0, 0.3))
    assert scale_nms(along, np.ones(2), 0.1).tolist() == [0]
    assert scale_nms(across, np.ones(2), 0.1).tolist() == [0, 1]
    turned = boxes((0.0, 0.0, 8.0, 0.5, np.pi / 4), (2.0, 2.0, 1.0, 1.0, 0.0))
    mirrored = boxes((0.0, 0.0, 8.0, 0.5, -np.pi / 4), (2.0, 2.0, 1.0, 1.0, 0.0))
    assert scale_nms(turned, np.ones(2), 0.05).tolist() == [0]
    assert scale_nms(mirrored, np.ones(2), 0.05).tolist() == [0, 1]


def test_an_input_without_boxes_gives_no_boxes():
    empty = Boxes3D(np.zeros((0, 3)), np.zeros((0, 3)), np.zeros(0), np.zeros((0, 2)))
    assert scale_nms(empty, np.zeros(0), 0.2).tolist() == []
