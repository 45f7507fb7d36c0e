r"""Fits an uncertainty model to the errors of the detections of a checkpoint, and stores the
model in the checkpoint.

    python training/evaluate.py --checkpoint model.safetensors --data.root data/nuscenes \
        --data.split calibration --output out/calibration
    python training/fit_uncertainty.py model.safetensors out/calibration/results.json \
        --root data/nuscenes --split calibration

Do not use the split on which scores are reported. A detection is matched only to annotations of
its class that have lidar or radar points. The detection with the best score is matched first. The
largest distance of a match is 4 m for cars, trucks, buses, trailers and construction vehicles, and
2 m for all other classes. For each class and range, the standard deviations are scaled so that the
95 % ellipse contains 95 % of the position errors.

`--check` does not change the checkpoint. It prints which percentage of the position errors in a
results file is inside the 95 % ellipses of the covariance in the checkpoint, or of the default
covariance if the checkpoint contains no covariance.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.files import write_atomically
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.tracking_evaluation import detections_of_entries
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import (
    SPREADS,
    BoxCovariance,
    UncertaintyModel,
    covariance_of,
)

RANGES_M = (2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 32.5, 37.5, 42.5, 47.5, 52.5)
FIT_BIN_M = 5.0
"""Width of the fitted range bins, meters; ``RANGES_M`` contains the centers of these bins."""
TABLE_BIN_M = 10.0
"""Width of the range bins in the coverage table, meters."""
FEWEST_SHOWN = 200
"""The coverage table contains only bins with at least this number of errors."""
CHI2_1, CHI2_2 = 3.841, 5.991
"""95 % quantiles of chi-square with 1 and 2 degrees of freedom."""
COVERED = 0.95
FEWEST = 60
"""Smallest number of errors to which standard deviations are fitted. If a class has fewer errors
in a range bin, its errors at all ranges are used. If these are still too few, the errors of all
classes in the range bin are used. If these are too few as well, all errors are used."""
GATE_M = dict.fromkeys(('car', 'truck', 'bus', 'trailer', 'construction_vehicle'), 4.0)
SMALL_GATE_M = 2.0
ORIGIN_KEY = 'uncertainty_origin'
"""Key of the entry in a checkpoint's metadata that describes the data to which the uncertainty
model was fitted."""
MAX_SLOPE = 3.0
"""Largest decrease of the logarithm of the position error when the score increases by 1. With this
value, errors at score 0 are 20 times as large as errors at score 1."""


@dataclass(frozen=True)
class Errors:
    """Errors of matched detections: (n,) arrays.

    Attributes:
        label: index of the class.
        distance: range of the detection, meters.
        score: score of the detection.
        along: error of the position along the line of sight, meters.
        across: error of the position across the line of sight, meters.
        height: error of z, meters.
        yaw: error of the heading in radians, in [-pi, pi).
        vx: error of the velocity along x, m/s; NaN where the annotation has no velocity.
        vy: error of the velocity along y, m/s; NaN where ``vx`` is NaN.
    """

    label: np.ndarray
    distance: np.ndarray
    score: np.ndarray
    along: np.ndarray
    across: np.ndarray
    height: np.ndarray
    yaw: np.ndarray
    vx: np.ndarray
    vy: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> Errors:
        return Errors(*(getattr(self, column.name)[rows] for column in fields(self)))

    def __len__(self) -> int:
        return len(self.label)


def matched(
    results: Mapping[str, list[dict]], index: SampleIndex
) -> tuple[Detections3D, Boxes3D, np.ndarray]:
    """Return the n matched detections of all samples, the annotation of each detection, and for
    each detection the (n,) position of its sample in ``index``. Detections and annotations are in
    the ego frame of their sample.
    """
    pairs = [_pairs(results[record.token], index, place) for place, record in enumerate(index)]
    entries = [entry for entry, _ in pairs]
    places = np.repeat(np.arange(len(index)), [len(one) for one in entries])
    names = index.class_names

    def joined(columns: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
        return np.concatenate([*columns, np.empty((0, *shape))])

    def boxes(parts: list[Boxes3D]) -> Boxes3D:
        shapes = {'center': (3,), 'size': (3,), 'yaw': (), 'velocity': (2,)}
        return Boxes3D(**{n: joined([getattr(p, n) for p in parts], s) for n, s in shapes.items()})

    found = boxes([one.boxes for one in entries])
    scores = joined([one.scores for one in entries], ())
    labels = joined([one.labels for one in entries], ()).astype(np.int64)
    detections = Detections3D(found, scores, labels, names, 0, 0)
    return detections, boxes([truth for _, truth in pairs]), places


def _pairs(entries: list[dict], index: SampleIndex, place: int) -> tuple[Detections3D, Boxes3D]:
    """Return the matched detections of a sample, and the annotation of each detection."""
    record, names = index[place], index.class_names
    pose = record.world_from_ego()
    found = detections_of_entries(entries, pose, names, 0, 0)
    annotations = record.annotations
    keep = annotations.points > 0
    truth = detections_of_entries(
        [
            {
                'translation': annotations.center[row],
                'size': annotations.size[row],
                'rotation': annotations.quaternion[row],
                'velocity': np.nan_to_num(annotations.velocity[row, :2], nan=1e6),
                'detection_name': names[annotations.label[row]],
                'detection_score': 0.0,
            }
            for row in np.nonzero(keep)[0]
        ],
        pose, names, 0, 0,
    )  # fmt: skip
    rows, others = [], []
    free = np.ones(len(truth), bool)
    for row, label in enumerate(found.labels.tolist()):
        offset = truth.boxes.center[:, :2] - found.boxes.center[row, :2]
        distance = np.hypot(*offset.T)
        distance[~free | (truth.labels != label)] = np.inf
        if len(distance) and distance.min() <= GATE_M.get(names[label], SMALL_GATE_M):
            rows.append(row)
            others.append(int(distance.argmin()))
            free[others[-1]] = False
    chosen = np.array(rows, np.int64)
    detections = Detections3D(
        found.boxes[chosen], found.scores[chosen], found.labels[chosen], names, 0, 0
    )
    return detections, truth.boxes[np.array(others, np.int64)]


def errors_of(found: Detections3D, truth: Boxes3D) -> Errors:
    """Return the errors of matched detections."""
    center = found.boxes.center.astype(np.float64)
    offset = truth.center - center
    distance = np.hypot(center[:, 0], center[:, 1])
    direction = center[:, :2] / np.maximum(distance, 1.0)[:, None]
    velocity = np.where(
        np.abs(truth.velocity) < 1e4, truth.velocity - found.boxes.velocity, np.nan
    )
    return Errors(
        label=found.labels,
        distance=distance,
        score=found.scores.astype(np.float64),
        along=offset[:, 0] * direction[:, 0] + offset[:, 1] * direction[:, 1],
        across=offset[:, 1] * direction[:, 0] - offset[:, 0] * direction[:, 1],
        height=offset[:, 2].astype(np.float64),
        yaw=(truth.yaw - found.boxes.yaw + np.pi) % (2 * np.pi) - np.pi,
        vx=velocity[:, 0],
        vy=velocity[:, 1],
    )


def fit(errors: Errors, class_names: tuple[str, ...]) -> UncertaintyModel:
    """Return the model whose 95 % regions contain 95 % of new errors, if the new errors have the
    same distribution as ``errors``.

    Raises:
        ValueError: there are too few errors.
    """
    if len(errors) < FEWEST:
        raise ValueError(
            f'{len(errors)} matched detections are too few, at least {FEWEST} are needed: use a '
            'split with more annotated samples'
        )
    count = len(class_names)
    score, slope = np.full(count, errors.score.mean()), np.full(count, _slope(errors))
    factor = np.exp(slope[0] * (score[0] - errors.score))
    tables = {name: np.empty((count, len(RANGES_M))) for name in SPREADS}
    for column, middle in enumerate(RANGES_M):
        near = np.abs(errors.distance - middle) <= FIT_BIN_M / 2
        near |= (column == len(RANGES_M) - 1) & (errors.distance > middle)
        for label in range(count):
            rows = near & (errors.label == label)
            if rows.sum() < FEWEST:  # use all errors of the class, or of the range, or all errors
                choices = (errors.label == label, near, np.ones(len(errors), bool))
                rows = next(rows for rows in choices if rows.sum() >= FEWEST)
            for name, value in _spreads(errors[rows], factor[rows]).items():
                tables[name][label, column] = value
    return UncertaintyModel(
        class_names, np.array(RANGES_M), **tables, score=score, score_slope=slope
    )


def _slope(errors: Errors) -> float:
    """Return by how much log(position error / (range + 5 m)) decreases when the score increases by
    1. The value comes from a linear fit, and is limited to values between 0 and ``MAX_SLOPE``.
    """
    size = np.log(np.hypot(errors.along, errors.across) + 1e-3) - np.log(errors.distance + 5.0)
    centered = errors.score - errors.score.mean()
    slope = -(centered @ (size - size.mean())) / max(float(centered @ centered), 1e-9)
    return float(np.clip(slope, 0.0, MAX_SLOPE))


def _spreads(errors: Errors, factor: np.ndarray) -> dict[str, float]:
    along, across = _robust(errors.along / factor), _robust(errors.across / factor)
    squared = ((errors.along / along) ** 2 + (errors.across / across) ** 2) / factor**2
    scale = np.sqrt(_bound(squared) / CHI2_2)
    known = np.isfinite(errors.vx)
    speed_squared = ((errors.vx**2 + errors.vy**2) / factor**2)[known]
    speed_squared = speed_squared if len(speed_squared) else np.ones(1)
    return {
        'along': along * scale,
        'across': across * scale,
        'height': _scaled(errors.height / factor),
        'yaw': _scaled(errors.yaw / factor),
        'velocity': max(float(np.sqrt(np.quantile(speed_squared, COVERED) / CHI2_2)), 0.05),
    }


def _robust(values: np.ndarray) -> float:
    """Return an estimate of the standard deviation of ``values``, computed from the median of
    |values|, so that outliers have little effect.
    """
    return max(float(np.median(np.abs(values))) / 0.6745, 0.02)


def _scaled(values: np.ndarray) -> float:
    return max(float(np.sqrt(_bound(values**2) / CHI2_1)), 0.01)


def _bound(values: np.ndarray) -> float:
    """Return an estimate of the value below which a new value lies with probability ``COVERED``.

    The plain 95 % quantile of ``values`` would be too low. For example, on average only 93.5 % of
    new values are below the 95 % quantile of 60 values. This function therefore uses a slightly
    higher quantile.
    """
    return float(np.quantile(values, min(1.0, COVERED * (len(values) + 1) / len(values))))


@dataclass(frozen=True)
class Coverage:
    """How well the covariance fits the errors of one class and range, or all errors.

    Attributes:
        name: class; ``all``: all classes.
        distance: range, such as ``0 to 10 m``; ``all``: all ranges.
        boxes: number of errors.
        inside: share of the position errors inside the 95 % ellipse, percent.
        nees: mean normalized estimation error squared (NEES) of the position; 2 if the covariance
            is correct.
    """

    name: str
    distance: str
    boxes: int
    inside: float
    nees: float


def coverage(errors: Errors, found: Detections3D, covariance: BoxCovariance) -> Iterator[Coverage]:
    """Yield the coverage of each class in each 10 m bin up to 60 m, except bins with fewer than
    200 errors, and then the coverage of all errors.
    """
    angle = np.arctan2(found.boxes.center[:, 1], found.boxes.center[:, 0])
    cos, sin = np.cos(angle), np.sin(angle)
    error = np.stack(
        (cos * errors.along - sin * errors.across, sin * errors.along + cos * errors.across), -1
    )
    nees = np.einsum('ni,nij,nj->n', error, np.linalg.inv(covariance.pose[:, :2, :2]), error)

    def row(name: str, distance: str, values: np.ndarray) -> Coverage:
        inside = 100 * float(np.mean(values <= CHI2_2))
        return Coverage(name, distance, len(values), inside, float(values.mean()))

    bins = (errors.distance // TABLE_BIN_M).astype(int)
    for label, name in enumerate(found.class_names):
        for place in range(6):
            values = nees[(errors.label == label) & (bins == place)]
            if len(values) >= FEWEST_SHOWN:
                yield row(name, f'{place * 10} to {place * 10 + 10} m', values)
    yield row('all', 'all', nees)


def coverage_table(errors: Errors, found: Detections3D, covariance: BoxCovariance) -> str:
    """Return ``coverage`` as a Markdown table."""
    lines = [
        '| class | range | boxes | inside 95 % | NEES |',
        '| --- | --- | ---: | ---: | ---: |',
    ]
    lines += [
        f'| {one.name} | {one.distance} | {one.boxes} | {one.inside:.1f} % | {one.nees:.2f} |'
        for one in coverage(errors, found, covariance)
    ]
    return '\n'.join(lines)


def store(path: Path, model: UncertaintyModel, origin: str) -> None:
    """Add ``model`` to the metadata of a ``.safetensors`` file, and ``origin``, a text that
    describes the data to which the model was fitted. The weights do not change.
    """
    with safe_open(path, 'numpy') as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = {**(file.metadata() or {}), **model.to_metadata(), ORIGIN_KEY: origin}
    write_atomically(path, lambda target: save_file(tensors, target, metadata))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    options = _options(arguments)
    try:
        print(run(options))
    except (ValueError, OSError) as error:
        sys.exit(f'fit_uncertainty: {error}')


def run(options: argparse.Namespace) -> str:
    """Fit the covariance, or check it with ``--check``, and return the text to print.

    Raises:
        ValueError: checkpoint, results or dataset are invalid, or there are too few matched
            detections.
    """
    path = options.checkpoint
    if path.suffix != '.safetensors':
        raise ValueError(
            f'{path} is not a .safetensors file, but the fit is stored in the metadata of such a '
            'file: convert the checkpoint to .safetensors first'
        )
    network = load_checkpoint(path)
    index = load_index(options.root, options.version, options.split, options.cache_dir)
    results = json.loads(options.results.read_text())['results']
    found, truth, _ = matched(results, index)
    errors = errors_of(found, truth)
    if options.check:
        model = UncertaintyModel.from_metadata(network.metadata, network.config.class_names)
    else:
        model = fit(errors, network.config.class_names)
        samples = f'{len(index)} samples of {options.version} {options.split}'
        store(path, model, f'{len(errors)} boxes in {samples}, folder {options.root.name}')
    name = 'default' if model is None else 'fitted'
    return f'{name} covariance\n\n{coverage_table(errors, found, covariance_of(found, model))}'


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'training/fit_uncertainty.py',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        'checkpoint',
        type=Path,
        help='.safetensors file, whose metadata the fit changes',
    )
    parser.add_argument('results', type=Path, help='results.json of training/evaluate.py')
    parser.add_argument('--root', type=Path, required=True, help='folder of the dataset')
    parser.add_argument(
        '--version', default='v1.0-trainval', help='folder of the tables (default %(default)s)'
    )
    parser.add_argument(
        '--split', required=True, help='split on which the results were computed, such as val'
    )
    parser.add_argument('--cache-dir', type=Path, help='folder of the cached index')
    parser.add_argument('--check', action='store_true', help='print the coverage without a fit')
    return parser.parse_args(arguments)


if __name__ == '__main__':
    main()
