"""Class-balanced sampling (CBGS)."""

from __future__ import annotations

import numpy as np

from bevdepth_core.nuscenes.sampling import class_balanced_positions
from tests.reference import golden

FRAMES = [
    np.array([j for j in range(10) if (7 * i + 3 * j) % (j + 2) == 0 or i == j]) for i in range(60)
]
"""Classes of each frame. The golden file has the positions that the official code samples from
these frames."""


def test_class_balanced_sampling_equals_the_official_code():
    assert (
        class_balanced_positions(FRAMES, 10).tolist() == golden('pipeline')[0]['cbgs']['indices']
    )


def test_a_rare_class_is_sampled_about_as_often_as_a_frequent_class():
    labels = [np.array([0])] * 990 + [np.array([5])] * 10
    rare = sum(position >= 990 for position in class_balanced_positions(labels, 10))
    assert rare in (99, 100)


def test_classes_without_any_frame_are_ignored():
    assert set(class_balanced_positions([np.array([2]), np.array([], np.int64)] * 20, 10)) <= set(
        range(0, 40, 2)
    )


def test_frames_without_any_box_give_an_empty_sample_list():
    assert len(class_balanced_positions([np.array([], np.int64)] * 3, 10)) == 0


def test_all_classes_have_equal_shares_of_the_sample_list():
    labels = [np.array([0])] * 12 + [np.array([1])] * 4 + [np.array([0, 1])] * 4
    positions = class_balanced_positions(labels, 2)
    assert len(positions) == 24
    assert (positions[:12] != np.clip(positions[:12], 12, 15)).all()
    assert (positions[12:] >= 12).all()


def test_a_class_without_frames_does_not_enlarge_the_share_of_other_classes():
    labels = [np.array([0])] * 20 + [np.array([1])] * 20 + [np.array([3])] * 20
    positions = class_balanced_positions(labels, 4)
    assert np.bincount(positions // 20).tolist() == [15, 15, 15]


def test_different_seeds_select_different_samples():
    labels = [np.array([0])] * 50
    first, again, other = (class_balanced_positions(labels, 1, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
