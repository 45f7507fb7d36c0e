"""Tracks detected objects in the world frame.

A track is in one of these states:

* tentative: it is not published, because it may come from a false detection. It begins when a
  detection matches no track, is no duplicate, and has a score of at least `birth_score`. It is
  confirmed by `min_hits` detections, or by one detection with a score of at least
  `instant_score`. It ends after `tentative_s` without a detection.
* confirmed: it has a detection in the current frame and is published. If the next frame has no
  detection for it, it becomes coasting.
* coasting: it is published with its predicted pose. If a detection matches it, it becomes
  confirmed. After `coast_s` without a detection, it becomes kept.
* kept: it is predicted, but not published. If a detection matches it, it becomes confirmed. After
  `keep_s` without a detection, it ends.
* ended: it is deleted, and its id is never used again. A stamp before the last stamp, a gap
  of more than `gap_s` between two stamps, changed class names, and `reset` end all tracks.

Confirmed, coasting and kept tracks have ``is_confirmed`` in the code. They never become tentative
again.

For each frame, `Tracker.update` does these steps:

1. Predict: the Kalman filter moves all tracks to the stamp of the frame.
2. Match: pairs of a track and a detection are selected. Each track and each detection is in at
   most one pair.
3. Correct: the detections of the pairs correct their tracks.
4. Start: new tracks begin with detections that fulfill the condition for tentative tracks.
5. Publish: the confirmed and coasting tracks are returned.

The number of tracks is not limited, and does not influence the times above.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np

from bevdepth_core.tracking import kalman
from bevdepth_core.tracking.association import match_greedily, pairs_within, without_duplicates
from bevdepth_core.tracking.config import ClassMotion, TrackerConfig
from bevdepth_core.tracking.kalman import POSITION, VELOCITY
from bevdepth_core.tracking.tracks import Tracks3D
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import BoxCovariance, default_covariance

SHAPE_MEMORY = 10
"""The z coordinate and the size of a track are means over about this many detections."""
SCORE_MEMORY_S = 0.5
"""The score of a track is a mean over about this time. The mean is over seconds and not over
detections, so that the score does not depend on the image rate."""
COMMON_ERROR = 0.4
"""Share of the variance of a position that successive detections have in common. The filter treats
the errors of successive detections as independent. With each detection, the covariance of the
filter therefore becomes smaller, although the common error does not. So the tracker adds the
variance of the common error to the published covariance."""
YAW_DRIFT = 0.3
"""Standard deviation of the unknown turn rate of an object, rad/s. A prediction over t seconds
adds (``YAW_DRIFT`` * t)^2 to the variance of a heading."""
LEAST_SCORE = 1e-3
"""Lower limit of the score in the cost of a match, because the logarithm of 0 is not finite."""


@dataclass
class _Table:
    """All tracks that have not ended, in the world frame. The last axis of every array is the
    track.

    Attributes:
        id: ids of the tracks.
        label: indices into the class names.
        mean: (4, n) state of the Kalman filter, see ``kalman``.
        covariance: (4, 4, n) covariance of the state.
        common: (2, 2, n) covariance of the common error of the positions, see ``COMMON_ERROR``. It
            is 0 before the second detection, because the covariance of the state then still
            contains the complete error of the first detection.
        shape: (4, n) z, length, width and height.
        z_variance: variances of z.
        yaw: headings.
        yaw_variance: variances of the headings.
        facing: see ``_correct_yaw``.
        score: mean scores, see ``SCORE_MEMORY_S``.
        hits: numbers of detections.
        is_confirmed: whether each track has been confirmed, now or before.
        born_ns: stamps of the first detections.
        seen_ns: stamps of the last detections.
        detection: indices of the matched detections of the current frame, -1 if there is none.
    """

    id: np.ndarray
    label: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    common: np.ndarray
    shape: np.ndarray
    z_variance: np.ndarray
    yaw: np.ndarray
    yaw_variance: np.ndarray
    facing: np.ndarray
    score: np.ndarray
    hits: np.ndarray
    is_confirmed: np.ndarray
    born_ns: np.ndarray
    seen_ns: np.ndarray
    detection: np.ndarray

    def select(self, index: np.ndarray) -> _Table:
        return _Table(*(column.take(index, -1) for column in vars(self).values()))

    def extended(self, other: _Table) -> _Table:
        """Return these tracks, followed by the tracks of ``other``."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Table(*(np.concatenate(pair, axis=-1) for pair in pairs))


