"""Candidate pairs of tracks and detections, matching, and duplicates."""

from __future__ import annotations

import numpy as np

from bevdepth_core.tracking.association import match_greedily, pairs_within, without_duplicates


def test_all_pairs_of_one_class_within_the_radius_are_returned():
    rng = np.random.default_rng(1)
    offset = np.array((4.2e5, 5.1e6))  # as far from the origin as UTM coordinates
    tracks, detections = (rng.uniform(-20, 20, (size, 2)) + offset for size in (40, 60))
    own, other = rng.integers(0, 3, 40), rng.integers(0, 3, 60)
    radius = rng.uniform(1, 9, 40)
    distance = np.linalg.norm(tracks[:, None] - detections, axis=2)
    expected = np.nonzero((distance <= radius[:, None]) & (own[:, None] == other))
    found = pairs_within(tracks.T, own, detections.T, other, radius)
    assert set(zip(*map(np.ndarray.tolist, found), strict=True)) == set(
        zip(*map(np.ndarray.tolist, expected), strict=True)
    )
    assert len(found[0]) == len(expected[0]) > 20


def test_without_tracks_or_detections_there_are_no_pairs():
    nothing, labels = np.empty((2, 0)), np.empty(0, np.int64)
    one, label = np.zeros((2, 1)), np.zeros(1, np.int64)
    assert len(pairs_within(nothing, labels, one, label, np.empty(0))[0]) == 0
    assert len(pairs_within(one, label, nothing, labels, np.ones(1))[0]) == 0


def test_pairs_are_matched_in_the_order_of_their_costs():
    track, detection = np.array((0, 0, 1, 1, 2)), np.array((0, 1, 0, 1, 7))
    matched = match_greedily(track, detection, np.array((3.0, 4.0, 1.0, 2.0, 99.0)))
    assert set(zip(*map(np.ndarray.tolist, matched), strict=True)) == {(2, 7), (1, 0), (0, 1)}


def test_a_track_is_unmatched_if_its_only_candidate_is_matched_to_another_track():
    matched = match_greedily(np.array((0, 1)), np.array((0, 0)), np.array((2.0, 1.0)))
    assert [column.tolist() for column in matched] == [[1], [0]]


def test_of_two_pairs_with_equal_costs_the_first_pair_is_matched():
    matched = match_greedily(np.array((0, 1)), np.array((0, 0)), np.array((1.0, 1.0)))
    assert [column.tolist() for column in matched] == [[0], [0]]


def test_a_detection_is_dropped_only_if_it_is_near_a_kept_or_matched_detection():
    positions = np.array(((0.0, 0.9, 1.8, 9.0), (0, 0, 0, 0)))
    keep = without_duplicates(
        positions, np.zeros(4, int), np.ones(4), np.array(((9.5,), (0.0,))), np.zeros(1, int)
    )
    assert keep.tolist() == [True, False, True, False]


def test_detections_of_different_classes_are_not_duplicates():
    positions = np.zeros((2, 2))
    keep = without_duplicates(
        positions, np.array((0, 1)), np.ones(2), np.empty((2, 0)), np.empty(0, int)
    )
    assert keep.all()
