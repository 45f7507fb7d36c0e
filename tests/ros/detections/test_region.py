from __future__ import annotations

import numpy as np
import pytest

from bevdepth_ros.detections.region import EXAMPLE, MAX_CORNERS, inside, parse_region

SQUARE = np.array([(0.0, 0), (10, 0), (10, 10), (0, 10)])
NOTCHED = np.array([(0.0, 0), (10, 0), (10, 10), (5, 5), (0, 10)])


@pytest.mark.parametrize('corners', [SQUARE, SQUARE[::-1], np.roll(SQUARE, 1, axis=0)])
def test_the_result_does_not_depend_on_the_direction_and_the_first_corner_of_the_polygon(
    corners: np.ndarray,
) -> None:
    points = np.array([(5.0, 5), (0.1, 9.9), (-0.1, 5), (10.1, 5), (5, -0.1), (5, 10.1)])
    assert inside(points, corners).tolist() == [True, True, False, False, False, False]


def test_a_point_in_the_notch_of_a_concave_region_is_outside() -> None:
    points = np.array([(5.0, 4.5), (5, 5.5), (1, 8.5), (9, 8.5), (2, 9)])
    assert inside(points, NOTCHED).tolist() == [True, False, True, True, False]


def test_points_with_the_same_y_as_a_corner_are_classified_correctly() -> None:
    diamond = np.array([(0.0, -5), (5, 0), (0, 5), (-5, 0)])
    assert inside(np.array([(0.0, 0), (-6, 0), (6, 0)]), diamond).tolist() == [True, False, False]


def test_a_polygon_is_read_from_text_and_an_empty_text_means_no_region() -> None:
    assert parse_region(EXAMPLE).tolist() == [[-10, -20], [60, -20], [60, 20], [-10, 20]]
    assert parse_region('') is None
    assert parse_region(' ') is None
    assert len(parse_region('[[0, 0], [1, 0], [0, 1]]')) == 3


@pytest.mark.parametrize(
    ('text', 'words'),
    [
        ('front', r'must be a list of corners \[x, y\] in meters, such as '),
        ('[[0, 0], [1, 0, 2], [1, 1]]', 'must be a list of corners'),
        ('[0, 1, 2]', 'must be a list of corners'),
        ('{"x": 1}', 'must be a list of corners'),
        ('[[0, 0], [1, 0], [1, 1e999]]', 'must have finite coordinates'),
        ('[[0, 0], [1, 0], [1, NaN]]', 'must have finite coordinates'),
        ('[[0, 0], [1, 0]]', f'must have 3 to {MAX_CORNERS} corners'),
        (str([[i, i * i] for i in range(MAX_CORNERS + 1)]), 'must have 3 to 100 corners'),
        ('[[0, 0], [1, 1], [2, 2]]', 'must have an area'),
        ('[[1, 2], [2, 3], [3, 4]]', 'must have an area'),
        ('[[0, 0], [10, 10], [10, 0], [0, 10]]', 'must not cross itself: list the corners in'),
        (f'[[0, 0], [1, 0], [1, {10**400}]]', 'must be'),
    ],
)
def test_an_invalid_polygon_is_rejected_with_the_reason(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=f'region_of_interest {words}'):
        parse_region(text)
