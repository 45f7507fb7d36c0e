"""Metrics for any class list. With the official classes, they must equal the devkit's metrics."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.classes import ClassMap
from bevdepth_core.nuscenes.evaluation import evaluate, table
from bevdepth_core.nuscenes.index import SampleIndex, Selection, load_index
from bevdepth_core.nuscenes.index_evaluation import evaluate_on_index
from bevdepth_core.nuscenes.result_file import write_results
from tests.core.nuscenes.own_rig import SCENE, SPLIT, VERSION, OwnBox, write_own_dataset

OFFICIAL = [
    OwnBox('vehicle.car', 8, 1, {'num_lidar_pts': 3, 'num_radar_pts': 0}),
    OwnBox('vehicle.truck', 6, -4, {'num_lidar_pts': 3, 'num_radar_pts': 0}),
    OwnBox('movable_object.trafficcone', 4, 4, {'num_lidar_pts': 3, 'num_radar_pts': 0}),
    OwnBox('vehicle.car', 90, 0, {'num_lidar_pts': 3, 'num_radar_pts': 0}),
    OwnBox('vehicle.car', 20, 9, {'num_lidar_pts': 0, 'num_radar_pts': 0}),
]
ATTRIBUTES = {'attribute_tokens': []}


def load(root, classes=NUSCENES_CLASSES) -> SampleIndex:
    return load_index(
        root, VERSION, SPLIT, root.parent / 'cache', Selection(ClassMap(tuple(classes)))
    )


def found(index: SampleIndex, shift: float = 0.3, classes: tuple[str, ...] = ()) -> dict:
    """Return the annotations of ``index`` as detections, moved by ``shift`` meters along x.

    If ``classes`` is not empty, only annotations of these classes are returned.
    """
    results = {}
    for record in index:
        rows = record.annotations
        results[record.token] = [
            {
                'sample_token': record.token,
                'translation': (rows.center[row] + (shift, 0, 0)).tolist(),
                'size': rows.size[row].tolist(),
                'rotation': rows.quaternion[row].tolist(),
                'velocity': [9.0, 0.0],
                'detection_name': (name := index.class_names[rows.label[row]]),
                'detection_score': 0.9 - 0.1 * row,
                'attribute_name': 'vehicle.moving' if name in ('car', 'truck') else '',
            }
            for row in range(len(rows))
            if not classes or index.class_names[rows.label[row]] in classes
        ]
    return results


@pytest.fixture
def official_root(tmp_path):
    boxes = [OwnBox(box.category, box.x, box.y, box.counts, ATTRIBUTES) for box in OFFICIAL]
    return write_own_dataset(tmp_path / 'data', boxes, lidar='LIDAR_TOP', frames=4)


def test_the_metrics_of_the_official_classes_equal_the_metrics_of_the_devkit(
    official_root, tmp_path
):
    index, results = load(official_root), found(load(official_root))
    assert index.is_official
    write_results(results, tmp_path / 'results.json')
    arguments = (tmp_path / 'results.json', official_root, VERSION, SPLIT)
    devkit = evaluate(*arguments, tmp_path / 'devkit', index)
    ours = evaluate_on_index(results, index, tmp_path / 'ours')
    for key in ('mean_dist_aps', 'label_aps'):
        assert json.dumps(ours[key], sort_keys=True) == json.dumps(devkit[key], sort_keys=True)
    assert 0.2 < ours['mean_ap'] == devkit['mean_ap']
    assert ours['nd_score'] == pytest.approx(devkit['nd_score'], abs=1e-12)
    np.testing.assert_allclose(
        list(ours['tp_errors'].values()), list(devkit['tp_errors'].values()), atol=1e-9
    )


def test_the_mean_scores_are_computed_over_the_classes_of_the_list(official_root):
    index = load(official_root, ('truck', 'car'))
    assert not index.is_official
    summary = evaluate_on_index(found(index, 0.3, ('car',)), index)
    assert list(summary['mean_dist_aps']) == ['truck', 'car']
    assert summary['mean_dist_aps'] == {'truck': 0.0, 'car': pytest.approx(1.0, abs=0.02)}
    assert summary['mean_ap'] == pytest.approx(0.5, abs=0.02)
    assert summary['label_tp_errors']['car']['trans_err'] == pytest.approx(0.3)


def test_boxes_of_a_class_that_nuscenes_does_not_define_are_scored_up_to_50_meters(tmp_path):
    boxes = [OwnBox('tram', 49), OwnBox('tram', 51), OwnBox('car', 8)]
    index = load(write_own_dataset(tmp_path / 'data', boxes), ('tram',))
    summary = evaluate_on_index(found(index, 0.0), index)
    assert summary['mean_ap'] == pytest.approx(1.0, abs=0.02)
    assert evaluate_on_index(found(index, 3.9), index)['mean_ap'] == 0


def test_a_part_of_a_split_can_be_scored(official_root):
    index = load(official_root)
    part = {token: rows for token, rows in found(index).items() if token == f'{SCENE}-2'}
    summary = evaluate_on_index(part, index)
    assert summary['mean_dist_aps']['car'] == pytest.approx(1.0, abs=0.02)


def test_scoring_samples_without_ground_truth_is_rejected(tmp_path):
    index = load(write_own_dataset(tmp_path / 'data', [OwnBox('car', 200)]))
    with pytest.raises(ValueError, match='no ground-truth boxes'):
        evaluate_on_index(found(index), index)


def test_a_result_file_of_a_dataset_with_its_own_class_list_is_scored(tmp_path):
    root = write_own_dataset(tmp_path / 'data')
    index = load(root, ('truck', 'car'))
    write_results(found(index, 0.0), tmp_path / 'results.json')
    arguments = (tmp_path / 'results.json', root, VERSION, SPLIT, tmp_path / 'out', index)
    summary = evaluate(*arguments)
    assert summary['mean_ap'] == pytest.approx(1.0, abs=0.02)
    assert (tmp_path / 'out/metrics_summary.json').is_file()
    rows = table(summary, class_names=index.class_names).splitlines()[4:]
    assert [row.split()[1] for row in rows] == ['mean', 'truck', 'car']
    write_results({}, tmp_path / 'results.json')
    with pytest.raises(ValueError, match='3 samples of the split are missing'):
        evaluate(*arguments)


def test_an_index_counts_as_official_only_if_the_devkit_reads_the_same_boxes(tmp_path):
    def is_official(number: int, boxes: list[OwnBox], **sensors: str) -> bool:
        root = write_own_dataset(tmp_path / str(number), boxes, **sensors)
        return load(root).is_official

    counted = {'num_lidar_pts': 3, 'num_radar_pts': 0}
    official = OwnBox('vehicle.car', counts=counted)
    assert is_official(0, [official], lidar='LIDAR_TOP')
    assert not is_official(1, [official], lidar='os1')
    assert not is_official(2, [OwnBox('car', counts=counted)], lidar='LIDAR_TOP')
    assert not is_official(3, [OwnBox('vehicle.car')], lidar='LIDAR_TOP')
