"""Tracking results and their official scores."""

from __future__ import annotations

import json
import sys
import unittest

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.nuscenes.result_file import result_boxes, write_results
from bevdepth_core.nuscenes.tracking_evaluation import (
    KEY_FRAME_NS,
    SCORES,
    TRACKING_CLASSES,
    detections_of_entries,
    evaluate_tracking,
    new_tracker,
    track_results,
    tracking_entries,
    tracking_table,
)
from bevdepth_core.tracking import Tracker, TrackerConfig
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import SPREADS, UncertaintyModel
from tests.core.nuscenes.dataroot import SPLIT, VERSION, make_dataroot

POSE = Pose(np.array((0.9, 0.02, -0.01, 0.43)), np.array((600.0, 1600.0, 2.0)))


def detections(count: int = 12) -> Detections3D:
    rng = np.random.default_rng(0)
    boxes = Boxes3D(
        rng.normal(0, 20, (count, 3)),
        rng.uniform(0.5, 5, (count, 3)),
        rng.uniform(-3, 3, count),
        rng.normal(0, 3, (count, 2)),
    )
    labels = np.arange(count) % len(NUSCENES_CLASSES)
    return Detections3D(boxes, np.linspace(0.9, 0.1, count), labels, NUSCENES_CLASSES, 7, 5)


def test_the_tracking_tests_of_the_devkit_pass_with_the_installed_motmetrics():
    suite = unittest.defaultTestLoader.loadTestsFromName('nuscenes.eval.tracking.tests.test_algo')
    result = unittest.TestResult()
    suite.run(result)
    assert (result.testsRun, result.failures, result.errors, result.skipped) == (8, [], [], [])


def test_detections_read_from_result_entries_agree_with_the_original_detections():
    sent = detections()
    entries = result_boxes('token', sent, POSE)
    found = detections_of_entries(entries[::-1], POSE, NUSCENES_CLASSES, 7, 5)
    np.testing.assert_allclose(found.boxes.center, sent.boxes.center, atol=1e-4)
    np.testing.assert_array_equal(found.boxes.size, sent.boxes.size)
    # POSE is tilted, so the conversion to the world frame and back changes yaw and velocity.
    np.testing.assert_allclose(found.boxes.yaw, sent.boxes.yaw, atol=2e-2)
    np.testing.assert_allclose(found.boxes.velocity, sent.boxes.velocity, atol=0.3)
    np.testing.assert_allclose(found.scores, sent.scores)
    assert found.labels.tolist() == sent.labels.tolist()
    assert (found.stamp_ns, found.past_stamp_ns) == (7, 5)
    assert len(detections_of_entries([], POSE, NUSCENES_CLASSES, 7, None)) == 0


def test_the_result_entry_of_a_track_has_its_id_and_the_values_of_its_box():
    tracks = Tracker(TrackerConfig(birth_score=0.0, min_hits=1)).update(detections(), np.eye(4))
    entries = tracking_entries('token', tracks.as_detections(), tracks.ids.tolist(), POSE)
    assert {entry['tracking_name'] for entry in entries} == set(TRACKING_CLASSES)
    boxes = result_boxes('token', detections(), POSE)
    for entry in entries:
        box = boxes[tracks.detections[tracks.ids.tolist().index(int(entry['tracking_id']))]]
        assert entry['tracking_name'] == box['detection_name']
        assert entry['tracking_score'] == pytest.approx(box['detection_score'])
        assert entry['translation'] == pytest.approx(box['translation'], abs=1e-3)
        assert entry['size'] == box['size']
        assert entry.keys() == {
            'sample_token',
            'translation',
            'size',
            'rotation',
            'velocity',
            'tracking_id',
            'tracking_name',
            'tracking_score',
        }


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_dataroot(tmp_path_factory.mktemp('tracking') / 'dataset', scenes=2)


@pytest.fixture(scope='module')
def index(root) -> SampleIndex:
    return load_index(root, VERSION, SPLIT, root.parent / 'cache')


def truth(index: SampleIndex) -> dict[str, list[dict]]:
    """Return detections with the values of the annotations; annotations without points are
    omitted.
    """
    results = {}
    for record in index:
        found = record.annotations
        results[record.token] = [
            {
                'translation': found.center[row].tolist(),
                'size': found.size[row].tolist(),
                'rotation': found.quaternion[row].tolist(),
                'velocity': found.velocity[row, :2].tolist(),
                'detection_name': NUSCENES_CLASSES[found.label[row]],
                'detection_score': 0.9,
            }
            for row in range(len(found))
            if found.points[row]
        ]
    return results


def test_a_new_tracker_uses_the_covariance_of_the_given_uncertainty_model():
    classes = len(NUSCENES_CLASSES)
    fitted = {name: np.full((classes, 1), 0.7) for name in SPREADS}
    model = UncertaintyModel(
        NUSCENES_CLASSES,
        np.array([20.0]),
        **fitted,
        score=np.zeros(classes),
        score_slope=np.zeros(classes),
    )
    with_model, without = (
        new_tracker(uncertainty)(detections(), np.eye(4)).pose_covariance[:, 2, 2]
        for uncertainty in (model, None)
    )
    assert len(with_model)
    np.testing.assert_allclose(with_model, 0.7**2)
    assert not np.isclose(without, 0.7**2).any()


def test_tracks_of_the_ground_truth_have_no_identity_switch(root, index, tmp_path, capsys):
    tracks = track_results(truth(index), index, lambda: Tracker().update)
    write_results(tracks, tmp_path / 'results.json')
    summary = evaluate_tracking(tmp_path / 'results.json', root, VERSION, SPLIT, tmp_path)
    assert summary['ids'] == summary['frag'] == summary['fn'] == summary['fp'] == 0
    assert summary['tp'] > 0
    assert capsys.readouterr().out == ''
    rows = tracking_table(summary).splitlines()
    assert rows[0] == f'| class | {" | ".join(SCORES.values())} |'
    assert [row.split(' | ')[0] for row in rows[3:]] == [f'| {name}' for name in TRACKING_CLASSES]
    assert '| bicycle | - | - | - | - | - | - |' in rows


def test_every_scene_has_a_new_tracker_and_key_frames_with_stamps_half_a_second_apart(index):
    seen = []

    def make():
        seen.append([])
        tracker = Tracker()

        def follow(found: Detections3D, pose: np.ndarray):
            seen[-1].append((found.stamp_ns, found.past_stamp_ns))
            return tracker.update(found, pose)

        return follow

    track_results(truth(index), index, make)
    assert len(seen) == len(index.scenes()) == 2
    for scene, stamps in zip(index.scenes(), seen, strict=True):
        assert stamps == [
            (place * KEY_FRAME_NS, None if place == scene.start else (place - 1) * KEY_FRAME_NS)
            for place in scene
        ]


def test_results_without_tracks_are_rejected_and_a_missing_motmetrics_package_is_reported(
    root, tmp_path, monkeypatch
):
    path = tmp_path / 'results.json'
    path.write_text(json.dumps({'results': {'a': []}}))
    with pytest.raises(ValueError, match='has no tracks of the classes bicycle'):
        evaluate_tracking(path, root, VERSION, SPLIT, tmp_path)
    path.write_text(json.dumps({'results': {'a': [{}]}}))
    for name in [name for name in sys.modules if name.startswith('nuscenes.eval.tracking')]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, 'motmetrics', None)
    with pytest.raises(ValueError, match=r'pip install motmetrics==1\.4\.0'):
        evaluate_tracking(path, root, VERSION, SPLIT, tmp_path)
