"""Tests of streaming inference: the detector chooses the right past frame, and the head maps equal
the head maps of a two-frame forward."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.config import BEVGrid, ImageSpec, load_model_config
from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.inference import (
    Detector,
    _key_ego_from_past_camera,
    _PastFrame,
    default_cpu_threads,
)
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import CameraRig
from tests.core.frames import make_frame, make_rig, two_frame_inputs
from tests.core.streaming import assert_same_maps, head_maps
from tests.reference import ROOT


def small_model(**changes) -> BEVDepth:
    """Return a network of the small preset with random weights and batch norm variances.
    ``changes`` are fields of the config that replace the fields of the preset.
    """
    torch.manual_seed(0)
    config = load_model_config(ROOT / 'config' / 'models' / 'small.yaml')
    model = BEVDepth(dataclasses.replace(config, **changes)).eval()
    for name, buffer in model.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope='module')
def model():
    return small_model(image=ImageSpec(128, 352))


@pytest.fixture(scope='module')
def tiny_model():
    """Return a tiny network for tests whose result does not depend on the network size."""
    return small_model(
        image=ImageSpec(32, 96), grid=BEVGrid(x=(-51.2, 51.2, 3.2), y=(-51.2, 51.2, 3.2))
    )


def test_streaming_equals_the_two_frame_forward(model, monkeypatch):
    detector = Detector(model)
    past, between, key = (
        make_frame(10.0, seed=1),
        make_frame(10.25, seed=2),
        make_frame(10.5, seed=3),
    )
    detector(past)
    detector(between)
    streamed, detections = head_maps(detector, key, monkeypatch)
    with torch.inference_mode():
        expected = model(two_frame_inputs(key, past, model.config))
    assert detections.past_stamp_ns == past.stamp_ns
    assert_same_maps(streamed, expected.tasks)


def test_streaming_with_depth_refinement_equals_the_two_frame_forward(model, monkeypatch):
    config = dataclasses.replace(
        model.config, depth_net=dataclasses.replace(model.config.depth_net, refinement=True)
    )
    torch.manual_seed(1)
    model = BEVDepth(config).eval()
    detector = Detector(model)
    past, key = make_frame(0.0, seed=1), make_frame(0.5, seed=2)
    detector(past)
    streamed, _ = head_maps(detector, key, monkeypatch)
    with torch.inference_mode():
        assert_same_maps(streamed, model(two_frame_inputs(key, past, config)).tasks)


def test_the_first_frame_is_its_own_past_frame(model, monkeypatch):
    frame = make_frame(3.0)
    streamed, detections = head_maps(Detector(model), frame, monkeypatch)
    with torch.inference_mode():
        assert_same_maps(streamed, model(two_frame_inputs(frame, frame, model.config)).tasks)
    assert detections.past_stamp_ns is None


@pytest.mark.parametrize(
    ('stamps', 'past'),
    [
        ((0.0, 0.5), 0.0),
        ((0.0, 0.41), 0.0),
        ((0.0, 0.59), 0.0),
        ((0.0, 0.39), None),
        ((0.0, 0.61), None),
        ((0.0, 0.08, 0.17, 0.25, 0.33, 0.42, 0.5), 0.0),
        ((0.0, 0.1, 0.58), 0.1),
        ((0.0, 2.0, 2.5), 2.0),
        ((0.0, 1.5), None),
        ((5.0, 5.5, 5.0), None),
        ((5.0, 5.3, 5.2, 5.7), 5.2),
    ],
)
def test_the_past_frame_is_the_frame_whose_age_is_nearest_to_half_a_second(
    tiny_model, stamps, past
):
    detector = Detector(tiny_model)
    frames = [make_frame(stamp) for stamp in stamps]
    found = [detector(frame) for frame in frames]
    expected = (
        None
        if past is None
        else frames[len(stamps) - 2 - list(reversed(stamps[:-1])).index(past)].stamp_ns
    )
    assert found[-1].past_stamp_ns == expected


def test_frames_without_pose_are_not_fused_and_not_kept_as_past_frames(tiny_model):
    detector = Detector(tiny_model)
    detector(make_frame(0.0, poses=False))
    assert detector(make_frame(0.5)).past_stamp_ns is None
    assert detector(make_frame(1.0, poses=False)).past_stamp_ns is None


def moved_past_camera(frame, past, partner):
    """Return the pose of camera 0 of the frame ``past`` relative to an ego pose of ``frame``. This
    ego pose is the pose at the stamp of the camera that has the index ``partner`` in ``frame``.
    """
    key_ego_from_world = np.linalg.inv(frame.world_from_ego[partner])
    return key_ego_from_world @ past.world_from_ego[0] @ past.rig.ego_from_camera[0]


def test_a_camera_that_only_the_past_frame_has_uses_the_key_ego_pose_nearest_to_the_mean_stamp():
    rig = make_rig(4)
    past = make_frame(0.0, rig)
    remaining = CameraRig(rig.names[1:], rig.intrinsics[1:], rig.ego_from_camera[1:])
    frame = make_frame(0.5, remaining)
    stamps = frame.stamp_ns + np.array([-90_000_000, 80_000_000, 10_000_000])
    frame = dataclasses.replace(frame, stamps_ns=stamps)
    past_frame = _PastFrame(
        past.stamp_ns,
        Calibration.of(rig, past.images, ImageSpec(32, 96)),
        None,
        past.world_from_ego,
    )
    found = _key_ego_from_past_camera(frame, past_frame)
    assert found.shape == (4, 4, 4)
    assert np.allclose(found[0], moved_past_camera(frame, past, 2))
    for camera in (1, 2, 3):  # cameras of both frames use the ego pose at their stamp
        key_ego_from_world = np.linalg.inv(frame.world_from_ego[camera - 1])
        pose = key_ego_from_world @ past.world_from_ego[camera] @ rig.ego_from_camera[camera]
        assert np.allclose(found[camera], pose)


def test_cameras_of_two_frames_are_matched_by_name_and_not_by_index(tiny_model):
    rig = make_rig(3)
    reversed_rig = CameraRig(rig.names[::-1], rig.intrinsics[::-1], rig.ego_from_camera[::-1])
    past, frame = make_frame(0.0, rig), make_frame(0.5, rig, seed=1)
    other = dataclasses.replace(
        frame,
        rig=reversed_rig,
        images=frame.images[::-1],
        stamps_ns=frame.stamps_ns[::-1],
        world_from_ego=frame.world_from_ego[::-1],
    )
    found = []
    for key in (frame, other):
        detector = Detector(tiny_model)
        detector.score_threshold = 0.0
        detector(past)
        found.append(detector(key))
    assert len(found[0]) > 20
    assert np.allclose(found[0].scores[:10], found[1].scores[:10], atol=1e-4)


def test_after_a_recalibration_a_past_frame_keeps_its_own_camera_vector(tiny_model):
    """The official code, in contrast, uses the camera vector of the key frame also for the past
    frame. The docstring of ``Detector`` describes this difference.
    """
    rig = make_rig(2)
    poses = rig.ego_from_camera.copy()
    poses[:, 2, 3] += 0.5
    changed = CameraRig(rig.names, rig.intrinsics, poses)
    detector = Detector(tiny_model)
    detector(make_frame(0.0, rig))
    before = detector._memory[0]
    detector(make_frame(0.5, changed))
    assert detector._memory[0] is before and before.calibration.rig is not changed
    assert not torch.equal(before.calibration.cameras, detector._memory[1].calibration.cameras)
    assert torch.equal(
        before.calibration.cameras,
        Calibration.of(rig, make_frame(0.0, rig).images, tiny_model.config.image).cameras,
    )


@pytest.mark.parametrize(('gap_s', 'expected'), [(0.049, 1), (0.05, 2)])
def test_frames_less_than_50_ms_apart_are_not_kept_as_past_frames(tiny_model, gap_s, expected):
    detector = Detector(tiny_model)
    first = make_frame(0.0)
    detector(first)
    detector(dataclasses.replace(first, stamps_ns=first.stamps_ns + round(gap_s * 1e9)))
    assert len(detector._memory) == expected


@pytest.mark.parametrize(
    ('age_ms', 'fused'), [(399, False), (400, True), (600, True), (601, False)]
)
def test_a_past_frame_is_400_to_600_ms_old(tiny_model, age_ms, fused):
    detector = Detector(tiny_model)
    first = make_frame(0.0)
    detector(first)
    later = dataclasses.replace(first, stamps_ns=first.stamps_ns + age_ms * 1_000_000)
    assert (detector(later).past_stamp_ns == first.stamp_ns) is fused


def test_a_model_with_one_key_frame_keeps_no_past_frames():
    model = small_model(
        image=ImageSpec(32, 96),
        grid=BEVGrid(x=(-51.2, 51.2, 3.2), y=(-51.2, 51.2, 3.2)),
        key_frames=1,
    )
    detector = Detector(model)
    detector(make_frame(0.0))
    assert detector(make_frame(0.5)).past_stamp_ns is None and not detector._memory


def test_the_depth_of_the_last_frame_is_kept_on_request(tiny_model):
    detector = Detector(tiny_model)
    detector(make_frame(0.0))
    assert detector.depth is None
    detector.keep_depth = True
    detector(make_frame(0.5, make_rig(2)))
    assert detector.depth.shape == (2, tiny_model.config.depth_bins.count, 4, 12)
    assert detector.depth.dtype == torch.float32
    assert torch.allclose(detector.depth.sum(dim=1), torch.ones(2, 4, 12), atol=1e-4)
    detector.keep_depth = False
    detector(make_frame(1.0))
    assert detector.depth is None


def test_detections_contain_class_names_stamps_and_stage_times(tiny_model):
    detector = Detector(tiny_model)
    assert detector.score_threshold == tiny_model.config.decode.score_threshold
    assert detector.config is tiny_model.config and detector.precision == 'fp32'
    frame = make_frame(3.0)
    found = detector(frame)
    assert found.class_names == detector.class_names == tiny_model.config.class_names
    assert found.stamp_ns == frame.stamp_ns and found.past_stamp_ns is None
    stages = ['preprocess', 'image_branch', 'view_transform', 'bev_head', 'decode']
    assert list(found.stage_seconds) == stages
    assert all(seconds > 0 for seconds in found.stage_seconds.values())


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_number_of_threads_is_set_at_each_call_of_the_detector(tiny_model, threads):
    detector = Detector(tiny_model, cpu_threads=2)
    assert detector.cpu_threads == 2
    torch.set_num_threads(1)
    detector(make_frame(0.0))
    assert torch.get_num_threads() == 2
    with pytest.raises(ValueError, match='cpu_threads must be at least 1, got 0'):
        Detector(tiny_model, cpu_threads=0)
    assert Detector(tiny_model, cpu_threads=1).cpu_threads == 1


@pytest.mark.parametrize(('cores', 'expected'), [(1, 1), (2, 1), (3, 1), (4, 2), (16, 8)])
def test_the_default_number_of_threads_is_half_of_the_cores(
    monkeypatch, tiny_model, cores, expected
):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.delenv('OMP_WAIT_POLICY', raising=False)
    monkeypatch.setattr('os.sched_getaffinity', lambda _: set(range(cores)))
    assert default_cpu_threads() == expected
    assert Detector(tiny_model).cpu_threads == expected


@pytest.mark.parametrize(('cores', 'expected'), [(1, 1), (2, 2), (3, 2), (4, 2), (16, 8)])
def test_with_a_passive_omp_wait_policy_two_or_three_cores_run_two_threads(
    monkeypatch, cores, expected
):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setenv('OMP_WAIT_POLICY', 'passive')
    monkeypatch.setattr('os.sched_getaffinity', lambda _: set(range(cores)))
    assert default_cpu_threads() == expected


def test_omp_num_threads_takes_precedence_over_the_default_thread_count(monkeypatch, threads):
    monkeypatch.setenv('OMP_NUM_THREADS', '3')
    torch.set_num_threads(3)
    assert default_cpu_threads() == 3


def test_reset_clears_the_past_frames(tiny_model):
    detector = Detector(tiny_model)
    detector(make_frame(0.0))
    detector.reset()
    assert detector(make_frame(0.5)).past_stamp_ns is None


def test_the_number_of_past_frames_is_limited(tiny_model):
    detector = Detector(tiny_model)
    rig = make_rig(1)
    for index in range(45):
        detector(make_frame(index / 60, rig))
    assert len(detector._memory) <= 13


@pytest.mark.parametrize('count', [1, 2, 7])
def test_any_number_of_cameras_is_accepted(tiny_model, count):
    detector = Detector(tiny_model)
    rig = make_rig(count, 640, 480)
    detector(make_frame(0.0, rig, size=(480, 640)))
    assert detector(make_frame(0.5, rig, size=(480, 640))).past_stamp_ns is not None


def test_a_past_frame_is_used_when_a_camera_is_missing_and_when_the_camera_returns(tiny_model):
    detector = Detector(tiny_model)
    rig = make_rig(3)
    fewer = CameraRig(rig.names[1:], rig.intrinsics[1:], rig.ego_from_camera[1:])
    detector(make_frame(0.0, rig))
    assert detector(make_frame(0.5, fewer)).past_stamp_ns is not None
    assert detector(make_frame(1.0, rig)).past_stamp_ns is not None


def test_a_changed_score_threshold_is_used_for_the_next_frame(tiny_model):
    detector = Detector(tiny_model)
    detector.score_threshold = 0.0
    count = len(detector(make_frame(0.0)))
    detector.score_threshold = 1.0
    assert count > 0 and len(detector(make_frame(0.0))) == 0


def test_an_unknown_or_unavailable_precision_or_device_is_rejected(tiny_model):
    with pytest.raises(ValueError, match='precision'):
        Detector(tiny_model, precision='fp8')
    with pytest.raises(ValueError, match='needs a GPU'):
        Detector(tiny_model, precision='bf16')
    with pytest.raises(ValueError, match='device'):
        Detector(tiny_model, device='tpu-of-mine')
    with pytest.raises(ValueError, match='not available'):
        Detector(tiny_model, device=f'cuda:{torch.cuda.device_count()}')
