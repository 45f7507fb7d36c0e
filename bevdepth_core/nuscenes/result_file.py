"""Writes detections as a nuScenes result file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pyquaternion import Quaternion

from bevdepth_core.files import write_atomically
from bevdepth_core.nuscenes.classes import attribute_of
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.types import Detections3D

META = {
    'use_camera': True,
    'use_lidar': False,
    'use_radar': False,
    'use_map': False,
    'use_external': False,
}
"""Header of the result file, which states that the method uses only cameras."""


def result_boxes(token: str, detections: Detections3D, world_from_ego: Pose) -> list[dict]:
    """Return the detections of one sample as entries of the nuScenes result format, in the world
    frame.

    Args:
        token: the sample's token.
        detections: boxes in the ego frame.
        world_from_ego: pose of the ego frame in the world, ``SampleRecord.world_from_ego()``.
    """
    turn = Quaternion(world_from_ego.quaternion).normalised
    matrix = turn.rotation_matrix
    boxes = detections.boxes
    centers = boxes.center @ matrix.T + world_from_ego.translation
    velocities = np.pad(boxes.velocity, ((0, 0), (0, 1))) @ matrix.T
    return [
        {
            'sample_token': token,
            'translation': centers[row].tolist(),
            'size': boxes.size[row, [1, 0, 2]].tolist(),
            'rotation': (
                turn * Quaternion(axis=(0, 0, 1), radians=float(boxes.yaw[row]))
            ).elements.tolist(),
            'velocity': velocities[row, :2].tolist(),
            'detection_name': (name := detections.class_names[detections.labels[row]]),
            'detection_score': float(detections.scores[row]),
            'attribute_name': attribute_of(name, float(np.linalg.norm(velocities[row, :2]))),
        }
        for row in range(len(boxes))
    ]


def write_results(results: Mapping[str, list[dict]], path: str | Path) -> None:
    """Write a nuScenes result file of a camera-only method, atomically.

    Args:
        results: maps the token of each sample to the entries that ``result_boxes`` returned, or to
            an empty list for a sample without boxes.
        path: the JSON file.
    """
    text = json.dumps({'meta': META, 'results': dict(results)})

    def write(target: str) -> None:
        Path(target).write_text(text)

    write_atomically(path, write)
