"""Converts published messages back to detections, and compares them with the original
detections."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sensor_msgs.msg import PointCloud2
from vision_msgs.msg import Detection3D, Detection3DArray

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Boxes3D, Detections3D
from bevdepth_ros.detections.messages import header, label_info, objects_cloud
from bevdepth_ros.detections.readings import boxes_from_array, class_names, detections_from_cloud
from tests.ros.detections.message_objects import detection_array

STAMP_NS = 1_700_000_000_123_456_789
BOXES = Boxes3D(
    [(1, 2, 3), (-4, 5, 0.5)], [(4, 2, 1.5), (1, 0.6, 1.7)], [0.3, -2.5], [(3, -1), (0, 0)]
)


def detections(past_stamp_ns: int | None) -> Detections3D:
    return Detections3D(BOXES, (0.9, 0.4), (0, 8), NUSCENES_CLASSES, STAMP_NS, past_stamp_ns)


@pytest.mark.parametrize('fused', [True, False])
def test_detections_are_restored_from_the_objects_point_cloud(fused: bool) -> None:
    sent = detections(STAMP_NS - 500_000_000 if fused else None)
    names = class_names(label_info(NUSCENES_CLASSES, 0.1, header(STAMP_NS, 'base_link')))
    found = detections_from_cloud(objects_cloud(sent, 'base_link'), names)
    np.testing.assert_array_equal(found.boxes.corners(), BOXES.corners())
    np.testing.assert_array_equal(
        found.boxes.velocity, BOXES.velocity if fused else np.zeros((2, 2))
    )
    assert (found.stamp_ns, found.labels.tolist(), found.class_names) == (
        STAMP_NS,
        [0, 8],
        NUSCENES_CLASSES,
    )
    assert (found.past_stamp_ns is not None) == fused
    assert found.track_ids.tolist() == [0, 0]


def test_track_ids_are_restored_from_the_objects_point_cloud() -> None:
    sent = dataclasses.replace(detections(None), track_ids=np.array((0, 4_000_000_001)))
    found = detections_from_cloud(objects_cloud(sent, 'base_link'), NUSCENES_CLASSES)
    assert found.track_ids.tolist() == [0, 4_000_000_001]


def test_boxes_are_restored_from_the_detection_array() -> None:
    boxes, names, scores, _ = boxes_from_array(detection_array(detections(None), 'base_link'))
    np.testing.assert_allclose(boxes.corners(), BOXES.corners(), atol=1e-5)
    assert names == ['car', 'pedestrian']
    np.testing.assert_allclose(scores, (0.9, 0.4), atol=1e-6)


def test_messages_without_required_fields_raise_a_value_error() -> None:
    with pytest.raises(ValueError, match='has no class'):
        boxes_from_array(Detection3DArray(detections=[Detection3D()]))
    with pytest.raises(ValueError, match='does not have the fields'):
        detections_from_cloud(PointCloud2(height=1), NUSCENES_CLASSES)
