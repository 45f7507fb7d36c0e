"""Scores the launched node with the command line tool, and tests how results are matched."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.recording import read_recording
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.synthetic.dataset.capture import Sensors
from bevdepth_core.synthetic.dataset.writing import VERSION, DatasetPlan, write_dataset
from bevdepth_core.synthetic.sensors.rig import EXPOSURE_OFFSET_S
from bevdepth_core.synthetic.sensors.schedule import CAMERA_TURNS, TURN_S
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.bags.recorded_transforms import read_transforms
from bevdepth_ros.bags.scene_bag import Target, write_bag
from bevdepth_ros.bags.writer import BagWriter
from bevdepth_ros.closed_loop.evaluate_node import cameras_only
from bevdepth_ros.closed_loop.results import (
    LATE_NS,
    mean_exposure_ns,
    read_image_sets,
    scene_results,
)
from bevdepth_ros.closed_loop.run import ClosedLoopError, PublishedResults
from bevdepth_ros.detections.messages import objects_cloud
from tests.ros.bags.conftest import SCENES
from tests.ros.detections.message_objects import built_array, detection_array

SPLIT = 'synthetic_val'
KEY_FRAMES = 4
ABSENT = KEY_FRAMES + 1
"""Index of the key frame of the second scene whose images are not in the bag."""


@pytest.fixture(scope='module')
def key_frames_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a dataset of two scenes of four key frames, without sweeps."""
    root = tmp_path_factory.mktemp('nuscenes') / 'key_frames'
    write_dataset(
        root,
        DatasetPlan(0, len(SCENES), KEY_FRAMES / 2, Sensors(160, 90, 4, False)),
        jobs=2,
        progress=False,
    )
    return root


@pytest.fixture(scope='module')
def index(key_frames_root: Path) -> SampleIndex:
    return load_index(key_frames_root, VERSION, SPLIT, key_frames_root.parent / 'cache')


@pytest.fixture(scope='module')
def gap_bag(key_frames_root: Path, index: SampleIndex) -> Path:
    """Return the bag of the second scene without the images of one key frame."""
    absent = {camera.filename for camera in index[ABSENT].cameras}
    recording = read_recording(open_devkit(key_frames_root, VERSION), SCENES[1])
    part = cameras_only(recording, set(index.filenames()) - absent)
    return write_bag(part, Target(key_frames_root, key_frames_root.parent / 'bags'))


@pytest.fixture(scope='module')
def out(
    key_frames_root: Path,
    gap_bag: Path,
    small_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """Return the output folder of the tool, which writes the bag of the first scene and reuses the
    existing bag of the second."""
    out = tmp_path_factory.mktemp('closed_loop')
    values = {
        'dataroot': key_frames_root,
        'version': VERSION,
        'split': SPLIT,
        'checkpoint': small_checkpoint,
        'out': out,
        'device': 'cpu',
    }
    values |= {'bags': gap_bag.parent, 'cache-dir': key_frames_root.parent / 'cache'}
    options = [f'--{name}={value}' for name, value in values.items()]
    done = subprocess.run(
        [sys.executable, '-m', 'bevdepth_ros.closed_loop.evaluate_node', *options],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (out / 'report.md').read_text() in done.stdout
    return out


def results_in(folder: Path) -> dict[str, list[dict]]:
    return json.loads((folder / 'results.json').read_text())['results']


def rows(entries: list[dict]) -> np.ndarray:
    """Return (n, 10) center, size, heading and score of the boxes, sorted so that rounding does
    not change the order.
    """
    found = [
        (
            *e['translation'],
            *e['size'],
            *(np.array(e['rotation'])[[0, 3]] ** 2),
            e['detection_score'],
        )
        for e in entries
    ]
    names = [e['detection_name'] for e in entries]
    table = np.column_stack((np.array(found), [NUSCENES_CLASSES.index(name) for name in names]))
    return table[np.lexsort(np.round(table[:, :2], 1).T)]


def test_boxes_of_the_node_equal_those_of_the_offline_evaluation(
    out: Path, index: SampleIndex
) -> None:
    offline, node = results_in(out / 'offline'), results_in(out)
    assert list(offline) == list(node) == index.tokens()
    for token in index.tokens()[:KEY_FRAMES]:
        assert len(offline[token]) > 50
        np.testing.assert_allclose(rows(node[token]), rows(offline[token]), rtol=0, atol=2e-3)
    compared = json.loads((out / 'report.json').read_text())['boxes']
    assert compared['matching'] >= sum(
        len(offline[token]) for token in index.tokens()[:KEY_FRAMES]
    )


def test_velocities_equal_those_of_the_offline_evaluation_where_a_past_frame_was_fused(
    out: Path, index: SampleIndex
) -> None:
    offline, node = results_in(out / 'offline'), results_in(out)
    first, second = index.tokens()[:2]
    assert all(entry['velocity'] == [0.0, 0.0] for entry in node[first])
    speeds = [
        np.sort([np.hypot(*entry['velocity']) for entry in found[second]])
        for found in (node, offline)
    ]
    np.testing.assert_allclose(*speeds, atol=2e-3)
    assert speeds[0].max() > 0.1


def test_a_key_frame_without_result_is_reported_as_missed_and_the_others_have_results(
    out: Path, index: SampleIndex
) -> None:
    scenes = json.loads((out / 'report.json').read_text())['scenes']
    missed = index[ABSENT].token
    assert [scenes[name]['missed'] for name in SCENES] == [[], [missed]]
    assert [len(scenes[name]['unfused']) for name in SCENES] == [1, 2]
    assert results_in(out)[missed] == [] and all(
        found for token, found in results_in(out).items() if token != missed
    )
    report = (out / 'report.md').read_text()
    assert re.search(
        rf'^\| {SCENES[1]} \| 4 \| 3 \| 1 \| 0 \| 3 \| 0 \| [\d.]+ \| [\d.]+ \|$',
        report,
        re.MULTILINE,
    )
    assert {'mean_ap', 'nd_score'} <= json.loads((out / 'metrics_summary.json').read_text()).keys()


def test_image_sets_in_a_bag_are_found_even_if_they_are_less_than_50_ms_apart(
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
    """Return one car ahead."""
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


def test_different_boxes_on_both_topics_are_an_error(gap_bag: Path, index: SampleIndex) -> None:
    stamp = mean_exposure_ns(index[KEY_FRAMES])
    found = results_at([stamp])
    other = replace(result(stamp), labels=np.array([1]))
    found.detections[stamp] = detection_array(other, 'base_link')
    with pytest.raises(ClosedLoopError, match='do not contain the same boxes'):
        scene_results([index[KEY_FRAMES]], found, read_transforms(gap_bag))
