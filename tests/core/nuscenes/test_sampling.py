from __future__ import annotations

import numpy as np

from bevdepth_core.nuscenes.sampling import class_balanced_positions
from tests.reference import golden

FRAMES = [
    np.array([j for j in range(10) if (7 * i + 3 * j) % (j + 2) == 0 or i == j]) for i in range(60)
]
"""The made frames of the official draw."""


def test_the_draw_equals_the_official_one():
    assert class_balanced_positions(FRAMES).tolist() == golden('pipeline')[0]['cbgs']['indices']


def test_a_rare_class_is_shown_about_as_often_as_a_frequent_one():
    labels = [np.array([0])] * 990 + [np.array([5])] * 10
    rare = sum(position >= 990 for position in class_balanced_positions(labels))
    assert rare in (99, 100)


def test_classes_that_no_frame_holds_are_left_out():
    assert set(class_balanced_positions([np.array([2]), np.array([], np.int64)] * 20)) <= set(
        range(0, 40, 2)
    )


def test_frames_without_any_box_give_an_empty_draw():
    assert len(class_balanced_positions([np.array([], np.int64)] * 3)) == 0
