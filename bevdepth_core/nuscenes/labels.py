"""Converts annotation categories to labels of a class list, and counts excluded annotations."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.nuscenes.channels import Channels
from bevdepth_core.nuscenes.classes import CAMERAS, ClassMap
from bevdepth_core.nuscenes.columns import (
    PER_ANNOTATION,
    UNKNOWN_POINTS,
    VECTORS,
    Columns,
    InvalidAnnotationError,
)
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.nuscenes.view import in_view

LENGTH_TOLERANCE = 0.01
"""Largest accepted deviation of a quaternion's length from 1."""


@dataclass(frozen=True)
class LabeledColumns:
    """Columns that contain only the annotations whose category has a class.

    Attributes:
        columns: the columns of ``scene_columns``, and two more columns per annotation: ``label``
            (int64) and ``seen`` (bool, True if the annotation is ground truth).
        excluded_categories: for each category without a class, the number of its annotations.
        out_of_view: number of annotations that are not ground truth because no camera sees them.
        is_official: True if every annotation has the same class and point count in the nuScenes
            devkit, and ``out_of_view`` is 0.
    """

    columns: Columns
    excluded_categories: dict[str, int]
    out_of_view: int
    is_official: bool


def with_labels(
    columns: Columns, classes: ClassMap, channels: Channels, min_points: int, tables: Path
) -> LabeledColumns:
    """Return the annotations that belong to a class, with their labels.

    An annotation that no camera sees is not ground truth, because a network cannot detect the
    object. This rule is not applied to datasets with the six cameras of nuScenes, as in the
    official code.

    Args:
        columns: columns of any number of scenes.
        classes: the class list.
        channels: the sensors of the columns.
        min_points: see ``Selection``.
        tables: folder of the tables, for messages.

    Raises:
        InvalidAnnotationError: an annotation that has a class and enough points (or an unknown
            number of points) has an impossible size, position or rotation.
    """
    names, of_annotation, counts = np.unique(
        columns['category'], return_inverse=True, return_counts=True
    )
    categories = [name.decode() for name in names]
    labels = [classes.label(category) for category in categories]
    label = np.array([-1 if each is None else each for each in labels], np.int64)[of_annotation]
    points = columns['points']
    measured = (label >= 0) & ((points == UNKNOWN_POINTS) | (points >= min_points))
    _require_valid(columns, measured, tables)
    cameras = channels.cameras
    seen = measured if set(CAMERAS) <= set(cameras) else in_view(columns, len(cameras), measured)
    out_of_view = int((measured & ~seen).sum())
    return LabeledColumns(
        _only_labeled(columns | {'label': label, 'seen': seen}),
        {
            category: int(count)
            for category, each, count in zip(categories, labels, counts, strict=True)
            if each is None
        },
        out_of_view,
        set(classes.class_names) == set(NUSCENES_CLASSES)
        and all(map(classes.is_official, categories))
        and not (points == UNKNOWN_POINTS).any()
        and not out_of_view,
    )


def _only_labeled(columns: Columns) -> Columns:
    keep, samples = columns['label'] >= 0, len(columns['token'])
    sample = np.repeat(np.arange(samples), columns['annotations'])
    per_annotation = (*PER_ANNOTATION, 'label', 'seen')
    return (
        columns
        | {name: columns[name][keep] for name in per_annotation}
        | {'annotations': np.bincount(sample[keep], minlength=samples)}
    )


def _require_valid(columns: Columns, used: np.ndarray, tables: Path) -> None:
    """Raise InvalidAnnotationError for the first annotation in the mask ``used`` that has
    impossible numbers.
    """
    length = np.linalg.norm(columns['quaternion'], axis=1)
    valid = (
        np.isfinite(columns['center']).all(axis=1)
        & (np.isfinite(columns['size']) & (columns['size'] > 0)).all(axis=1)
        & (np.abs(length - 1) <= LENGTH_TOLERANCE)
    )
    invalid = np.flatnonzero(used & ~valid)
    if len(invalid):
        raise InvalidAnnotationError(_description(columns, int(invalid[0]), tables))


def _description(columns: Columns, row: int, tables: Path) -> str:
    first = np.concatenate(([0], np.cumsum(columns['annotations'])))
    position = int(np.searchsorted(first, row, side='right')) - 1
    sample = columns['token'][position].decode()
    # The columns do not contain the tokens of annotations.
    devkit = open_devkit(tables.parent, tables.name)
    token = devkit.get('sample', sample)['anns'][row - first[position]]
    values = ', '.join(
        f'{name} {columns[column][row].tolist()}' for column, (name, _) in VECTORS.items()
    )
    return (
        f'annotation {token} of sample {sample} in {tables} is invalid: {values}; numbers must be '
        'finite, sizes positive and rotations unit quaternions: correct or remove this annotation'
    )
