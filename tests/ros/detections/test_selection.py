"""Tests the filters of published detections and tracks."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.types import Detections3D
from bevdepth_ros.detections.selection import (
    Selection,
    class_thresholds,
    parse_classes,
    parse_name_map,
    parse_thresholds,
)
from tests.ros.detections.objects import CLASSES, detections, tracks

ALL = np.zeros(3)
REGION = np.array([(0.0, -10), (40, -10), (40, 2), (0, 2)])


def selection(**changes) -> Selection:
    return Selection(**{'names': CLASSES, 'thresholds': ALL, **changes})


def kept(chosen: Selection, found: Detections3D | None = None) -> list[int]:
    return np.nonzero(chosen.keeps(detections() if found is None else found))[0].tolist()


@pytest.mark.parametrize(
    ('changes', 'expected'),
    [
        ({}, [0, 1, 2]),
        ({'thresholds': np.array((0.9, 0.49, 0.1), np.float32)}, [1, 2]),
        ({'thresholds': np.array((0.0, np.inf, 0.0))}, [0, 2]),
        ({'max_range_m': 10.7}, [2]),
        ({'max_range_m': 10.8}, [0, 2]),
        ({'region': REGION}, [0]),
    ],
)
def test_each_filter_keeps_only_matching_detections(changes: dict, expected: list[int]) -> None:
    assert kept(selection(**changes)) == expected
    rows = tracks((5, 6, 7), (0, 1, 2))
    assert np.nonzero(selection(**changes).keeps(rows))[0].tolist() == expected


def test_chosen_detections_have_their_published_names_and_label_numbers() -> None:
    chosen = selection(names=('CAR', 'person', 'hovercraft'), max_range_m=10.8)
    found = detections()
    result = chosen.detections(found, chosen.keeps(found))
    assert result.class_names == ('CAR', 'person', 'hovercraft')
    assert result.labels.tolist() == [0, 2]
    assert result.scores.tolist() == found.scores[[0, 2]].tolist()
    assert result.stamp_ns == found.stamp_ns
    assert result.past_stamp_ns == found.past_stamp_ns


def test_tracks_refer_to_the_published_detections() -> None:
    chosen = selection(names=('CAR', 'person', 'hovercraft'))
    found = tracks((5, 6, 7, 8), (2, 0, -1, 1))
    result = chosen.tracks(found, np.array((False, True, True)))
    assert result.ids.tolist() == [5, 6, 7, 8]
    assert result.detections.tolist() == [1, -1, -1, 0]
    assert result.detection_ids(2).tolist() == [8, 5]
    assert result.class_names == chosen.names


def test_tracks_are_filtered_like_detections_and_also_by_their_age() -> None:
    found = tracks((5, 6, 7), (0, 1, 2), age_s=(0.4, 0.5, 0.6))
    everything = np.ones(3, bool)
    assert selection(min_age_s=0.5).tracks(found, everything).ids.tolist() == [6, 7]
    chosen = selection(min_age_s=0.5, max_range_m=10.8)
    result = chosen.tracks(found, everything)
    assert result.ids.tolist() == [7]
    assert result.boxes.center[0].tolist() == found.boxes.center[2].tolist()
    assert result.pose_covariance.shape == (1, 4, 4)


def test_a_chosen_class_has_its_own_or_the_common_threshold_and_other_classes_are_excluded() -> (
    None
):
    class_values = {'pedestrian': 0.05}
    assert class_thresholds(CLASSES, 0.3, class_values, ()).tolist() == [0.3, 0.05, 0.3]
    assert class_thresholds(CLASSES, 0.3, class_values, ('pedestrian',)).tolist() == [
        np.inf,
        0.05,
        np.inf,
    ]


def test_entries_are_parsed_and_a_list_with_one_empty_entry_counts_as_an_empty_list() -> None:
    assert parse_thresholds(['car=0', ' pedestrian = 1.0 '], CLASSES) == {
        'car': 0.0,
        'pedestrian': 1.0,
    }
    assert parse_name_map(['car=CAR=1'], CLASSES) == {'car': 'CAR=1'}
    assert parse_classes(['car', ' pedestrian'], CLASSES) == ('car', 'pedestrian')
    for parse in (parse_thresholds, parse_name_map, parse_classes):
        assert not parse([''], CLASSES)
        assert not parse([], CLASSES)


@pytest.mark.parametrize(
    ('parse', 'entries', 'words'),
    [
        (
            parse_thresholds,
            ['Pedestrain=0.2'],
            "class_score_thresholds: the detector has no class 'Pedestrain', only car, "
            'pedestrian, hovercraft; did you mean pedestrian',
        ),
        (parse_thresholds, ['car'], "write an entry like pedestrian=0.2, got 'car'"),
        (parse_thresholds, ['car=high'], "the threshold of car must lie in 0 to 1, got 'high'"),
        (parse_thresholds, ['car=1.01'], 'the threshold of car must lie in 0 to 1'),
        (parse_thresholds, ['car=-0.1'], 'the threshold of car must lie in 0 to 1'),
        (parse_thresholds, ['car=nan'], 'the threshold of car must lie in 0 to 1'),
        (parse_thresholds, ['car=0.1', 'car=0.2'], 'class car occurs twice'),
        (parse_thresholds, ['', 'car=0.2'], 'write an entry like'),
        (parse_name_map, ['car='], 'class_name_map: write an entry like car=CAR'),
        (parse_name_map, ['=CAR'], 'class_name_map: write an entry like car=CAR'),
        (parse_name_map, ['bus=BUS'], "class_name_map: the detector has no class 'bus'"),
        (parse_classes, ['bike'], "classes: the detector has no class 'bike'"),
    ],
)
def test_an_invalid_entry_is_rejected_with_the_remedy(parse, entries, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse(entries, CLASSES)


def test_class_names_are_not_checked_before_the_classes_of_the_detector_are_known() -> None:
    assert parse_classes(['bike']) == ('bike',)
