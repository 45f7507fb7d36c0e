from __future__ import annotations

import json

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.evaluation import (
    PUBLISHED,
    evaluate,
    result_boxes,
    table,
    write_results,
)
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.types import Boxes3D, Detections3D
from tests.core.nuscenes.dataroot import SPLIT, TOKEN, VERSION, make_dataroot
from tests.reference import golden, reference_path

PREVIOUS = 'made-previous-frame'


def detections(rows: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> Detections3D:
    """Return detections of (n, 9) box rows."""
    boxes = Boxes3D(rows[:, :3], rows[:, 3:6], rows[:, 6], rows[:, 7:])
    return Detections3D(boxes, scores, labels, NUSCENES_CLASSES, stamp_ns=0)


def pose(inputs: dict) -> Pose:
    return Pose(
        np.array(inputs['ego2global_rotation']), np.array(inputs['ego2global_translation'])
    )


def official_attributes() -> tuple[dict, Detections3D]:
    official = json.loads(reference_path('golden/evaluator_attributes.json').read_text())
    inputs = official['_inputs']
    return official, detections(
        *(
            np.array(inputs[name], dtype)
            for name, dtype in (('boxes', 'f4'), ('scores', 'f4'), ('labels', 'i8'))
        )
    )


def official_sample() -> tuple[dict, Detections3D]:
    arrays = golden('real_2key')[1]
    official = json.loads(reference_path('golden/evaluator_real_2key.json').read_text())
    return official, detections(
        *(arrays[f'out/b0/{name}'] for name in ('boxes', 'scores', 'labels'))
    )


@pytest.mark.parametrize('case', [official_attributes, official_sample])
def test_result_file_equals_the_official_evaluators(tmp_path, case):
    official, found = case()
    (token, expected), *_ = official['results'].items()
    write_results(
        {token: result_boxes(token, found, pose(official['_inputs']))}, tmp_path / 'results.json'
    )
    written = json.loads((tmp_path / 'results.json').read_text())
    assert written['meta'] == official['meta']
    assert len(written['results'][token]) == len(expected) > 0
    for ours, theirs in zip(written['results'][token], expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert ours[name] == (
                value if isinstance(value, str) else pytest.approx(value, abs=2e-7)
            ), name


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_dataroot(tmp_path_factory.mktemp('evaluation') / 'dataset')


def truth(root) -> dict[str, list[dict]]:
    """Return results that repeat the annotations that sensors touched."""
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


def test_the_devkit_gives_the_truth_a_full_score(root, tmp_path, capsys):
    summary = run(root, tmp_path, truth(root))
    present = [name for name, precision in summary['mean_dist_aps'].items() if precision > 0.99]
    assert set(present) == {'car', 'truck', 'pedestrian', 'traffic_cone'}
    assert summary['label_tp_errors']['truck']['trans_err'] < 1e-6
    assert (
        json.loads((tmp_path / 'metrics_summary.json').read_text())['nd_score']
        == summary['nd_score']
    )
    assert capsys.readouterr().out == ''


def test_no_detections_at_all_score_nothing_and_are_no_error(root, tmp_path):
    summary = run(root, tmp_path, {TOKEN: [], PREVIOUS: []})
    assert (summary['mean_ap'], summary['nd_score']) == (0, 0)


def test_a_set_without_annotations_cannot_be_scored(tmp_path):
    root = make_dataroot(tmp_path / 'dataset')
    for table_name in ('sample_annotation', 'instance'):
        (root / VERSION / f'{table_name}.json').write_text('[]')
    with pytest.raises(ValueError, match='no annotations'):
        run(root, tmp_path, {TOKEN: [], PREVIOUS: []})


def test_results_that_lack_a_sample_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match=f'1 are absent.*{PREVIOUS}'):
        run(root, tmp_path, {TOKEN: []})


def test_results_of_another_split_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match=r'1 are foreign.*elsewhere'):
        run(root, tmp_path, {TOKEN: [], PREVIOUS: [], 'elsewhere': []})


def test_the_table_shows_means_published_score_and_every_class(root, tmp_path):
    lines = table(run(root, tmp_path, truth(root)), PUBLISHED['r50_256x704_2key']).splitlines()
    assert lines[0].startswith('mAP 0.4') and lines[1] == 'published: mAP 0.3304, NDS 0.4355'
    assert lines[3] == '| class | AP | ATE | ASE | AOE | AVE | AAE |'
    assert [line.split()[1] for line in lines[5:]] == ['mean', *NUSCENES_CLASSES]
    assert next(line for line in lines if 'traffic_cone' in line).endswith('| - | - | - |')
