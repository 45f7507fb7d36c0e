r"""Writes the boxes of a teacher network as pseudo labels of a dataset.

    python training/pseudo_label.py --checkpoint r50_512x1408_2key --data.root data/own \
        --data.version v1.0-own --data.split own_train

The detector processes the key frames of the split, as in evaluation. The program copies the tables
of the dataset to the new folder `new_version` (v1.0-pseudo), with the boxes of the teacher as
annotations. Both versions use the same sensor files. Each box has the velocity and the score that
the teacher predicted. In training with config/training/distill.yaml, a box is weighted by its
score.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.nuscenes.columns import UNKNOWN_POINTS
from bevdepth_core.nuscenes.completeness import TABLES
from bevdepth_core.nuscenes.index import Selection, load_index
from bevdepth_core.nuscenes.table_files import Rows, TableFiles, token
from bevdepth_core.training.command_line import require_writable, run_program
from bevdepth_core.training.evaluate import (
    EvaluationConfig,
    EvaluationData,
    chosen_devices,
    detect,
)

REPLACED = ('category', 'attribute', 'instance', 'sample_annotation')
"""Tables with new content; all other tables are copied."""
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class PseudoLabelConfig:
    """Settings of the program.

    Attributes:
        checkpoint: weights of the teacher, given as a file or as a name such as ``2key_da_ema``.
        data: dataset to label.
        new_version: name of the new folder of tables.
        min_score: boxes with a lower score are excluded.
        device: see ``EvaluationConfig.device``.
        precision: precision of the network: fp32, fp16 or bf16.
    """

    checkpoint: str
    data: EvaluationData = field(default_factory=EvaluationData)
    new_version: str = 'v1.0-pseudo'
    min_score: float = 0.3
    device: str = 'auto'
    precision: Literal['fp32', 'fp16', 'bf16'] = 'fp32'


def main(arguments: list[str] | None = None) -> None:
    """Run the command line."""
    run_program(
        'training/pseudo_label.py',
        __doc__ or '',
        PseudoLabelConfig,
        write_pseudo_labels,
        arguments,
    )


def write_pseudo_labels(config: PseudoLabelConfig) -> Path:
    """Detect objects, write the new tables, and return the folder of these tables.

    Raises:
        ValueError: the dataset or the checkpoint is invalid, the folder of the new tables already
            exists, or no box reaches ``min_score``.
        OSError: a file cannot be read or written.
    """
    data = config.data
    target = Path(data.root) / config.new_version
    if target.exists():
        raise ValueError(f'{target} exists: remove it, or choose another name with --new_version')
    chosen_devices(config.device, config.precision)
    load_checkpoint(config.checkpoint)
    require_writable(Path(data.root), '--data.root')
    selection = Selection(
        cameras=None if data.cameras is None else tuple(data.cameras), lidar=data.lidar
    )
    index = load_index(data.root, data.version, data.split, data.cache_dir, selection)
    evaluation = EvaluationConfig(
        config.checkpoint, data, device=config.device, precision=config.precision
    )
    results = detect(evaluation, index)
    rows = pseudo_rows(results, config.min_score)
    count = len(rows['sample_annotation'])
    if not count:
        raise ValueError(f'no box reaches the score {config.min_score:g}: lower --min_score')
    total = sum(map(len, results.values()))
    _LOG.info('%d of %d boxes have at least the score %g', count, total, config.min_score)
    _write_tables(Path(data.root) / data.version, target, rows)
    return target


def pseudo_rows(results: Mapping[str, Sequence[dict]], min_score: float) -> Rows:
    """Return the rows of the replaced tables.

    Args:
        results: entries of ``result_boxes`` by sample token.
        min_score: boxes with a lower score are excluded.
    """
    boxes = [
        (token('pseudo', sample, number), box)
        for sample, entries in results.items()
        for number, box in enumerate(entries)
        if box['detection_score'] >= min_score
    ]
    names = sorted({box['detection_name'] for _, box in boxes})
    return {
        'category': [
            {'token': token('category', name), 'name': name, 'description': ''} for name in names
        ],
        'instance': [_instance(box_token, box) for box_token, box in boxes],
        'sample_annotation': [_annotation(box_token, box) for box_token, box in boxes],
    }


def _instance(box_token: str, box: dict) -> dict:
    return {
        'token': box_token,
        'category_token': token('category', box['detection_name']),
        'nbr_annotations': 1,
        'first_annotation_token': box_token,
        'last_annotation_token': box_token,
    }


def _annotation(box_token: str, box: dict) -> dict:
    return {
        'token': box_token,
        'sample_token': box['sample_token'],
        'instance_token': box_token,
        'visibility_token': '',
        'attribute_tokens': [],
        'translation': box['translation'],
        'size': box['size'],
        'rotation': box['rotation'],
        'velocity': [*box['velocity'], 0.0],
        'score': box['detection_score'],
        'num_lidar_pts': UNKNOWN_POINTS,
        'num_radar_pts': 0,
        'prev': '',
        'next': '',
    }


def _write_tables(source: Path, target: Path, rows: Rows) -> None:
    """Write the folder of tables under a temporary name, and rename it when it is complete."""
    part = target.with_name(f'{target.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        with TableFiles(part) as tables:
            tables.add(rows)
        for name in (*(name for name in TABLES if name not in REPLACED), 'splits'):
            if (source / f'{name}.json').is_file():
                shutil.copyfile(source / f'{name}.json', part / f'{name}.json')
        part.rename(target)
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == '__main__':
    main()
