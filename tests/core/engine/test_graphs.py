"""``GraphedNetwork`` gives the boxes of the eager network. On a CPU no CUDA graph is captured."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.engine.graphs import GraphedNetwork
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import CameraRig, Detections3D
from tests.core.frames import make_frame, make_rig
from tests.networks import random_model


def detectors(model: BEVDepth) -> tuple[Detector, Detector]:
    """Return a detector with the eager network, and a detector with ``GraphedNetwork``."""
    plain, graphed = Detector(model), Detector(model)
    graphed._network = GraphedNetwork(model, torch.device('cpu'), torch.float32)
    return plain, graphed


def assert_same_boxes(found: Detections3D, expected: Detections3D) -> None:
    """Fail unless both results contain the same boxes. Their order may differ, because rounding
    changes the scores.
    """
    assert len(expected) > 100
    assert found.past_stamp_ns == expected.past_stamp_ns
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-5)
    rows, expected_rows = (
        np.column_stack((boxes.center, boxes.size, boxes.yaw, boxes.velocity))
        for boxes in (found.boxes, expected.boxes)
    )
    distance = np.abs(rows - expected_rows[:, None]).max(axis=2)
    distance[found.labels != expected.labels[:, None]] = np.inf
    nearest = distance.argmin(axis=1)
    assert sorted(nearest) == list(range(len(expected)))
    np.testing.assert_allclose(rows[nearest], expected_rows, atol=1e-3)
    np.testing.assert_allclose(found.scores[nearest], expected.scores, atol=1e-5)
    assert found.stage_seconds.keys() == expected.stage_seconds.keys()


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'refinement': True},
        {'key_frames': 1},
        {'stereo': True},
        {'stereo': True, 'refinement': True},
    ],
)
def test_a_stream_of_frames_gives_the_boxes_of_the_eager_network(options):
    plain, graphed = detectors(random_model(**options))
    for step, stamp in enumerate((0.0, 0.25, 0.5)):
        frame = make_frame(stamp, seed=step)
        expected, found = plain(frame), graphed(frame)
        assert_same_boxes(found, expected)
    assert (found.past_stamp_ns is None) == (options.get('key_frames') == 1)


@pytest.mark.parametrize('stereo', [False, True])
def test_if_cameras_leave_and_return_the_buffers_are_reused_and_the_boxes_are_correct(stereo):
    plain, graphed = detectors(random_model(stereo=stereo))
    graphed.prepare(4)
    steps, rig = graphed._network._steps_for(4), make_rig(4)
    for step, cameras in enumerate((slice(0, 4), slice(1, 3), slice(0, 4))):
        part = CameraRig(rig.names[cameras], rig.intrinsics[cameras], rig.ego_from_camera[cameras])
        frame = make_frame(0.5 * step, part, seed=step)
        assert_same_boxes(graphed(frame), plain(frame))
    assert graphed._network._steps_for(1) is steps


def test_if_the_number_of_cameras_increases_the_past_frame_is_still_used():
    plain, graphed = detectors(random_model())
    for step, count in enumerate((2, 5)):
        frame = make_frame(0.5 * step, make_rig(count), seed=step)
        found, expected = graphed(frame), plain(frame)
        assert_same_boxes(found, expected)
    assert found.past_stamp_ns is not None


def test_images_may_be_tensors_of_different_strides_and_sizes():
    plain, graphed = detectors(random_model())
    rig = make_rig(2)
    frame = make_frame(0.0, rig, size=(90, 160))
    other = np.random.default_rng(1).integers(0, 255, (120, 100, 3), dtype=np.uint8)
    arrays = dataclasses.replace(frame, images=(frame.images[0], other))
    planar = torch.from_numpy(other).permute(2, 0, 1).contiguous().permute(1, 2, 0)
    tensors = dataclasses.replace(frame, images=(torch.from_numpy(frame.images[0]), planar))
    expected = plain(arrays)
    assert_same_boxes(graphed(tensors), expected)
    assert np.array_equal(plain(tensors).scores, expected.scores)


def test_the_next_frame_does_not_change_the_depth_of_a_snapshot():
    network = GraphedNetwork(random_model(), torch.device('cpu'), torch.float32)
    images = [np.full((80, 160, 3), value, np.uint8) for value in (10, 240)]
    network.set_images(images[:1])
    features = network.encode(torch.zeros(1, 1, 27))
    snapshot = network.snapshot(features)
    before = snapshot.depth.clone()
    network.set_images(images[1:])
    network.encode(torch.zeros(1, 1, 27))
    assert torch.equal(snapshot.depth, before)
    assert not torch.equal(features.depth, before)


@pytest.mark.parametrize('stereo', [False, True])
def test_a_snapshot_of_a_stereo_model_contains_stereo_features_instead_of_the_refined_volume(
    stereo,
):
    network = GraphedNetwork(
        random_model(refinement=True, stereo=stereo), torch.device('cpu'), torch.float32
    )
    network.set_images([np.zeros((80, 160, 3), np.uint8)])
    snapshot = network.snapshot(network.encode(torch.zeros(1, 1, 27)))
    assert (snapshot.volume is None) == stereo
    assert (snapshot.stereo is not None) == stereo
