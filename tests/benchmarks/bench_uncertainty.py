r"""Compares the default covariance with a fitted covariance by their coverage and their NEES.

    python -m tests.benchmarks.bench_uncertainty --results out/calibration/results.json \
        --root data/calibration --version v1.0-synthetic --split synthetic_val --folds 7 \
        --chart docs/images/uncertainty.png
    python -m tests.benchmarks.bench_uncertainty --checkpoint small --sweeps out/sweeps.json \
        --root data/tracking --version v1.0-synthetic --split synthetic_val

``--folds N`` divides the scenes into N folds. For each fold, a model is fitted to the scenes of
the other folds and tested on the scenes of this fold. ``--checkpoint`` tests the model in a
checkpoint; choose a split to which this model was not fitted. ``--sweeps`` uses the detections
that ``tracking_sweeps`` wrote, at the key frames only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from matplotlib.axes import Axes

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.training.uncertainty_fit import (
    Coverage,
    Errors,
    coverage,
    errors_of,
    fit,
    matched,
)
from bevdepth_core.types import Detections3D
from bevdepth_core.uncertainty import BoxCovariance, UncertaintyModel, default_covariance
from tests.benchmarks.tracking_sweeps import read_sweeps

COLORS = {'default': 'tab:orange', 'fitted': 'tab:blue'}


def measure(options: argparse.Namespace) -> dict[str, list[Coverage]]:
    """Return the coverage for each class and range of distances, with the default covariance and
    with the fitted covariance.
    """
    index = load_index(options.root, options.version, options.split, options.cache_dir)
    if options.sweeps:
        scenes = read_sweeps(options.sweeps, only_key_frames=True).values()
        results = {one.token: one.entries for scene in scenes for one in scene}
    else:
        results = json.loads(options.results.read_text())['results']
    found, truth, places = matched(results, index)
    errors = errors_of(found, truth)
    if options.folds:
        lengths = [len(scene) for scene in index.scenes()]
        scene_of_sample = np.repeat(np.arange(len(lengths)), lengths)
        fitted = held_out(found, errors, scene_of_sample[places] % options.folds)
    else:
        metadata = load_checkpoint(options.checkpoint).metadata
        model = UncertaintyModel.from_metadata(metadata, index.class_names)
        if model is None:
            raise SystemExit(f'{options.checkpoint} has no fitted covariance')
        fitted = model.covariance(found)
    covariances = {'default': default_covariance(found), 'fitted': fitted}
    return {name: list(coverage(errors, found, one)) for name, one in covariances.items()}


def held_out(found: Detections3D, errors: Errors, folds: np.ndarray) -> BoxCovariance:
    """Return the covariance of each detection, computed by a model that was fitted to the
    detections of the other folds.

    Args:
        found: n detections.
        errors: errors of the detections.
        folds: (n,) number of the fold that each detection belongs to.
    """
    pose, velocity = np.empty((len(found), 4, 4)), np.empty((len(found), 2, 2))
    for fold in np.unique(folds):
        own = folds == fold
        covariance = fit(errors[~own], found.class_names).covariance(found[own])
        pose[own], velocity[own] = covariance.pose, covariance.velocity
    return BoxCovariance(pose, velocity)


def table(rows: dict[str, list[Coverage]]) -> str:
    """Return the coverage and the NEES of both covariances as a Markdown table."""
    lines = ['| class | range | boxes | default | fitted |', '| --- | --- | ---: | ---: | ---: |']
    for before, after in zip(rows['default'], rows['fitted'], strict=True):
        values = ' | '.join(f'{one.inside:.1f} %, {one.nees:.2f}' for one in (before, after))
        lines.append(f'| {before.name} | {before.distance} | {before.boxes} | {values} |')
    return '\n'.join(lines)


def draw(rows: dict[str, list[Coverage]], path: Path) -> None:
    """Draw the NEES and the coverage for each class and range of distances."""
    labels = [f'{one.name}, {one.distance}' for one in rows['default'][:-1]] + ['all']
    figure, (left, right) = pyplot.subplots(
        1, 2, sharey=True, figsize=(10, 1.2 + 0.25 * len(labels)), layout='constrained'
    )
    left.axvline(2, color='grey', linewidth=1)
    right.axvspan(93, 97, color='lightgrey')
    for name, ones in rows.items():
        _dots(left, [one.nees for one in ones], name)
        _dots(right, [one.inside for one in ones], name)
    left.set(xlabel='mean NEES of the position', xlim=(0, None))
    right.set(xlabel='position errors in the 95 % ellipse, percent')
    left.set_yticks(range(len(labels)), labels)
    left.invert_yaxis()
    right.legend(loc='upper left')
    figure.savefig(path, dpi=80)


def _dots(axes: Axes, values: list[float], name: str) -> None:
    axes.plot(values, range(len(values)), 'o', color=COLORS[name], label=name)
    axes.grid(axis='y', linewidth=0.3)


def main() -> None:
    parser = argparse.ArgumentParser(description='Compare default and fitted covariance.')
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('--results', type=Path, help='results.json of training/evaluate.py')
    source.add_argument('--sweeps', type=Path, help='file that tracking_sweeps wrote')
    fitted = parser.add_mutually_exclusive_group(required=True)
    fitted.add_argument('--checkpoint', help='checkpoint whose fitted covariance is tested')
    fitted.add_argument(
        '--folds',
        type=int,
        help='number of folds of scenes; each fold is tested with a model that was fitted to the '
        'other folds',
    )
    parser.add_argument('--root', type=Path, required=True)
    parser.add_argument('--version', default='v1.0-trainval')
    parser.add_argument('--split', default='val')
    parser.add_argument('--cache-dir', type=Path)
    parser.add_argument('--chart', type=Path, help='PNG file to write')
    options = parser.parse_args()
    rows = measure(options)
    print(table(rows))
    if options.chart:
        draw(rows, options.chart)


if __name__ == '__main__':
    main()
