"""Computes the devkit's detection metrics for any class list, from the annotations of a sample
index.

The devkit takes seconds to import. Other modules therefore import this module inside the functions
that use it.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from nuscenes.eval.common.config import config_factory
from nuscenes.eval.common.data_classes import EvalBoxes
from nuscenes.eval.detection.data_classes import DetectionBox, DetectionConfig
from nuscenes.eval.detection.evaluate import DetectionEval

from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.records import SampleRecord
from bevdepth_core.nuscenes.result_file import META

METRICS = 'detection_cvpr_2019'
OTHER_CLASS_RANGE = 50.0
"""Evaluation range of classes that are not nuScenes classes, in meters from the vehicle."""


def evaluate_on_index(
    results: Mapping[str, list[dict]], index: SampleIndex, output_dir: str | Path | None = None
) -> dict:
    """Return the devkit's summary for the samples in ``results``.

    Unlike the official evaluation, this evaluation accepts any class list, any part of a split and
    annotations without point counts. It does not exclude bicycles in bicycle racks.

    Args:
        results: maps the token of each sample to the entries that ``result_boxes`` returned.
        index: index with these samples and their ground-truth boxes.
        output_dir: folder for ``metrics_summary.json`` and ``metrics_details.json``; None to write
            no files.

    Raises:
        ValueError: there are no ground-truth boxes within the evaluated range.
    """
    evaluation = _IndexEvaluation(results, index, output_dir)
    if not evaluation.gt_boxes.all:
        raise ValueError('the samples have no ground-truth boxes within the evaluated range')
    if output_dir is None:
        return evaluation.evaluate()[0].serialize()
    Path(output_dir).mkdir(parents=True, exist_ok=True)
    with contextlib.redirect_stdout(io.StringIO()):
        return evaluation.main(render_curves=False)


class _ClassRanges(DetectionConfig):
    """The official settings with the class list of an index. ``DetectionConfig`` itself accepts
    only the ten nuScenes classes.
    """

    def __init__(self, class_names: Sequence[str]) -> None:
        official = config_factory(METRICS)
        self.__dict__.update(vars(official))
        self.class_range = {
            name: official.class_range.get(name, OTHER_CLASS_RANGE) for name in class_names
        }
        self.class_names = self.class_range.keys()


class _IndexEvaluation(DetectionEval):
    """The devkit's evaluation, with detections and ground truth that the devkit does not load."""

    def __init__(
        self,
        results: Mapping[str, list[dict]],
        index: SampleIndex,
        output_dir: str | Path | None,
    ) -> None:
        self.cfg = _ClassRanges(index.class_names)
        self.meta, self.verbose, self.output_dir = META, False, str(output_dir)
        self.pred_boxes, self.gt_boxes = EvalBoxes(), EvalBoxes()
        for record in index:
            if record.token in results:
                truth = _true_boxes(record, index.class_names)
                detected = map(_found_box, results[record.token])
                self.gt_boxes.add_boxes(record.token, self._in_range(record, truth))
                self.pred_boxes.add_boxes(record.token, self._in_range(record, detected))

    def _in_range(self, record: SampleRecord, boxes: Iterable[DetectionBox]) -> list[DetectionBox]:
        """Return the boxes within the range of their class around the ego pose of the lidar scan.
        Without a lidar, the ego pose of the first camera is used.
        """
        origin = (record.lidar or record.cameras[0]).world_from_ego.translation
        inside = []
        for box in boxes:
            box.ego_translation = tuple(np.subtract(box.translation, origin).tolist())
            if box.ego_dist < self.cfg.class_range[box.detection_name]:
                inside.append(box)
        return inside


def _true_boxes(record: SampleRecord, class_names: Sequence[str]) -> list[DetectionBox]:
    annotations = record.annotations
    return [
        _box(
            record.token,
            annotations.center[row].tolist(),
            annotations.size[row].tolist(),
            annotations.quaternion[row].tolist(),
            annotations.velocity[row, :2].tolist(),
            class_names[annotations.label[row]],
            annotations.attribute[row].decode(),
        )
        for row in np.flatnonzero(annotations.seen)
    ]


def _found_box(entry: dict) -> DetectionBox:
    return _box(
        entry['sample_token'],
        entry['translation'],
        entry['size'],
        entry['rotation'],
        entry['velocity'],
        entry['detection_name'],
        entry['attribute_name'],
        entry['detection_score'],
    )


def _box(
    token: str,
    translation: list[float],
    size: list[float],
    rotation: list[float],
    velocity: list[float],
    class_name: str,
    attribute: str,
    score: float = -1.0,
) -> DetectionBox:
    box = DetectionBox(
        token, tuple(translation), tuple(size), tuple(rotation), tuple(velocity),
        detection_score=score,
    )  # fmt: skip
    # The names are set afterwards, because the constructor accepts only names of nuScenes.
    box.detection_name, box.attribute_name = class_name, attribute
    return box
