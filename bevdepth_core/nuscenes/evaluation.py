"""Computes the nuScenes metrics of a result file."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.splits import split_scenes
from bevdepth_core.nuscenes.tables import open_devkit

if TYPE_CHECKING:
    from nuscenes import NuScenes  # only for types, because this import takes seconds

ERRORS = {
    'trans_err': 'ATE',
    'scale_err': 'ASE',
    'orient_err': 'AOE',
    'vel_err': 'AVE',
    'attr_err': 'AAE',
}
"""Maps the devkit's keys of the five true-positive errors to their usual names."""
FAR_AWAY = 1e7
"""A world coordinate that is outside of the evaluated range of every class, in meters."""


@dataclass(frozen=True)
class PublishedScore:
    """Scores on nuScenes val from a row of the table in the official repository."""

    mean_ap: float
    nds: float


PUBLISHED = {
    'r50_256x704_2key': PublishedScore(0.3304, 0.4355),
    'r50_256x704_2key_ema': PublishedScore(0.3329, 0.4409),
    'r50_256x704_2key_da': PublishedScore(0.3484, 0.4805),
    'r50_256x704_2key_da_ema': PublishedScore(0.3589, 0.4797),
    'stereo_r50_256x704_2key': PublishedScore(0.3456, 0.4516),
    'stereo_r50_256x704_2key_ema': PublishedScore(0.3494, 0.4543),
    'stereo_r50_256x704_2key_da': PublishedScore(0.3576, 0.4902),
    'stereo_r50_256x704_2key_da_ema': PublishedScore(0.3721, 0.4997),
}


def evaluate(
    result_path: str | Path,
    dataroot: str | Path,
    version: str,
    split: str,
    output_dir: str | Path,
    index: SampleIndex | None = None,
) -> dict:
    """Return the nuScenes metrics of a result file.

    The devkit's DetectionEval computes the metrics. It supports only the ten nuScenes classes,
    nuScenes categories and ``LIDAR_TOP``. For other datasets, ``index`` must be given, and the
    same metrics are computed from the annotations of the index.

    Args:
        result_path: a nuScenes result file.
        dataroot: the dataset's root.
        version: version of the dataset, such as ``v1.0-trainval``.
        split: a split with annotations.
        output_dir: folder to which the devkit writes ``metrics_summary.json`` and
            ``metrics_details.json``.
        index: the samples of the split; None for a nuScenes dataset.

    Returns:
        The devkit's summary: ``mean_ap``, ``nd_score``, ``tp_errors``, ``mean_dist_aps``,
        ``label_tp_errors``, ...

    Raises:
        ValueError: the file does not contain exactly the samples of the split, or there are no
            annotations.
    """
    from bevdepth_core.nuscenes.index_evaluation import evaluate_on_index

    results = json.loads(Path(result_path).read_text())
    if index is not None and not index.is_official:
        _require_same_samples(set(index.tokens()), results['results'], split)
        return evaluate_on_index(results['results'], index, output_dir)
    devkit = open_devkit(dataroot, version)
    _require_same_samples(
        _tokens(devkit, split_scenes(dataroot, version, split)), results['results'], split
    )
    if not devkit.sample_annotation:
        raise ValueError(
            f'{dataroot} {version} has no annotations for split {split!r}; choose another split'
        )
    return _official_summary(devkit, results, split, output_dir)


def _official_summary(devkit: NuScenes, results: dict, split: str, output_dir: str | Path) -> dict:
    from nuscenes.eval.common.config import config_factory
    from nuscenes.eval.detection.evaluate import DetectionEval

    from bevdepth_core.nuscenes.index_evaluation import METRICS

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        scored = Path(folder) / 'results.json'
        scored.write_text(json.dumps(results | {'results': _with_a_box(results['results'])}))
        official = DetectionEval(
            devkit, config_factory(METRICS), str(scored), split, str(output_dir), verbose=False
        )
        return official.main(render_curves=False)


def _tokens(devkit: NuScenes, scenes: Iterable[str]) -> set[str]:
    """Return the sample tokens of some scenes."""
    chosen = {scene['token'] for scene in devkit.scene if scene['name'] in set(scenes)}
    return {sample['token'] for sample in devkit.sample if sample['scene_token'] in chosen}


def _with_a_box(results: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Return the results; if they contain no box, add a box that is out of range.

    The distance filter of the devkit raises an exception if no sample has a box. The added box
    does not change the score, which is 0.
    """
    if any(results.values()):
        return results
    token = next(iter(results))
    far = {
        'translation': [FAR_AWAY, FAR_AWAY, 0.0],
        'size': [1.0, 1.0, 1.0],
        'rotation': [1.0, 0.0, 0.0, 0.0],
        'velocity': [0.0, 0.0],
    }
    entry = {
        'sample_token': token,
        'detection_name': NUSCENES_CLASSES[0],
        'detection_score': 0.0,
        'attribute_name': '',
    }
    return results | {token: [entry | far]}


def _require_same_samples(expected: set[str], found: Iterable[str], split: str) -> None:
    absent, foreign = sorted(expected - set(found)), sorted(set(found) - expected)
    if absent or foreign:
        raise ValueError(
            f'the result file must contain exactly the samples of split {split!r}: '
            f'{len(absent)} samples of the split are missing, and {len(foreign)} samples of the '
            f'file are not in the split; for example {", ".join((absent + foreign)[:3])}'
        )


def table(
    summary: Mapping,
    published: PublishedScore | None = None,
    class_names: Sequence[str] = NUSCENES_CLASSES,
) -> str:
    """Return the devkit's summary as Markdown: the mean scores, the published scores if they are
    given, and the scores of every class.
    """
    headings = ['class', 'AP', *ERRORS.values()]
    rows = [['mean', summary['mean_ap'], *(summary['tp_errors'][error] for error in ERRORS)]]
    for name in class_names:
        errors = summary['label_tp_errors'][name]
        rows.append([name, summary['mean_dist_aps'][name], *(errors[error] for error in ERRORS)])
    lines = [f'mAP {summary["mean_ap"]:.4f}, NDS {summary["nd_score"]:.4f}']
    if published:
        lines.append(f'published: mAP {published.mean_ap:.4f}, NDS {published.nds:.4f}')
    lines += ['', _row(headings), _row(['---'] + ['---:'] * (len(headings) - 1))]
    return '\n'.join(lines + [_row([name, *map(_number, numbers)]) for name, *numbers in rows])


def _row(cells: Iterable[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _number(value: float) -> str:
    return '-' if np.isnan(value) else f'{value:.3f}'
