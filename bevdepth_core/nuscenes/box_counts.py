"""Counts the used boxes of a dataset per class, and the excluded boxes per reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bevdepth_core.config import BEVGrid
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.records import SampleRecord

MAX_NAMED = 10
"""Largest number of categories that a summary lists."""


@dataclass(frozen=True)
class BoxCounts:
    """Numbers of boxes in an index.

    Attributes:
        used: for each class, the number of its ground-truth boxes.
        categories: for each category without a class, the number of its boxes, which are excluded.
        without_points: boxes that are excluded because too few lidar and radar points lie inside.
        out_of_view: boxes that are excluded because no camera sees them.
        outside: boxes that are excluded because their center lies outside the BEV grid.
        unknown_points: used boxes whose number of points is unknown.
    """

    used: Mapping[str, int]
    categories: Mapping[str, int]
    without_points: int
    out_of_view: int
    outside: int
    unknown_points: int

    @property
    def total(self) -> int:
        """Number of all boxes, used and excluded."""
        excluded = self.without_points + self.out_of_view + self.outside
        return sum(self.used.values()) + sum(self.categories.values()) + excluded

    def summary(self) -> str:
        """Return the counts as text for users."""
        used = ', '.join(f'{name} {count:,}' for name, count in self.used.items())
        parts = [f'{sum(self.used.values()):,} of {self.total:,} boxes are used ({used})']
        excluded = {
            f'of categories without a class ({_named(self.categories)})': sum(
                self.categories.values()
            ),
            'with too few lidar and radar points': self.without_points,
            'that no camera sees': self.out_of_view,
            'with the center outside the BEV grid': self.outside,
        }
        parts += [f'{count:,} {reason}' for reason, count in excluded.items() if count]
        text = '; excluded: '.join([parts[0], ', '.join(parts[1:])]) if parts[1:] else parts[0]
        note = f'; {self.unknown_points:,} used boxes have no point count'
        return text + (note if self.unknown_points else '')

    def require_boxes(self, dataset: str) -> None:
        """Raise ValueError if no box is used. The message contains the remedy.

        Args:
            dataset: name of the dataset in the message.
        """
        if sum(self.used.values()):
            return
        if not self.total:
            raise ValueError(
                f'{dataset} has no annotations: add annotations, or choose another split; without '
                'annotations, only depth can be trained (model.objective depth)'
            )
        raise ValueError(
            f'{dataset} has no usable boxes: {self.summary()}. Map the categories to classes with '
            'data.categories; if the tables contain no true point counts, set data.min_points to 0'
        )


def _named(categories: Mapping[str, int]) -> str:
    largest = sorted(categories.items(), key=lambda item: -item[1])
    names = [f'{name} {count:,}' for name, count in largest[:MAX_NAMED]]
    return ', '.join(names + ['...'] * (len(largest) > MAX_NAMED))


def count_boxes(index: SampleIndex, grid: BEVGrid | None = None) -> BoxCounts:
    """Return how many boxes of ``index`` are used.

    Args:
        index: the samples.
        grid: boxes whose center lies outside of this grid are excluded; None excludes no box.
    """
    used = np.zeros(len(index.class_names), np.int64)
    without_points = outside = unknown = 0
    for record in index:
        annotations = record.annotations
        seen = annotations.seen
        inside = seen & (grid is None or in_grid(_centers_in_ego(record), grid))
        used += np.bincount(annotations.label[inside], minlength=len(used))
        without_points += int((~seen).sum())
        outside += int((seen & ~inside).sum())
        unknown += int((annotations.points[inside] < 0).sum())
    per_class = dict(zip(index.class_names, used.tolist(), strict=True))
    return BoxCounts(
        per_class,
        index.excluded_categories,
        without_points - index.out_of_view,
        index.out_of_view,
        outside,
        unknown,
    )


def _centers_in_ego(record: SampleRecord) -> np.ndarray:
    ego_from_world = invert_rigid(record.world_from_ego().matrix())
    return record.annotations.center @ ego_from_world[:3, :3].T + ego_from_world[:3, 3]


def in_grid(center: np.ndarray, grid: BEVGrid) -> np.ndarray:
    """Return a (n,) mask of the boxes that training targets contain.

    Args:
        center: (n, 3) centers of the boxes in the ego frame, meters.
        grid: the BEV grid. Centers up to one cell below the lower edge of the grid are included,
            as in the targets.
    """
    position = (center[:, :2] - np.array(grid.lower[:2])) / np.array(grid.cell[:2])
    return ((position > -1) & (position < np.array(grid.shape[:2]))).all(axis=1)
