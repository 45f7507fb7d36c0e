"""Computes the covariance of detected boxes.

Errors are described along and across the line of sight. The errors of a camera are largest along
the line of sight.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bevdepth_core.types import Detections3D

ALONG_M, ALONG_PER_M = 0.3, 0.035
"""Default standard deviation of the position along the line of sight: a constant in meters, and an
increase per meter of range. The constants below have the same meaning for the position across the
line of sight and for the height. The standard deviations of yaw and velocity do not depend
on the range."""
ACROSS_M, ACROSS_PER_M = 0.2, 0.010
HEIGHT_M, HEIGHT_PER_M = 0.15, 0.006
YAW_RAD = 0.3
VELOCITY_MPS = 1.5
NEAREST_M = 1.0
"""Smallest range for the default standard deviations, meters; this range replaces smaller
ranges."""
METADATA_KEY = 'uncertainty'
"""Key of the fitted uncertainty model in the metadata of a checkpoint."""


@dataclass(frozen=True)
class BoxCovariance:
    """Covariance of n boxes in the coordinate frame of the boxes.

    Attributes:
        pose: (n, 4, 4) float64 covariance of x, y, z (m) and yaw (rad).
        velocity: (n, 2, 2) float64 covariance of the velocity, (m/s)^2.
    """

    pose: np.ndarray
    velocity: np.ndarray

    def __getitem__(self, index: slice | np.ndarray) -> BoxCovariance:
        """Return the selected covariances; ``index`` is a slice, a mask or an index array."""
        return BoxCovariance(self.pose[index], self.velocity[index])


def default_covariance(detections: Detections3D) -> BoxCovariance:
    """Return a covariance for checkpoints without a fitted model."""
    count = len(detections)
    center = detections.boxes.center.astype(np.float64)
    distance = np.maximum(np.hypot(center[:, 0], center[:, 1]), NEAREST_M)
    pose = np.zeros((count, 4, 4))
    pose[:, :2, :2] = oriented_covariance(
        np.arctan2(center[:, 1], center[:, 0]),
        ALONG_M + ALONG_PER_M * distance,
        ACROSS_M + ACROSS_PER_M * distance,
    )
    pose[:, 2, 2] = (HEIGHT_M + HEIGHT_PER_M * distance) ** 2
    pose[:, 3, 3] = YAW_RAD**2
    velocity = np.broadcast_to(VELOCITY_MPS**2 * np.eye(2), (count, 2, 2)).copy()
    return BoxCovariance(pose, velocity)


def oriented_covariance(angle: np.ndarray, along: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Return (n, 2, 2) covariances with a principal axis in the direction ``angle``.

    Args:
        angle: (n,) direction of the first axis, radians about +z, 0 along +x.
        along: (n,) standard deviation along the first axis.
        across: (n,) standard deviation across the first axis.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = along**2, across**2
    result = np.empty((len(angle), 2, 2))
    result[:, 0, 0] = cos * cos * first + sin * sin * second
    result[:, 1, 1] = sin * sin * first + cos * cos * second
    result[:, 0, 1] = result[:, 1, 0] = cos * sin * (first - second)
    return result


@dataclass(frozen=True)
class UncertaintyModel:
    """Standard deviations fitted to the errors of one checkpoint.

    Each array for which no shape is given below has the shape (classes, ranges). A box uses the
    values of its class at the range that is nearest to its distance.

    Attributes:
        class_names: class of each row of the arrays.
        ranges: (ranges,) range of each column of the arrays, meters, increasing.
        along: standard deviation of the position along the line of sight, meters.
        across: standard deviation of the position across the line of sight, meters.
        height: standard deviation of z, meters.
        yaw: standard deviation of the heading, radians.
        velocity: standard deviation of each component of the velocity, m/s.
        score: (classes,) reference score. For a box with this score, the values apply unchanged.
        score_slope: (classes,) for a box with another score, the values are multiplied by
            exp(score_slope * (score - score of the box)).
    """

    class_names: tuple[str, ...]
    ranges: np.ndarray
    along: np.ndarray
    across: np.ndarray
    height: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray
    score: np.ndarray
    score_slope: np.ndarray

    def __post_init__(self) -> None:
        count, ranges = len(self.class_names), len(self.ranges)
        if not ranges or (np.diff(self.ranges) <= 0).any():
            raise ValueError('the values of ranges must increase from one value to the next')
        for name in SPREADS:
            values = getattr(self, name)
            if values.shape != (count, ranges) or not (values > 0).all():
                raise ValueError(f'{name} must be positive and have shape {(count, ranges)}')
        for name in ('score', 'score_slope'):
            if getattr(self, name).shape != (count,) or not np.isfinite(getattr(self, name)).all():
                raise ValueError(f'{name} must be finite and have shape {(count,)}')

    @classmethod
    def from_metadata(
        cls, metadata: Mapping[str, str], class_names: tuple[str, ...]
    ) -> UncertaintyModel | None:
        """Return the model in the metadata of a checkpoint; None if there is no model.

        Raises:
            ValueError: the model is damaged, or was fitted for classes other than
                ``class_names``.
        """
        if METADATA_KEY not in metadata:
            return None
        try:
            values = json.loads(metadata[METADATA_KEY])
            names = tuple(values.pop('class_names'))
            model = cls(names, **{name: np.array(value, float) for name, value in values.items()})
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise ValueError(
                f'the uncertainty model of the checkpoint is damaged: {error}'
            ) from error
        if names != tuple(class_names):
            raise ValueError(
                f'the classes of the network are {", ".join(class_names)}, but the uncertainty '
                'model of the checkpoint was fitted for other classes: fit the uncertainty '
                'model again (docs/TRACKING.md)'
            )
        return model

    def to_metadata(self) -> dict[str, str]:
        """Return the entry for the metadata of a checkpoint."""
        values = {name: np.round(getattr(self, name), 5).tolist() for name in _ARRAYS}
        return {METADATA_KEY: json.dumps({'class_names': self.class_names, **values})}

    def covariance(self, detections: Detections3D) -> BoxCovariance:
        """Return the covariance of ``detections``, which must have the classes of the model."""
        center = detections.boxes.center.astype(np.float64)
        spread = self.spreads(detections)
        pose = np.zeros((len(detections), 4, 4))
        pose[:, :2, :2] = oriented_covariance(
            np.arctan2(center[:, 1], center[:, 0]), spread['along'], spread['across']
        )
        pose[:, 2, 2] = spread['height'] ** 2
        pose[:, 3, 3] = spread['yaw'] ** 2
        return BoxCovariance(pose, (spread['velocity'] ** 2)[:, None, None] * np.eye(2))

    def spreads(self, detections: Detections3D) -> dict[str, np.ndarray]:
        """Return the (n,) standard deviations by name."""
        labels = detections.labels
        distance = np.hypot(detections.boxes.center[:, 0], detections.boxes.center[:, 1])
        borders = (self.ranges[1:] + self.ranges[:-1]) / 2
        nearest = np.searchsorted(borders, distance)
        factor = np.exp(self.score_slope[labels] * (self.score[labels] - detections.scores))
        return {name: factor * getattr(self, name)[labels, nearest] for name in SPREADS}


def covariance_of(detections: Detections3D, model: UncertaintyModel | None) -> BoxCovariance:
    """Return the covariance from ``model``, or the default covariance if ``model`` is None."""
    return default_covariance(detections) if model is None else model.covariance(detections)


SPREADS = ('along', 'across', 'height', 'yaw', 'velocity')
_ARRAYS = ('ranges', *SPREADS, 'score', 'score_slope')
