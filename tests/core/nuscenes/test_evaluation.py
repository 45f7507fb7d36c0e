"""Result files, and the scores that the devkit computes for them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.evaluation import PUBLISHED, evaluate, table
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.nuscenes.result_file import result_boxes, write_results
from tests.core.nuscenes.dataroot import PREVIOUS, SPLIT, TOKEN, VERSION, make_dataroot
from tests.core.nuscenes.official_results import detections, require_official_results
from tests.reference import DATA


def test_the_result_file_equals_the_file_of_the_official_evaluator(tmp_path):
    official = json.loads((DATA / 'evaluator_attributes.json').read_text())
    inputs = official['_inputs']
    types = {'boxes': 'f4', 'scores': 'f4', 'labels': 'i8'}
    found = detections(*(np.array(inputs[name], dtype) for name, dtype in types.items()))
    require_official_results(official, found, tmp_path)


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_dataroot(tmp_path_factory.mktemp('evaluation') / 'dataset')


def truth(root) -> dict[str, list[dict]]:
    """Return detections with the values of the annotations; annotations without points are
    omitted.
    """
    results = {}
    for record in load_index(root, VERSION, SPLIT, root.parent / 'cache'):
        found = record.annotations
        columns = zip(
            found.center,
            found.size,
            found.quaternion,
            found.velocity,
            found.label,
            found.points,
            strict=True,
        )
        names = ('translation', 'size', 'rotation', 'velocity')
        results[record.token] = [
            {
                'sample_token': record.token,
                'detection_name': NUSCENES_CLASSES[label],
                'detection_score': 0.9,
                'attribute_name': '',
            }
            | {
                name: value.tolist()
                for name, value in zip(
                    names, (center, size, quaternion, velocity[:2]), strict=True
                )
            }
            for center, size, quaternion, velocity, label, points in columns
            if points
        ]
    return results


def run(root, tmp_path, results) -> dict:
    write_results(results, tmp_path / 'results.json')
    return evaluate(tmp_path / 'results.json', root, VERSION, SPLIT, tmp_path)


def test_the_devkit_gives_full_scores_to_detections_that_equal_the_ground_truth(
    root, tmp_path, capsys
):
    summary = run(root, tmp_path, truth(root))
    present = [name for name, precision in summary['mean_dist_aps'].items() if precision > 0.99]
    assert set(present) == {'car', 'truck', 'pedestrian', 'traffic_cone'}
    assert summary['label_tp_errors']['truck']['trans_err'] < 1e-6
    assert (
        json.loads((tmp_path / 'metrics_summary.json').read_text())['nd_score']
        == summary['nd_score']
    )
    assert capsys.readouterr().out == ''


def test_results_without_detections_have_the_score_zero(root, tmp_path):
    summary = run(root, tmp_path, {TOKEN: [], PREVIOUS: []})
    assert (summary['mean_ap'], summary['nd_score']) == (0, 0)


def test_scoring_a_dataset_without_annotations_is_rejected(tmp_path):
    root = make_dataroot(tmp_path / 'dataset')
    for table_name in ('sample_annotation', 'instance'):
        (root / VERSION / f'{table_name}.json').write_text('[]')
    with pytest.raises(ValueError, match='no annotations'):
        run(root, tmp_path, {TOKEN: [], PREVIOUS: []})


def test_results_without_an_entry_for_a_sample_are_rejected(root, tmp_path):
    with pytest.raises(ValueError, match=f'1 samples of the split are missing.*{PREVIOUS}'):
        run(root, tmp_path, {TOKEN: []})


def test_results_with_a_sample_outside_the_split_are_rejected(root, tmp_path):
    with pytest.raises(ValueError, match=r'1 samples of the file are not in the.*elsewhere'):
        run(root, tmp_path, {TOKEN: [], PREVIOUS: [], 'elsewhere': []})


def test_the_table_lists_mean_scores_published_scores_and_every_class(root, tmp_path):
    lines = table(run(root, tmp_path, truth(root)), PUBLISHED['r50_256x704_2key']).splitlines()
    assert lines[0].startswith('mAP 0.4') and lines[1] == 'published: mAP 0.3304, NDS 0.4355'
    assert lines[3] == '| class | AP | ATE | ASE | AOE | AVE | AAE |'
    assert [line.split()[1] for line in lines[5:]] == ['mean', *NUSCENES_CLASSES]
    assert next(line for line in lines if 'traffic_cone' in line).endswith('| - | - | - |')


def test_a_result_is_in_the_world_frame_and_has_the_attribute_for_its_speed():
    rows = np.array([(5.0, 0, 1, 4, 2, 1.5, 0, 3, 0), (0, 2.0, 0, 8, 3, 3, np.pi / 2, 0, 0.1)])
    found = detections(rows.astype(np.float32), np.array([0.9, 0.4], 'f4'), np.array([0, 3]))
    left = Pose(np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)]), np.array([10.0, 20, 1]))
    car, bus = result_boxes('token', found, left)
    assert car['sample_token'] == 'token' and car['detection_name'] == 'car'
    assert car['translation'] == pytest.approx([10, 25, 2], abs=1e-5)
    assert car['size'] == [2, 4, 1.5]
    assert car['rotation'] == pytest.approx([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    assert car['velocity'] == pytest.approx([0, 3], abs=1e-5)
    assert car['detection_score'] == pytest.approx(0.9)
    assert (car['attribute_name'], bus['attribute_name']) == ('vehicle.moving', 'vehicle.stopped')
    assert bus['translation'] == pytest.approx([8, 20, 1], abs=1e-5)
    assert np.abs(bus['rotation']) == pytest.approx([0, 0, 0, 1], abs=1e-6)
