"""Writes tracks as a nuScenes tracking result and computes the tracking metrics."""

from __future__ import annotations

import contextlib
import io
import json
import unittest
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.nuscenes.result_file import result_boxes
from bevdepth_core.tracking import Tracker, Tracks3D
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_core.uncertainty import UncertaintyModel, covariance_of

METRICS = 'tracking_nips_2019'
TRACKING_CLASSES = ('bicycle', 'bus', 'car', 'motorcycle', 'pedestrian', 'trailer', 'truck')
"""Classes of the tracking benchmark."""
SCORES = {
    'amota': 'AMOTA',
    'amotp': 'AMOTP',
    'recall': 'recall',
    'mota': 'MOTA',
    'ids': 'IDS',
    'frag': 'FRAG',
}
"""Maps the devkit's key of each score in ``tracking_table`` to the usual name of the score."""
KEY_FRAME_NS = 500_000_000

UpdateTracks = Callable[[Detections3D, np.ndarray], Tracks3D]
"""Updates a tracker with the detections of a frame and the (4, 4) ``world_from_ego`` of this
frame."""


def new_tracker(uncertainty: UncertaintyModel | None) -> UpdateTracks:
    """Return the update function of a new tracker, which uses the same covariances as the node.

    Args:
        uncertainty: fitted uncertainty model of the checkpoint that computed the detections; None
            if the checkpoint contains no such model.
    """
    tracker = Tracker()
    return lambda found, pose: tracker.update(found, pose, covariance_of(found, uncertainty))


def tracking_entries(
    token: str, boxes: Detections3D, ids: Sequence[int | str], world_from_ego: Pose
) -> list[dict]:
    """Return the tracks of one sample as entries of the nuScenes tracking result, in the world
    frame.

    Args:
        token: the sample's token.
        boxes: boxes of the tracks, in the ego frame.
        ids: track id of each box.
        world_from_ego: pose of the ego frame in the world, ``SampleRecord.world_from_ego()``.
    """
    found = []
    for entry, track_id in zip(result_boxes(token, boxes, world_from_ego), ids, strict=True):
        name, score = entry.pop('detection_name'), entry.pop('detection_score')
        entry.pop('attribute_name')
        if name in TRACKING_CLASSES:
            identity = {'tracking_id': str(track_id), 'tracking_name': name}
            found.append(entry | identity | {'tracking_score': score})
    return found


def detections_of_entries(
    entries: list[dict],
    world_from_ego: Pose,
    class_names: tuple[str, ...],
    stamp_ns: int,
    past_stamp_ns: int | None,
) -> Detections3D:
    """Return detections from entries of ``result_boxes``, best score first."""
    entries = sorted(entries, key=lambda entry: -entry['detection_score'])
    count = len(entries)
    turn = Quaternion(world_from_ego.quaternion).normalised
    to_ego = turn.rotation_matrix  # for row vectors, v @ matrix is the inverse rotation

    def column(name: str, width: int) -> np.ndarray:
        return np.reshape([entry[name] for entry in entries], (count, width))

    velocity = np.pad(column('velocity', 2), ((0, 0), (0, 1)))
    yaws = [(turn.inverse * Quaternion(entry['rotation'])).yaw_pitch_roll[0] for entry in entries]
    boxes = Boxes3D(
        (column('translation', 3) - world_from_ego.translation) @ to_ego,
        column('size', 3)[:, [1, 0, 2]],
        np.array(yaws),
        (velocity @ to_ego)[:, :2],
    )
    scores = column('detection_score', 1)[:, 0]
    labels = np.array([class_names.index(entry['detection_name']) for entry in entries], np.int64)
    return Detections3D(boxes, scores, labels, class_names, stamp_ns, past_stamp_ns)


def track_results(
    results: Mapping[str, list[dict]],
    index: SampleIndex,
    make_tracker: Callable[[], UpdateTracks],
) -> dict[str, list[dict]]:
    """Return the entries of a tracking result for the entries of a detection result.

    Args:
        results: maps the token of each sample to the entries that ``result_boxes`` returned.
        index: the samples, scene by scene.
        make_tracker: is called once per scene, and returns the update function of a new tracker.
    """
    found = {}
    for scene in index.scenes():
        update = make_tracker()
        for position in scene:
            record, pose = index[position], index[position].world_from_ego()
            # As in the evaluation of detections, the time between key frames is set to exactly
            # half a second.
            stamp_ns = position * KEY_FRAME_NS
            past_ns = None if position == scene.start else stamp_ns - KEY_FRAME_NS
            detections = detections_of_entries(
                results[record.token], pose, index.class_names, stamp_ns, past_ns
            )
            tracks = update(detections, pose.matrix())
            found[record.token] = tracking_entries(
                record.token, tracks.as_detections(), tracks.ids.tolist(), pose
            )
    return found


def evaluate_tracking(
    result_path: str | Path, dataroot: str | Path, version: str, split: str, output_dir: str | Path
) -> dict:
    """Return the summary of the devkit's TrackingEval. ``evaluation.evaluate`` describes the
    arguments.

    Raises:
        ValueError: there are no tracks of the tracking classes, or motmetrics is missing.
    """
    if not any(json.loads(Path(result_path).read_text())['results'].values()):
        raise ValueError(
            f'{result_path} has no tracks of the classes {", ".join(TRACKING_CLASSES)}'
        )
    try:
        from nuscenes.eval.common.config import config_factory
        from nuscenes.eval.tracking.evaluate import TrackingEval
    except (ImportError, unittest.SkipTest) as error:  # the devkit raises both
        raise ValueError(
            f'the tracking evaluation of the devkit is incomplete ({error}): run `pip install '
            'motmetrics==1.4.0`'
        ) from error
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = TrackingEval(
            config_factory(METRICS),
            str(result_path),
            split,
            str(output_dir),
            version,
            str(dataroot),
            verbose=False,
        )
        return evaluation.main(render_curves=False)


def tracking_table(summary: Mapping) -> str:
    """Return the devkit's summary as a Markdown table. The first row contains means and sums over
    all classes, and each following row contains the scores of one class.
    """
    rows = [('all', [summary[key] for key in SCORES])]
    for name in TRACKING_CLASSES:
        rows.append((name, [summary['label_metrics'][key][name] for key in SCORES]))
    lines = [['class', *SCORES.values()], ['---'] + ['---:'] * len(SCORES)]
    lines += [[name, *map(_number, values)] for name, values in rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def _number(value: float) -> str:
    if np.isnan(value):
        return '-'
    return f'{value:.0f}' if float(value).is_integer() and abs(value) > 1 else f'{value:.3f}'
