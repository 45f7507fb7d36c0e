"""Tests of streaming with stereo models. The images of each frame are encoded once. When a frame
becomes the past frame, stereo matching computes the depth of this frame again.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.config import BEVGrid, ImageSpec, ModelConfig, SizeAwareNMSConfig, StereoConfig
from bevdepth_core.engine.graphs import GraphedNetwork
from bevdepth_core.inference import PAST_FRAME_SPACING_NS, Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import CameraRig
from tests.core.frames import make_frame, make_rig, two_frame_inputs
from tests.core.streaming import assert_same_maps, head_maps
from tests.networks import TINY


def stereo_model(refinement: bool = False) -> BEVDepth:
    """Return a small stereo network with random weights and batch norm statistics."""
    torch.manual_seed(0)
    config: ModelConfig = dataclasses.replace(
        TINY,
        image=ImageSpec(64, 160),
        grid=BEVGrid(x=(-25.6, 25.6, 1.6), y=(-25.6, 25.6, 1.6)),
        depth_net=dataclasses.replace(TINY.depth_net, refinement=refinement),
        decode=dataclasses.replace(
            TINY.decode, size_aware_nms=SizeAwareNMSConfig(), score_threshold=0.0
        ),
        stereo=StereoConfig(range_bounds=(2.0, 6.0, 18.0)),
    )
    model = BEVDepth(config).eval()
    for name, buffer in model.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope='module')
def model() -> BEVDepth:
    return stereo_model()


@pytest.mark.parametrize('refinement', [False, True])
def test_streaming_equals_the_two_frame_forward(
    refinement: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stereo_model(refinement)
    detector = Detector(model)
    past, between, key = (make_frame(10.0 + 0.25 * n, seed=n) for n in range(3))
    detector(past)
    detector(between)
    streamed, detections = head_maps(detector, key, monkeypatch)
    with torch.inference_mode():
        expected = model(two_frame_inputs(key, past, model.config))
    assert detections.past_stamp_ns == past.stamp_ns and len(detections) > 0
    assert_same_maps(streamed, expected.tasks)


def test_a_frame_is_encoded_once_and_its_depth_is_computed_again_when_it_is_the_past_frame(
    model: BEVDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(model)
    network = detector._network.model
    calls = {'encode_images': 0, '_compared': 0}
    for name in calls:
        real = getattr(network, name)

        def counted(*args, name=name, real=real, **options):  # type: ignore[no-untyped-def]
            calls[name] += 1
            return real(*args, **options)

        monkeypatch.setattr(network, name, counted)
    detector(make_frame(0.0))
    assert calls == {'encode_images': 1, '_compared': 1}
    detector(make_frame(0.5))
    assert calls == {'encode_images': 2, '_compared': 3}


def test_the_depth_of_the_past_frame_depends_on_the_current_frame(model: BEVDepth) -> None:
    cameras, pose = torch.zeros(1, 2, 27), torch.eye(4).double()[:3].expand(1, 2, 3, 4)
    with torch.inference_mode():
        past, *others = (
            model.encode_images(torch.full((1, 2, 3, 64, 160), value), cameras)
            for value in (0.5, 0.0, 1.0)
        )
        first, second = (model.match([(key, pose), (past, pose)])[0][1].depth for key in others)
    assert not torch.allclose(first, second)


def test_stereo_matches_the_first_frame_with_itself(
    model: BEVDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = make_frame(3.0)
    streamed, detections = head_maps(Detector(model), frame, monkeypatch)
    with torch.inference_mode():
        expected = model(two_frame_inputs(frame, frame, model.config))
    assert detections.past_stamp_ns is None
    assert_same_maps(streamed, expected.tasks)


def test_the_stored_depth_is_the_depth_used_in_voxel_pooling(model: BEVDepth) -> None:
    detector = Detector(model)
    detector.keep_depth = True
    splatted = []
    network = detector._network.model
    network.view_transform.register_forward_pre_hook(
        lambda module, args: splatted.append(args[0].depth)
    )
    detector(make_frame(0.0))
    detector(make_frame(0.5, seed=1))
    assert detector.depth is not None
    assert torch.equal(detector.depth, splatted[1][0])
    with torch.inference_mode():
        alone = network.encode_images(detector._network._inputs, detector._calibration.cameras)
    assert not torch.allclose(detector.depth, alone.depth[0])


def test_a_past_frame_with_a_different_set_of_cameras_is_not_used(model: BEVDepth) -> None:
    rig = make_rig(4)
    remaining = CameraRig(rig.names[1:], rig.intrinsics[1:], rig.ego_from_camera[1:])
    detector = Detector(model)
    full, partial = make_frame(0.0, rig), make_frame(0.5, remaining)
    detector(full)
    assert detector(partial).past_stamp_ns is None
    assert detector(make_frame(1.0, remaining)).past_stamp_ns == partial.stamp_ns


def test_after_a_camera_returns_only_a_past_frame_with_this_camera_is_used(
    model: BEVDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(3)
    remaining = CameraRig(rig.names[:2], rig.intrinsics[:2], rig.ego_from_camera[:2])
    detector = Detector(model)
    frames = [make_frame(0.5 * n, remaining if n == 1 else rig, seed=n) for n in range(4)]
    pasts = [detector(frame).past_stamp_ns for frame in frames[:3]]
    assert pasts == [None] * 3
    streamed, detections = head_maps(detector, frames[3], monkeypatch)
    with torch.inference_mode():
        expected = model(two_frame_inputs(frames[3], frames[2], model.config))
    assert detections.past_stamp_ns == frames[2].stamp_ns
    assert_same_maps(streamed, expected.tasks)


def test_after_a_reset_stereo_matches_the_first_frame_with_itself(
    model: BEVDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, frame = Detector(model), make_frame(0.5, seed=1)
    detector(make_frame(0.0))
    detector.reset()
    streamed, detections = head_maps(detector, frame, monkeypatch)
    with torch.inference_mode():
        expected = model(two_frame_inputs(frame, frame, model.config))
    assert detections.past_stamp_ns is None and detector.baseline_m is None
    assert_same_maps(streamed, expected.tasks)


def test_the_motion_of_the_vehicle_changes_the_depth(model: BEVDepth) -> None:
    depths = []
    for moves in (True, False):
        detector = Detector(model)
        detector.keep_depth = True
        past, key = make_frame(0.0), make_frame(0.5, seed=1)
        poses = past.world_from_ego if moves else key.world_from_ego
        detector(dataclasses.replace(past, world_from_ego=poses))
        detector(key)
        assert detector.depth is not None
        depths.append(detector.depth)
    assert not torch.equal(*depths)


def test_the_baseline_is_the_distance_that_the_cameras_moved(model: BEVDepth) -> None:
    detector = Detector(model)
    baselines = []
    for stamp_s, forward_m in ((0.0, 0.0), (0.5, 0.04), (1.0, 2.04)):
        pose = np.eye(4)
        pose[:3, 3] = (0.6 * forward_m, 0.8 * forward_m, 0.0)
        poses = np.repeat(pose[None], 6, axis=0)
        detector(dataclasses.replace(make_frame(stamp_s), world_from_ego=poses))
        baselines.append(detector.baseline_m)
    assert baselines == [None, pytest.approx(0.04), pytest.approx(2.0)]


def test_a_larger_spacing_keeps_fewer_past_frames(model: BEVDepth) -> None:
    stored = {}
    for spacing_ns in (PAST_FRAME_SPACING_NS, 200_000_000):
        detector = Detector(model, past_frame_spacing_ns=spacing_ns)
        found = [detector(make_frame(0.1 * index)) for index in range(7)]
        assert found[-1].past_stamp_ns is not None
        stored[spacing_ns] = len(detector._memory)
    assert stored == {PAST_FRAME_SPACING_NS: 7, 200_000_000: 4}


@pytest.mark.parametrize('spacing_ns', [-1, 200_000_001])
def test_a_past_frame_spacing_below_0_or_above_200_ms_is_rejected(
    model: BEVDepth, spacing_ns: int
) -> None:
    with pytest.raises(ValueError, match='past_frame_spacing_ns must be 0 to 200000000'):
        Detector(model, past_frame_spacing_ns=spacing_ns)


def test_the_stage_times_include_stereo(model: BEVDepth) -> None:
    stages = Detector(model)(make_frame(0.0)).stage_seconds
    assert list(stages) == [
        'preprocess', 'image_branch', 'stereo', 'view_transform', 'bev_head', 'decode',
    ]  # fmt: skip


def test_a_network_whose_graphs_cannot_be_captured_runs_step_by_step_with_a_warning(
    model: BEVDepth, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(network: GraphedNetwork, cameras: int) -> None:
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(GraphedNetwork, 'prepare', failing)
    plain, detector = Detector(model), Detector(model)
    detector._network = GraphedNetwork(model, torch.device('cpu'), torch.float32)
    for stamp_s in (0.0, 0.5):
        found, expected = detector(make_frame(stamp_s)), plain(make_frame(stamp_s))
    assert np.array_equal(found.scores, expected.scores)
    assert found.past_stamp_ns == expected.past_stamp_ns is not None
    assert caplog.text.count('runs step by step') == 1


def test_an_out_of_memory_error_during_graph_capture_is_raised(
    model: BEVDepth, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(network: GraphedNetwork, cameras: int) -> None:
        raise torch.OutOfMemoryError('out of memory')

    monkeypatch.setattr(GraphedNetwork, 'prepare', failing)
    detector = Detector(model)
    detector._network = GraphedNetwork(model, torch.device('cpu'), torch.float32)
    with pytest.raises(torch.OutOfMemoryError):
        detector(make_frame(0.0))
