"""Filters the published objects by class, score and position, and renames their classes."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bevdepth_core.tracking import Tracks3D
from bevdepth_core.types import Detections3D
from bevdepth_ros.detections.region import inside


@dataclass(frozen=True)
class Selection:
    """The filters of the outputs. All topics use the same filters.

    Attributes:
        names: the published name of each class of the detector.
        thresholds: (classes,) score thresholds. An object is published if its score is higher than
            the threshold of its class. The threshold of a class that is not published is infinite.
        max_range_m: an object is published if the horizontal distance of its center from the
            origin of the base frame is at most this distance, meters; 0 means no limit.
        region: (k, 2) corners of a polygon in the base frame, meters. An object is published if
            its center is inside this polygon. None means no limit.
        min_age_s: a track is published if its first detection is at least this old, seconds.
    """

    names: tuple[str, ...]
    thresholds: np.ndarray
    max_range_m: float = 0.0
    region: np.ndarray | None = None
    min_age_s: float = 0.0

    def keeps(self, objects: Detections3D | Tracks3D) -> np.ndarray:
        """Return a (n,) mask that is True for the objects that pass the filters of class, score
        and position. The boxes must be in the base frame.
        """
        center = objects.boxes.center[:, :2]
        keep = objects.scores > self.thresholds[objects.labels]
        if self.max_range_m:
            keep &= np.hypot(center[:, 0], center[:, 1]) <= self.max_range_m
        if self.region is not None:
            keep &= inside(center, self.region)
        return keep

    def detections(self, detections: Detections3D, keep: np.ndarray) -> Detections3D:
        """Return the detections for which the mask ``keep`` (see ``keeps``) is True, with their
        published class names.
        """
        kept = detections if keep.all() else detections[keep]
        return kept if kept.class_names == self.names else replace(kept, class_names=self.names)

    def tracks(self, tracks: Tracks3D, kept_detections: np.ndarray) -> Tracks3D:
        """Return the tracks to publish. The indices of their detections refer to the published
        detections.

        Args:
            tracks: all tracks, in the base frame.
            kept_detections: mask, over the detections of the same image set, that is True for the
                published detections.
        """
        tracks = tracks[self.keeps(tracks) & (tracks.age_s >= self.min_age_s)]
        # The last row is for tracks without a detection, whose index is -1.
        rows = np.append(np.where(kept_detections, np.cumsum(kept_detections) - 1, -1), -1)
        return replace(tracks, class_names=self.names, detections=rows[tracks.detections])


def class_thresholds(
    class_names: Sequence[str],
    score_threshold: float,
    class_values: dict[str, float],
    published: Sequence[str],
) -> np.ndarray:
    """Return ``Selection.thresholds``.

    Args:
        class_names: classes of the detector.
        score_threshold: threshold of the classes that ``class_values`` does not contain.
        class_values: thresholds by class.
        published: the published classes; if empty, all classes are published.
    """
    return np.array(
        [
            class_values.get(name, score_threshold)
            if not published or name in published
            else np.inf
            for name in class_names
        ]
    )


def parse_thresholds(
    entries: Sequence[str], class_names: Sequence[str] | None = None
) -> dict[str, float]:
    """Parse entries such as ``pedestrian=0.2``, and return the thresholds by class.

    Raises:
        ValueError: an entry is invalid; the message names the entry and the remedy.
    """
    name = 'class_score_thresholds'
    thresholds = {}
    for class_name, text in _pairs(name, entries, class_names, 'pedestrian=0.2'):
        try:
            thresholds[class_name] = float(text)
        except ValueError:
            thresholds[class_name] = np.nan
        if not 0 <= thresholds[class_name] <= 1:
            raise ValueError(
                f'{name}: the threshold of {class_name} must lie in 0 to 1, got {text!r}'
            )
    return thresholds


def parse_name_map(
    entries: Sequence[str], class_names: Sequence[str] | None = None
) -> dict[str, str]:
    """Parse entries such as ``car=CAR``, and return the published names by class.

    Raises:
        ValueError: an entry is invalid; the message names the entry and the remedy.
    """
    return dict(_pairs('class_name_map', entries, class_names, 'car=CAR'))


def parse_classes(
    entries: Sequence[str], class_names: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Return the classes in ``entries``. A single empty entry gives an empty tuple, which selects
    all classes.

    Raises:
        ValueError: a class is unknown; the message names the class and the known classes.
    """
    return tuple(_known('classes', entry.strip(), class_names) for entry in _filled(entries))


def _pairs(
    parameter: str, entries: Sequence[str], class_names: Sequence[str] | None, example: str
) -> list[tuple[str, str]]:
    pairs: dict[str, str] = {}
    for entry in _filled(entries):
        key, separator, value = (part.strip() for part in entry.partition('='))
        if not (key and separator and value):
            raise ValueError(f'{parameter}: write an entry like {example}, got {entry!r}')
        if key in pairs:
            raise ValueError(f'{parameter}: class {key} occurs twice')
        pairs[_known(parameter, key, class_names)] = value
    return list(pairs.items())


def _filled(entries: Sequence[str]) -> Sequence[str]:
    """Return ``entries``, or an empty tuple for ['']. In parameters, [''] stands for an empty
    list, because ROS cannot represent an empty list of strings.
    """
    return () if list(entries) == [''] else entries


def _known(parameter: str, name: str, class_names: Sequence[str] | None) -> str:
    if class_names is None or name in class_names:
        return name
    nearest = difflib.get_close_matches(name.lower(), class_names, 1)
    hint = f'; did you mean {nearest[0]}?' if nearest else ''
    raise ValueError(
        f'{parameter}: the detector has no class {name!r}, only {", ".join(class_names)}{hint}'
    )
