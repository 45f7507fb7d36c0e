"""Runs the full-size detector on the real nuScenes sample of the reference folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bevdepth_core.decode import decode
from bevdepth_core.inference import Detector
from tests.core.frames import two_frame_inputs
from tests.core.parity import match_boxes
from tests.core.streaming import assert_same_maps, head_maps
from tests.reference import filled_model, reference_golden
from tests.sample import sample_frames


def test_real_sample_gives_the_official_boxes(real_sample: Path) -> None:
    """Centers may differ by up to 3 cm, because the official code multiplies poses in float32,
    with coordinates of about 1,000 m. This project multiplies poses in float64."""
    found = Detector(filled_model('2key'))(sample_frames(real_sample, 'infos.json')[0])
    arrays = reference_golden('real_2key')[1]
    boxes, scores = arrays['out/b0/boxes'], arrays['out/b0/scores']
    pairs, unmatched = match_boxes(found, boxes, scores, arrays['out/b0/labels'])
    assert unmatched == 0
    assert (
        np.linalg.norm(found.boxes.center[pairs[:, 0]] - boxes[pairs[:, 1], :3], axis=1).max()
        < 0.03
    )
    assert np.abs(found.scores[pairs[:, 0]] - scores[pairs[:, 1]]).max() < 0.005


def test_a_full_size_streaming_step_gives_the_maps_and_boxes_of_a_two_frame_forward_pass(
    real_sample: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = filled_model('2key')
    past, key = sample_frames(real_sample)
    detector = Detector(model)
    detector(past)
    streamed, detections = head_maps(detector, key, monkeypatch)
    with torch.inference_mode():
        expected = model(two_frame_inputs(key, past, model.config))
    assert_same_maps(streamed, expected.tasks)
    boxes = decode(expected.tasks, model.config)[0]
    pairs, unmatched = match_boxes(detections, boxes.boxes.center, boxes.scores, boxes.labels)
    assert unmatched == 0 and len(pairs) == len(detections) > 100
