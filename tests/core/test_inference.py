"""The detector streams: it remembers, forgets and equals the two-frame forward."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.config import BEVGrid, ImageSpec, load_model_config
from bevdepth_core.decode import decode
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import CameraRig
from tests.core.frames import make_frame, make_rig, real_frames, two_frame_inputs
from tests.core.parity import match_boxes
from tests.reference import ROOT, filled_model, golden


def small_model(**changes) -> BEVDepth:
    """Return the small preset, changed, with random weights and batch norms that do something."""
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
    """A network for what does not depend on the size of anything."""
    return small_model(
        image=ImageSpec(32, 96), grid=BEVGrid(x=(-51.2, 51.2, 3.2), y=(-51.2, 51.2, 3.2))
    )


def head_maps(detector, frame, monkeypatch):
    """Return the head's maps of one streaming step."""
    kept, network = [], detector._network.model
    monkeypatch.setattr(
        network,
        'head_maps',
        lambda maps: kept.append(BEVDepth.head_maps(network, maps)) or kept[-1],
    )
    detections = detector(frame)
    monkeypatch.undo()
    return kept[0], detections


def assert_same_maps(ours, theirs):
    for ours_task, theirs_task in zip(ours, theirs, strict=True):
        for name in ('reg', 'height', 'dim', 'rot', 'vel', 'heatmap'):
            difference = torch.linalg.norm(getattr(ours_task, name) - getattr(theirs_task, name))
            assert difference <= 1e-5 * torch.linalg.norm(getattr(theirs_task, name)), name


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
        official = model(two_frame_inputs(key, past, model.config))
    assert detections.past_stamp_ns == past.stamp_ns
    assert_same_maps(streamed, official.tasks)


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


def test_first_frame_stands_in_for_its_own_past(model, monkeypatch):
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
def test_past_frame_is_the_one_nearest_half_a_second_back(tiny_model, stamps, past):
    detector = Detector(tiny_model)
    frames = [make_frame(stamp) for stamp in stamps]
    found = [detector(frame) for frame in frames]
    expected = (
        None
        if past is None
        else frames[len(stamps) - 2 - list(reversed(stamps[:-1])).index(past)].stamp_ns
    )
    assert found[-1].past_stamp_ns == expected


def test_frames_without_pose_are_neither_fused_nor_remembered(tiny_model):
    detector = Detector(tiny_model)
    detector(make_frame(0.0, poses=False))
    assert detector(make_frame(0.5)).past_stamp_ns is None
    assert detector(make_frame(1.0, poses=False)).past_stamp_ns is None


def test_reset_forgets(tiny_model):
    detector = Detector(tiny_model)
    detector(make_frame(0.0))
    detector.reset()
    assert detector(make_frame(0.5)).past_stamp_ns is None


def test_flood_of_frames_keeps_memory_bounded(tiny_model):
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


def test_a_camera_may_leave_and_return(tiny_model):
    detector = Detector(tiny_model)
    rig = make_rig(3)
    fewer = CameraRig(rig.names[1:], rig.intrinsics[1:], rig.ego_from_camera[1:])
    detector(make_frame(0.0, rig))
    assert detector(make_frame(0.5, fewer)).past_stamp_ns is not None
    assert detector(make_frame(1.0, rig)).past_stamp_ns is not None


def test_score_threshold_is_live(tiny_model):
    detector = Detector(tiny_model)
    detector.score_threshold = 0.0
    everything = len(detector(make_frame(0.0)))
    detector.score_threshold = 1.0
    assert everything > 0 and len(detector(make_frame(0.0))) == 0


def test_unknown_precision_and_device_are_refused(tiny_model):
    with pytest.raises(ValueError, match='precision'):
        Detector(tiny_model, precision='fp8')
    with pytest.raises(ValueError, match='needs a GPU'):
        Detector(tiny_model, precision='bf16')
    with pytest.raises(ValueError, match='device'):
        Detector(tiny_model, device='tpu-of-mine')
    with pytest.raises(ValueError, match='not available'):
        Detector(tiny_model, device=f'cuda:{torch.cuda.device_count()}')


def test_real_sample_gives_the_official_boxes():
    """Poses are composed in float64 here, in float32 at 1,000 m from the origin by the official
    code: hence centimetres."""
    found = Detector(filled_model('2key'))(real_frames('infos.json')[0])
    arrays = golden('real_2key')[1]
    boxes, scores = arrays['out/b0/boxes'], arrays['out/b0/scores']
    pairs, unmatched = match_boxes(found, boxes, scores, arrays['out/b0/labels'])
    assert unmatched == 0
    assert (
        np.linalg.norm(found.boxes.center[pairs[:, 0]] - boxes[pairs[:, 1], :3], axis=1).max()
        < 0.03
    )
    assert np.abs(found.scores[pairs[:, 0]] - scores[pairs[:, 1]]).max() < 0.005


def test_full_size_streaming_step_equals_the_two_frame_forward(monkeypatch):
    model = filled_model('2key')
    past, key = real_frames('infos_2frames.json')
    detector = Detector(model)
    detector(past)
    streamed, detections = head_maps(detector, key, monkeypatch)
    with torch.inference_mode():
        official = model(two_frame_inputs(key, past, model.config))
    assert_same_maps(streamed, official.tasks)
    boxes = decode(official.tasks, model.config)[0]
    pairs, unmatched = match_boxes(
        detections, np.hstack((boxes.boxes.center, boxes.boxes.size)), boxes.scores, boxes.labels
    )
    assert unmatched == 0 and len(pairs) == len(detections) > 100
