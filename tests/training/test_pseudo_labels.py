"""Tests that boxes of a teacher are written as annotations with scores, and that a student can be
trained on these annotations.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.training.pseudo_labels import main, pseudo_rows
from bevdepth_core.training.train import main as train
from tests.core.nuscenes.own_rig import SPLIT, VERSION, rewrite, rows_of, write_own_dataset
from tests.training.tiny_runs import command, tiny_checkpoint

BOX = {
    'sample_token': 'drive-1-1', 'translation': [13.0, 1.0, 0.8], 'size': [2.0, 4.0, 1.6],
    'rotation': [1.0, 0, 0, 0], 'velocity': [3.0, -1.0], 'detection_name': 'car',
    'detection_score': 0.6, 'attribute_name': '',
}  # fmt: skip


def test_boxes_with_at_least_the_minimum_score_become_pseudo_labels_with_score_and_velocity(
    tmp_path: Path,
) -> None:
    root = write_own_dataset(tmp_path / 'data', [])
    low = BOX | {'detection_score': 0.29, 'detection_name': 'bus'}
    equal = BOX | {'detection_score': 0.3, 'detection_name': 'truck'}
    rows = pseudo_rows({'drive-1-0': [], 'drive-1-1': [low, BOX, equal]}, 0.3)
    for table, content in rows.items():
        rewrite(root, table, content)
    index = load_index(root, VERSION, SPLIT, tmp_path / 'cache')
    found = index[1].annotations
    assert [index.class_names[label] for label in found.label] == ['car', 'truck']
    assert found.score.tolist() == [0.6, 0.3] and found.seen.all()
    np.testing.assert_array_equal(found.velocity, [[3, -1, 0]] * 2)
    assert found.center[0].tolist() == [13, 1, 0.8] and len(index[0].annotations) == 0


@pytest.mark.parametrize('score', [0, -0.5, 1.5, None, float('nan'), '0.5'])
def test_an_invalid_score_is_rejected(tmp_path: Path, score: object) -> None:
    root = write_own_dataset(tmp_path / 'data')
    rows = rows_of(root, 'sample_annotation')
    rows[0]['score'] = score
    rewrite(root, 'sample_annotation', rows)
    with pytest.raises(ValueError, match=r'annotation .* of sample drive-1-0 .* has score'):
        load_index(root, VERSION, SPLIT, tmp_path / 'cache')


def test_a_student_can_be_trained_on_the_boxes_of_a_teacher(tmp_path: Path) -> None:
    root = write_own_dataset(tmp_path / 'data', [], frames=4)
    teacher = tiny_checkpoint(tmp_path)
    options = [
        f'--checkpoint={teacher}', f'--data.root={root}', f'--data.version={VERSION}',
        f'--data.split={SPLIT}', f'--data.cache_dir={tmp_path / "cache"}', '--data.workers=0',
        '--device=cpu', '--min_score=0.1',
    ]  # fmt: skip
    with pytest.raises(SystemExit, match='no box reaches the score 2: lower --min_score'):
        main([*options, '--min_score=2'])
    assert not list(root.glob('v1.0-pseudo*'))
    main(options)
    rows = json.loads((root / 'v1.0-pseudo' / 'sample_annotation.json').read_text())
    assert all(0.1 <= row['score'] < 1 for row in rows)
    assert rows_of(root, 'sample_annotation') == []
    with pytest.raises(SystemExit, match=r'v1.0-pseudo exists: remove it, or choose another name'):
        main(options)
    run = command('distill', root, tmp_path / 'run', f'--model.init={teacher}')
    train([*run, '--data.version=v1.0-pseudo'])
    assert (tmp_path / 'run/weights/epoch_001.safetensors').is_file()