@dataclass(frozen=True)
class _Measured:
    """Detections of one frame in the world frame. The last axis of every array is the detection;
    the detection with the best score comes first. ``shape`` is (4, n): z, length, width and
    height. ``velocity`` is None if the velocities of the detections are not measured.
    """

    position: np.ndarray
    position_covariance: np.ndarray
    velocity: np.ndarray | None
    velocity_covariance: np.ndarray
    shape: np.ndarray
    z_variance: np.ndarray
    yaw: np.ndarray
    yaw_variance: np.ndarray
    score: np.ndarray
    label: np.ndarray

    def select(self, index: np.ndarray) -> _Measured:
        known = {name: column for name, column in vars(self).items() if column is not None}
        return replace(self, **{name: column.take(index, -1) for name, column in known.items()})

    def filtered(
        self, mean: np.ndarray, covariance: np.ndarray, is_seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the covariance of n tracks after the measurements in this object,
        which belong to the same n tracks. Tracks that are not marked in ``is_seen`` keep their
        values.
        """
        mean, covariance = kalman.update(
            mean, covariance, POSITION, self.position, self.position_covariance, is_seen
        )
        if self.velocity is None:
            return mean, covariance
        return kalman.update(
            mean, covariance, VELOCITY, self.velocity, self.velocity_covariance, is_seen
        )


class Tracker:
    """Tracks detections from frame to frame. Its results are deterministic. Only one thread may
    use a tracker.

    Args:
        config: settings; None: the defaults.
    """

    def __init__(self, config: TrackerConfig | None = None) -> None:
        self.config = config or TrackerConfig()
        self._next_id = 1
        self._tracks: _Table | None = None
        self._stamp_ns = 0
        self._class_names: tuple[str, ...] = ()
        self._motion: dict[str, np.ndarray] = {}

    def reset(self) -> None:
        """End all tracks."""
        self._tracks = None

    def move(self, new_world_from_world: np.ndarray) -> None:
        """Move all tracks to a new world frame, after the localization jumped.

        Args:
            new_world_from_world: (4, 4) rigid transform from the world frame before the jump to
                the world frame after the jump.
        """
        if self._tracks is None:
            return
        tracks, turn = self._tracks, new_world_from_world[:2, :2]
        points = np.vstack((tracks.mean[POSITION], tracks.shape[0], np.ones(len(tracks.id))))
        moved = new_world_from_world @ points
        tracks.mean = np.vstack((moved[:2], turn @ tracks.mean[VELOCITY]))
        both = np.kron(np.eye(2), turn)
        tracks.covariance = kalman.transformed(tracks.covariance, both)
        tracks.common = kalman.transformed(tracks.common, turn)
        tracks.shape[0] = moved[2]
        tracks.yaw = _wrapped(tracks.yaw + _yaw_of(new_world_from_world))

    def update(
        self,
        detections: Detections3D,
        world_from_ego: np.ndarray,
        covariance: BoxCovariance | None = None,
    ) -> Tracks3D:
        """Update the tracks with ``detections``, and return the confirmed and coasting tracks.

        Args:
            detections: boxes in the ego frame, best score first.
            world_from_ego: (4, 4) rigid, the ego pose at ``detections.stamp_ns``.
            covariance: covariance of the boxes; None: a default that grows with the range.
        """
        measured = _in_world(
            detections, world_from_ego, covariance or default_covariance(detections)
        )
        self._predict(detections)
        tracks = (
            self._tracks if self._tracks is not None else self._born(measured, np.empty(0, int))
        )
        own, found = self._match(tracks, measured)
        tracks.detection[own] = found
        self._correct(tracks, own, measured, found)
        new = self._new(measured, found)
        if len(new):
            tracks = tracks.extended(self._born(measured, new))
        self._tracks = tracks
        return self._published(tracks, world_from_ego)

    def _predict(self, detections: Detections3D) -> None:
        """Predict the tracks at the stamp of ``detections``, and delete tracks that have been
        without a detection for too long. End all tracks if the stamp is before the last stamp, if
        it is more than ``gap_s`` after the last stamp, or if the class names changed.
        """
        last_ns, self._stamp_ns = self._stamp_ns, detections.stamp_ns
        names, self._class_names = self._class_names, detections.class_names
        self._motion = _motion_table(self.config, self._class_names)
        if self._tracks is None:
            return
        seconds = (detections.stamp_ns - last_ns) * 1e-9
        if not 0 <= seconds <= self.config.gap_s or names != detections.class_names:
            self._tracks = None
            return
        is_alive = self._is_alive(self._tracks)
        tracks = self._tracks if is_alive.all() else self._tracks.select(np.flatnonzero(is_alive))
        self._tracks = tracks
        acceleration = self._motion['acceleration'][tracks.label]
        tracks.mean, tracks.covariance = kalman.predict(
            tracks.mean, tracks.covariance, seconds, acceleration
        )
        tracks.yaw_variance = tracks.yaw_variance + (YAW_DRIFT * seconds) ** 2
        tracks.detection = np.full(len(tracks.id), -1)

    def _match(self, tracks: _Table, measured: _Measured) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the matched tracks in ``tracks``, and for each of these tracks the
        index of its detection in ``measured``.

        Pairs are considered if they have the same class, are at most ``gate_m`` apart, and have a
        squared Mahalanobis distance of at most ``gate``. It is the distance of the positions plus,
        if velocities are measured, the distance of the velocities. A pair costs less if this
        distance is smaller, if the covariance of the positions is smaller, and if the score of the
        detection is higher.
        """
        own, found = pairs_within(
            tracks.mean[POSITION],
            tracks.label,
            measured.position,
            measured.label,
            self._motion['gate_m'][tracks.label],
        )
        state = tracks.mean.take(own, -1)
        difference = measured.position.take(found, -1) - state[POSITION]
        spread = tracks.covariance[POSITION, POSITION].take(own, -1)
        spread += measured.position_covariance.take(found, -1)
        distance = kalman.mahalanobis_squared(difference, spread)
        if measured.velocity is not None:
            difference = measured.velocity.take(found, -1) - state[VELOCITY]
            velocity_spread = tracks.covariance[VELOCITY, VELOCITY].take(own, -1)
            velocity_spread += measured.velocity_covariance.take(found, -1)
            distance = distance + kalman.mahalanobis_squared(difference, velocity_spread)
        inside = np.flatnonzero(distance <= self.config.gate)
        own, found = own[inside], found[inside]
        # -2 log likelihood, without constants and without the determinant of the velocity
        deviance = distance[inside] + kalman.log_determinant(spread.take(inside, -1))
        cost = deviance - 2 * np.log(np.maximum(measured.score[found], LEAST_SCORE))
        return match_greedily(own, found, cost)

    def _correct(
        self, tracks: _Table, own: np.ndarray, measured: _Measured, found: np.ndarray
    ) -> None:
        """Correct the matched tracks with their detections; all other tracks keep their values.

        Args:
            tracks: all tracks.
            own: indices of the matched tracks.
            measured: all detections.
            found: index of the detection of each matched track.
        """
        if not len(own):
            return
        # All arrays below have one column per track. Tracks without a match get the values of
        # detection 0, which ``is_matched`` then excludes.
        is_matched, rows = np.zeros(len(tracks.id), bool), np.zeros(len(tracks.id), np.int64)
        is_matched[own], rows[own] = True, found
        seen = measured.select(rows)
        tracks.mean, tracks.covariance = seen.filtered(tracks.mean, tracks.covariance, is_matched)
        common = COMMON_ERROR * seen.position_covariance
        tracks.common = np.where(is_matched, common, tracks.common)
        _correct_yaw(tracks, seen, is_matched)
        tracks.hits += is_matched
        weight = is_matched / np.minimum(tracks.hits, SHAPE_MEMORY)
        tracks.shape += weight * (seen.shape - tracks.shape)
        tracks.z_variance = np.where(is_matched, seen.z_variance * weight, tracks.z_variance)
        fading = 1 - np.exp(-1e-9 / SCORE_MEMORY_S * self._coasted_ns(tracks))
        weight = is_matched * np.maximum(fading, 1 / tracks.hits)
        tracks.score += weight * (seen.score - tracks.score)
        tracks.seen_ns[own] = self._stamp_ns
        is_sure = (tracks.hits >= self.config.min_hits) | (seen.score >= self.config.instant_score)
        tracks.is_confirmed |= is_matched & is_sure

    def _new(self, measured: _Measured, matched: np.ndarray) -> np.ndarray:
        """Return the indices of the detections that start a track: they match no track, have a
        score of at least ``birth_score``, and are no duplicates.

        Args:
            measured: all detections.
            matched: indices of the detections that match a track.
        """
        is_matched = np.zeros(len(measured.score), bool)
        is_matched[matched] = True
        rows = np.nonzero(~is_matched & (measured.score >= self.config.birth_score))[0]
        keep = without_duplicates(
            measured.position.take(rows, -1),
            measured.label[rows],
            self._motion['separation_m'][measured.label[rows]],
            measured.position.take(matched, -1),
            measured.label[matched],
        )
        return rows[keep]

    def _born(self, measured: _Measured, rows: np.ndarray) -> _Table:
        """Return new tracks for the detections with the indices ``rows``."""
        seen, count = measured.select(rows), len(rows)
        mean, covariance = np.zeros((4, count)), np.zeros((4, 4, count))
        mean[POSITION], covariance[POSITION, POSITION] = seen.position, seen.position_covariance
        speed = self._motion['speed'][seen.label]
        covariance[VELOCITY, VELOCITY] = np.eye(2)[..., None] * speed**2
        if seen.velocity is not None:
            mean, covariance = kalman.update(
                mean, covariance, VELOCITY, seen.velocity, seen.velocity_covariance
            )
        ids = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        return _Table(
            id=ids,
            label=seen.label,
            mean=mean,
            covariance=covariance,
            common=np.zeros((2, 2, count)),
            shape=seen.shape,
            z_variance=seen.z_variance,
            yaw=seen.yaw,
            yaw_variance=seen.yaw_variance,
            facing=np.ones(count),
            score=seen.score,
            hits=np.ones(count, np.int64),
            is_confirmed=(seen.score >= self.config.instant_score) | (self.config.min_hits == 1),
            born_ns=np.full(count, self._stamp_ns, np.int64),
            seen_ns=np.full(count, self._stamp_ns, np.int64),
            detection=rows,
        )

    def _is_alive(self, tracks: _Table) -> np.ndarray:
        """Return a mask that is False for tracks that end because their last detection is too long
        before the current stamp.
        """
        keep_ns = round(self.config.keep_s * 1e9)
        tentative_ns = round(self.config.tentative_s * 1e9)
        return self._coasted_ns(tracks) <= np.where(tracks.is_confirmed, keep_ns, tentative_ns)

    def _coasted_ns(self, tracks: _Table) -> np.ndarray:
        """Return the time from the last detection of each track to the current stamp."""
        return self._stamp_ns - tracks.seen_ns

    def _published(self, tracks: _Table, world_from_ego: np.ndarray) -> Tracks3D:
        """Return the confirmed and coasting tracks, in the ego frame."""
        is_recent = self._coasted_ns(tracks) <= round(self.config.coast_s * 1e9)
        tracks = tracks.select(np.flatnonzero(tracks.is_confirmed & is_recent))
        turn = world_from_ego[:3, :3]
        center = np.vstack((tracks.mean[POSITION], tracks.shape[0]))
        boxes = Boxes3D(
            (center.T - world_from_ego[:3, 3]) @ turn,
            tracks.shape[1:].T,
            _wrapped(tracks.yaw - _yaw_of(world_from_ego)),
            tracks.mean[VELOCITY].T @ turn[:2, :2],
        )
        flat = turn[:2, :2].T
        pose = np.zeros((4, 4, len(tracks.id)))
        position = tracks.covariance[POSITION, POSITION] + tracks.common
        pose[:2, :2] = kalman.transformed(position, flat)
        pose[2, 2], pose[3, 3] = tracks.z_variance, tracks.yaw_variance
        velocity = kalman.transformed(tracks.covariance[VELOCITY, VELOCITY], flat)
        return Tracks3D(
            boxes=boxes,
            ids=tracks.id,
            scores=tracks.score.astype(np.float32),
            labels=tracks.label,
            pose_covariance=pose.transpose(2, 0, 1),
            velocity_covariance=velocity.transpose(2, 0, 1),
            age_s=(self._stamp_ns - tracks.born_ns) * 1e-9,
            coasted_s=self._coasted_ns(tracks) * 1e-9,
            detections=tracks.detection,
            class_names=self._class_names,
            stamp_ns=self._stamp_ns,
        )


@lru_cache(maxsize=8)
def _motion_table(config: TrackerConfig, class_names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Map the name of each field of ``ClassMotion`` to its values for all classes, (classes,)."""
    motions = [config.motion_of(name) for name in class_names]
    return {
        column.name: np.array([getattr(motion, column.name) for motion in motions], np.float64)
        for column in fields(ClassMotion)
    }


def _in_world(
    detections: Detections3D, world_from_ego: np.ndarray, covariance: BoxCovariance
) -> _Measured:
    boxes, turn = detections.boxes, world_from_ego[:3, :3]
    center = turn @ boxes.center.T.astype(np.float64) + world_from_ego[:3, 3, None]
    flat, pose = turn[:2, :2], covariance.pose.transpose(1, 2, 0)
    is_measured = detections.past_stamp_ns is not None
    return _Measured(
        position=center[:2],
        position_covariance=kalman.transformed(pose[:2, :2], flat),
        velocity=flat @ boxes.velocity.T.astype(np.float64) if is_measured else None,
        velocity_covariance=kalman.transformed(covariance.velocity.transpose(1, 2, 0), flat),
        shape=np.vstack((center[2], boxes.size.T)),
        z_variance=pose[2, 2],
        yaw=_wrapped(boxes.yaw.astype(np.float64) + _yaw_of(world_from_ego)),
        yaw_variance=pose[3, 3],
        score=detections.scores.astype(np.float64),
        label=detections.labels,
    )


def _correct_yaw(tracks: _Table, seen: _Measured, is_matched: np.ndarray) -> None:
    """Correct headings. A single detection that confuses front and rear of an object does not
    reverse the heading of the track, if most earlier detections agreed with the heading.

    ``facing`` is a moving mean over the detections of the track: 1 for a detection that points
    forward, -1 for a detection that points backward, relative to the heading of the track. If this
    mean becomes negative, the heading of the track is reversed, and with it the sign of the mean.
    So ``facing`` is never negative afterwards.
    """
    difference = _wrapped(seen.yaw - tracks.yaw)
    is_reversed = np.abs(difference) > np.pi / 2
    difference = np.where(is_reversed, _wrapped(difference + np.pi), difference)
    gain = is_matched * tracks.yaw_variance / (tracks.yaw_variance + seen.yaw_variance)
    tracks.yaw_variance = (1 - gain) * tracks.yaw_variance
    direction = np.where(is_reversed, -1, 1)
    facing = tracks.facing + is_matched * (direction - tracks.facing) / 4
    turned = np.where(facing < 0, np.pi, 0.0)
    tracks.facing = np.abs(facing)
    tracks.yaw = _wrapped(tracks.yaw + gain * difference + turned)


def _yaw_of(transform: np.ndarray) -> float:
    return float(np.arctan2(transform[1, 0], transform[0, 0]))


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """Return angles in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
