"""Tests how published results are matched with key frames."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S
from bevdepth_core.synthetic.sensors.schedule import CAMERA_TURNS, TURN_S
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.bags.recorded_transforms import read_transforms
from bevdepth_ros.bags.writer import BagWriter
from bevdepth_ros.closed_loop.results import (
    LATE_NS,
    mean_exposure_ns,
    read_image_sets,
    scene_results,
)
from bevdepth_ros.closed_loop.run import ClosedLoopError, PublishedResults
from bevdepth_ros.detections.messages import objects_cloud
from tests.ros.closed_loop.key_frames import (
    KEY_FRAMES,
    gap_bag,
    index,
    key_frames_root,
)
from tests.ros.detections.message_objects import built_array, detection_array

__all__ = ['gap_bag', 'index', 'key_frames_root']


def test_image_sets_in_a_bag_are_found_if_they_are_50_or_100_ms_apart(
    tmp_path: Path,
) -> None:
    turns_s = [round_s + TURN_S * turn for round_s in (0.0, 0.5) for turn in CAMERA_TURNS]
    taken_ns = (
        np.array(
            [
                [round((turn_s + offset_s) * 1e9) for offset_s in EXPOSURE_OFFSET_S.values()]
                for turn_s in turns_s
            ]
        )
        + 10**18
    )
    with BagWriter(tmp_path / 'bag') as bag:
        for stamps_ns in taken_ns:
            for camera, stamp_ns in zip(EXPOSURE_OFFSET_S, stamps_ns.tolist(), strict=True):
                bag.write_camera_info(camera, stamp_ns, np.eye(3), 16, 9)
    sets = read_image_sets(tmp_path / 'bag')
    assert [image_set.last_ns for image_set in sets] == taken_ns.max(axis=1).tolist()
    np.testing.assert_allclose(
        [image_set.mean_ns - 10**18 for image_set in sets],
        (taken_ns - 10**18).mean(axis=1),
        atol=2,
    )


def result(stamp_ns: int) -> Detections3D:
    """Return a result with one car in front of the vehicle."""
    boxes = Boxes3D([[10.0, 1.0, 0.5]], [[4.0, 2.0, 1.5]], [0.3], [[1.0, 0.0]])
    return Detections3D(boxes, [0.5], [0], NUSCENES_CLASSES, stamp_ns, stamp_ns - 1)


def results_at(stamps_ns: list[int]) -> PublishedResults:
    """Return results that were published without delay."""
    found = PublishedResults(class_names=NUSCENES_CLASSES)
    for stamp in stamps_ns:
        found.detections[stamp] = detection_array(result(stamp), 'base_link')
        found.objects[stamp] = objects_cloud(result(stamp), 'base_link')
        found.arrival_ns[stamp] = stamp
    return found


def test_results_are_matched_by_stamp_and_transformed_with_the_ego_pose_of_that_stamp(
    gap_bag: Path, index: SampleIndex
) -> None:
    records = [index[position] for position in range(KEY_FRAMES, KEY_FRAMES + 3)]
    stamps = [mean_exposure_ns(record) for record in records]
    off_by_ns = 15_000_000
    found = results_at([stamps[0] + off_by_ns, stamps[2], stamps[2] + 3 * off_by_ns])
    found.arrival_ns[stamps[2]] += LATE_NS + 1
    transforms = read_transforms(gap_bag)
    results = scene_results(records, found, transforms)
    tokens = [record.token for record in records]
    assert (results.missed, results.late, results.unfused) == ((tokens[1],), (tokens[2],), ())
    for token, stamp in ((tokens[0], stamps[0] + off_by_ns), (tokens[2], stamps[2])):
        expected = transforms.lookup_at('map', 'base_link', stamp) @ (10.0, 1.0, 0.5, 1.0)
        np.testing.assert_allclose(
            results.entries[token][0]['translation'], expected[:3], atol=1e-4
        )
        assert results.entries[token][0]['attribute_name'] == 'vehicle.moving'


def test_tracks_of_a_key_frame_become_entries_with_their_ids(
    gap_bag: Path, index: SampleIndex
) -> None:
    records = [index[position] for position in range(KEY_FRAMES, KEY_FRAMES + 2)]
    stamps = [mean_exposure_ns(record) for record in records]
    found = results_at(stamps)
    found.tracks[stamps[1]] = built_array(result(stamps[1]), 'base_link', [12])
    transforms = read_transforms(gap_bag)
    results = scene_results(records, found, transforms)
    assert results.tracks[records[0].token] == []
    (entry,) = results.tracks[records[1].token]
    assert (entry['tracking_id'], entry['tracking_name']) == ('12', 'car')
    assert entry['tracking_score'] == pytest.approx(0.5)
    expected = transforms.lookup_at('map', 'base_link', stamps[1]) @ (10.0, 1.0, 0.5, 1.0)
    np.testing.assert_allclose(entry['translation'], expected[:3], atol=1e-4)


def test_an_error_is_raised_if_the_topics_detections_and_objects_have_different_boxes(
    gap_bag: Path, index: SampleIndex
) -> None:
    stamp = mean_exposure_ns(index[KEY_FRAMES])
    found = results_at([stamp])
    other = replace(result(stamp), labels=np.array([1]))
    found.detections[stamp] = detection_array(other, 'base_link')
    with pytest.raises(ClosedLoopError, match='do not contain the same boxes'):
        scene_results([index[KEY_FRAMES]], found, read_transforms(gap_bag))
