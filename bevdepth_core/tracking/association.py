"""Associates detections with tracks: finds candidate pairs, selects pairs, and finds duplicates.

* Pair: a track and a detection that may be the same object. A track or a detection can be in
  several candidate pairs.
* Match: a selected pair. Each track and each detection is in at most one match.
* Duplicate: a detection that is so close to another detection of its class that both count as one
  object.
"""

from __future__ import annotations

import numpy as np

CLASS_SHIFT_M = 1e6
"""Shift per class along x, meters; much larger than the extent of the detections of one frame."""


def pairs_within(
    tracks: np.ndarray,
    track_labels: np.ndarray,
    detections: np.ndarray,
    detection_labels: np.ndarray,
    radius: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the track indices and the detection indices of all pairs of a track and a detection
    that have the same class and are at most ``radius`` apart.

    Args:
        tracks: (2, n) predicted positions, meters.
        track_labels: (n,) classes.
        detections: (2, m) positions, meters.
        detection_labels: (m,) classes.
        radius: (n,) largest distance for each track, meters.
    """
    if not len(track_labels) or not len(detection_labels):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Candidates are found along one sorted axis: x, shifted for each class so that objects of
    # different classes are never close. For each track, the detections within the radius along
    # this axis follow each other in the sorted order. ``place`` lists their places in this order,
    # track after track.
    key = tracks[0] + track_labels * CLASS_SHIFT_M
    keys = detections[0] + detection_labels * CLASS_SHIFT_M
    order = keys.argsort(kind='stable')
    keys = keys[order]
    after = keys.searchsorted(key + radius, 'right')
    count = after - keys.searchsorted(key - radius)
    track = np.arange(len(key)).repeat(count)
    place = np.arange(len(track)) + (after - count.cumsum()).repeat(count)
    detection = order[place]
    x, y = tracks.take(track, 1) - detections.take(detection, 1)
    near = np.flatnonzero(x * x + y * y <= (radius * radius).take(track))
    return track.take(near), detection.take(near)


def match_greedily(
    track: np.ndarray, detection: np.ndarray, cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the matched tracks and of their detections. Each track and each
    detection is matched at most once.

    As in CenterPoint's tracker, the matching is greedy: it always keeps the pair with the lowest
    cost. An optimal assignment may separate this pair to lower the total cost of all pairs.

    Args:
        track: (p,) index of the track of each candidate pair.
        detection: (p,) index of the detection of each candidate pair.
        cost: (p,) cost of each pair; among pairs of equal cost, the first is preferred, so that
            results are deterministic.
    """
    # A pair is alone if its track and its detection are in no other pair. It is always matched.
    is_alone = (np.bincount(track)[track] == 1) & (np.bincount(detection)[detection] == 1)
    rest = np.nonzero(~is_alone)[0]
    rest = rest[np.argsort(cost[rest], kind='stable')]
    chosen: list[int] = []
    used_tracks: set[int] = set()
    used_detections: set[int] = set()
    pairs = zip(rest.tolist(), track[rest].tolist(), detection[rest].tolist(), strict=True)
    for pair, own, other in pairs:
        if own not in used_tracks and other not in used_detections:
            used_tracks.add(own)
            used_detections.add(other)
            chosen.append(pair)
    pairs_kept = np.concatenate((np.nonzero(is_alone)[0], np.array(chosen, np.int64)))
    return track[pairs_kept], detection[pairs_kept]


def without_duplicates(
    positions: np.ndarray,
    labels: np.ndarray,
    separation: np.ndarray,
    taken: np.ndarray,
    taken_labels: np.ndarray,
) -> np.ndarray:
    """Return a (m,) mask of the given detections, which match no track. The mask is False for each
    detection that duplicates a detection that matches a track, or a better detection for which
    the mask is True.

    Args:
        positions: (2, m) positions of the given detections, best detection first, meters.
        labels: (m,) classes.
        separation: (m,) distance within which detections of a class count as one object, meters.
        taken: (2, k) positions of the detections that match a track, meters.
        taken_labels: (k,) classes of the detections in ``taken``.
    """
    keep = np.ones(len(labels), bool)
    keep[pairs_within(positions, labels, taken, taken_labels, separation)[0]] = False
    # The pairs are sorted by their first index, so keep[better] does not change any more when it
    # is read.
    for worse, better in zip(
        *pairs_within(positions, labels, positions, labels, separation), strict=True
    ):
        if better < worse and keep[better]:
            keep[worse] = False
    return keep
