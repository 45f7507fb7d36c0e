"""The public data types reject an invalid value with an error that names the field."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.types import (
    BOX_MAPS,
    Boxes3D,
    CameraMatrices,
    CameraRig,
    Detections3D,
    ModelInputs,
    join_box_values,
    split_box_values,
)
from tests.core.frames import make_frame, make_rig

FRAME = make_frame(1.0, make_rig(2))
RIG = FRAME.rig


def changed(array: np.ndarray, index, value) -> np.ndarray:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ('field', 'value', 'error'),
    [
        ('names', (), ValueError),
        ('names', ('a', 'a'), ValueError),
        ('intrinsics', RIG.intrinsics[:1], ValueError),
        ('intrinsics', changed(RIG.intrinsics, (0, 0, 0), np.nan), ValueError),
        ('intrinsics', changed(RIG.intrinsics, (0, 0, 0), 0), ValueError),
        ('intrinsics', changed(RIG.intrinsics, (1, 2, 0), 1), ValueError),
        ('intrinsics', RIG.intrinsics.astype(str), TypeError),
        ('ego_from_camera', changed(RIG.ego_from_camera, (0, 0, 0), 0.5), ValueError),
        (
            'ego_from_camera',
            changed(RIG.ego_from_camera, (0, slice(3), 0), -RIG.ego_from_camera[0, :3, 0]),
            ValueError,
        ),
        ('ego_from_camera', changed(RIG.ego_from_camera, (0, 3, 0), 1), ValueError),
        ('ego_from_camera', changed(RIG.ego_from_camera, (1, 0, 3), np.inf), ValueError),
        ('ego_from_camera', RIG.ego_from_camera[:, :3], ValueError),
    ],
)
def test_the_error_about_an_invalid_value_of_a_rig_names_the_field(field, value, error):
    with pytest.raises(error, match=field):
        dataclasses.replace(RIG, **{field: value})


@pytest.mark.parametrize(
    ('field', 'value', 'error'),
    [
        ('images', FRAME.images[:1], ValueError),
        ('images', (FRAME.images[0], FRAME.images[1][..., 0]), ValueError),
        ('images', (FRAME.images[0], FRAME.images[1].astype(np.float32)), TypeError),
        ('images', (FRAME.images[0], FRAME.images[1][:0]), ValueError),
        ('images', (FRAME.images[0], None), ValueError),
        ('stamps_ns', [1], ValueError),
        ('stamps_ns', [1.5, 2.5], TypeError),
        ('world_from_ego', np.zeros((2, 4, 4)), ValueError),
        ('world_from_ego', np.full((2, 4, 4), np.nan), ValueError),
    ],
)
def test_the_error_about_an_invalid_value_of_a_frame_names_the_field(field, value, error):
    with pytest.raises(error, match=field):
        dataclasses.replace(FRAME, **{field: value})


def test_the_mean_of_camera_stamps_does_not_overflow():
    stamps = np.array([1_900_000_000_000_000_000, 1_900_000_000_000_000_010])
    assert dataclasses.replace(FRAME, stamps_ns=stamps).stamp_ns == 1_900_000_000_000_000_005


def matrices(*samples: int, **changes: torch.Tensor) -> CameraMatrices:
    """Return matrices of two frames with six cameras; no number occurs twice in one field."""
    shape = (*samples, 2, 6, 4, 4)
    numbers = torch.arange(3.0 * torch.Size(shape).numel()).view(3, *shape)
    fields = dict(zip(('key_ego_from_camera', 'intrinsics', 'image_aug'), numbers, strict=True))
    fields['bev_aug'] = torch.arange(16.0 * torch.Size(samples).numel()).view(*samples, 4, 4)
    return CameraMatrices(**{**fields, **changes})


def tensors(cameras: CameraMatrices) -> dict[str, torch.Tensor]:
    return {field.name: getattr(cameras, field.name) for field in dataclasses.fields(cameras)}


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('key_ego_from_camera', torch.zeros(1, 2, 6, 3, 4)),
        ('intrinsics', torch.zeros(1, 2, 6, 3, 3)),
        ('intrinsics', torch.zeros(1, 2, 5, 4, 4)),
        ('image_aug', torch.zeros(1, 2, 6, 4, 4, dtype=torch.float16)),
        ('image_aug', torch.zeros(2, 2, 6, 4, 4)),
        ('bev_aug', torch.zeros(1, 3, 3)),
        ('bev_aug', torch.zeros(2, 4, 4)),
        ('bev_aug', torch.zeros(4)),
    ],
)
def test_the_error_about_invalid_camera_matrices_names_the_field(field, value):
    assert matrices(1).intrinsics.shape == (1, 2, 6, 4, 4)
    with pytest.raises(ValueError, match=field):
        matrices(1, **{field: value})


def test_stacked_camera_matrices_keep_samples_in_order():
    first, second = matrices(), CameraMatrices(*(tensors(matrices()).values()))
    second = dataclasses.replace(second, intrinsics=second.intrinsics + 1, bev_aug=torch.eye(4))
    batch = CameraMatrices.stack([first, second])
    for place, sample in enumerate((first, second)):
        for name, tensor in tensors(sample).items():
            assert torch.equal(getattr(batch, name)[place], tensor)


def test_the_camera_matrices_of_one_frame_can_be_selected():
    batch = matrices(3)
    frame = batch.frame(1)
    assert torch.equal(frame.bev_aug, batch.bev_aug)
    for name in ('key_ego_from_camera', 'intrinsics', 'image_aug'):
        assert torch.equal(getattr(frame, name), getattr(batch, name)[:, 1])


def test_camera_matrices_move_to_a_device():
    on_meta = matrices(1).to('meta')
    assert all(tensor.device.type == 'meta' for tensor in tensors(on_meta).values())
    assert on_meta.bev_aug.shape == (1, 4, 4)


@pytest.mark.parametrize(
    ('field', 'images', 'cameras'),
    [
        ('images', torch.zeros(1, 2, 6, 32, 32, 3), matrices(1)),
        ('images', torch.zeros(1, 2, 6, 3, 32, 32, dtype=torch.uint8), matrices(1)),
        ('images', torch.zeros(2, 6, 3, 32, 32), matrices(1)),
        ('matrices.key_ego_from_camera', torch.zeros(1, 1, 6, 3, 32, 32), matrices(1)),
        ('matrices.key_ego_from_camera', torch.zeros(1, 2, 6, 3, 32, 32), matrices(2)),
        (
            'matrices.bev_aug',
            torch.zeros(1, 2, 6, 3, 32, 32),
            matrices(1, bev_aug=torch.zeros(1, 2, 4, 4)),
        ),
    ],
)
def test_the_error_about_invalid_model_inputs_names_the_field(field, images, cameras):
    with pytest.raises(ValueError, match=field):
        ModelInputs(images, cameras)
    assert ModelInputs(torch.zeros(1, 2, 6, 3, 32, 32), matrices(1)).images.ndim == 6


def boxes(count: int) -> Boxes3D:
    return Boxes3D(
        np.zeros((count, 3)), np.ones((count, 3)), np.zeros(count), np.zeros((count, 2))
    )


@pytest.mark.parametrize(
    ('field', 'value'),
    [
        ('center', np.zeros((2, 2))),
        ('size', np.zeros((2, 3))),
        ('yaw', np.array([0, np.nan])),
        ('velocity', np.zeros((1, 2))),
    ],
)
def test_the_error_about_an_invalid_value_of_boxes_names_the_field(field, value):
    with pytest.raises(ValueError, match=field):
        dataclasses.replace(boxes(2), **{field: value})


def test_the_corners_of_a_box_turned_by_90_degrees_have_length_and_width_exchanged():
    box = Boxes3D([[10, 5, 1]], [[4, 2, 1.5]], [np.pi / 2], [[0, 0]])
    corners = box.corners()[0]
    assert np.allclose(corners.mean(axis=0), (10, 5, 1))
    assert np.allclose(np.ptp(corners, axis=0), (2, 4, 1.5), atol=1e-5)
    assert np.allclose(corners[:4, 1], 7)


def test_detections_reject_unknown_labels_and_wrong_counts():
    with pytest.raises(ValueError, match='labels'):
        Detections3D(boxes(1), [0.5], [1], ('car',), 0)
    with pytest.raises(ValueError, match='scores'):
        Detections3D(boxes(2), [0.5], [0, 0], ('car',), 0)


def test_detections_above_a_score_keep_stamps_class_names_and_stage_times():
    found = Detections3D(
        boxes(3), [0.9, 0.5, 0.1], [0, 1, 0], ('car', 'bus'), 7, 3, {'decode': 0.1}
    )
    best = found.above(0.5)
    assert best.scores.tolist() == pytest.approx([0.9, 0.5]) and best.labels.tolist() == [0, 1]
    assert (best.stamp_ns, best.past_stamp_ns, best.class_names, dict(best.stage_seconds)) == (
        7,
        3,
        ('car', 'bus'),
        {'decode': 0.1},
    )


def test_detections_may_be_empty():
    assert len(Detections3D(boxes(0), np.zeros(0), np.zeros(0, int), ('car',), 0)) == 0


def test_a_rig_may_have_one_camera():
    assert len(CameraRig(['front'], RIG.intrinsics[:1], RIG.ego_from_camera[:1])) == 1


def test_box_values_have_the_official_order():
    values = torch.arange(10.0)[None]
    parts = split_box_values(values, dim=1)
    assert {name: part[0].tolist() for name, part in parts.items()} == {
        'reg': [0, 1],
        'height': [2],
        'dim': [3, 4, 5],
        'rot': [6, 7],
        'vel': [8, 9],
    }
    assert list(BOX_MAPS) == ['reg', 'height', 'dim', 'rot', 'vel']
    assert torch.equal(join_box_values(parts, dim=1), values)


def test_the_stamp_of_a_frame_is_the_mean_of_its_camera_stamps():
    start = 1_700_000_000_123_456_789
    stamps = np.array([start, start + 10, start + 23])
    frame = dataclasses.replace(make_frame(1.0, make_rig(3)), stamps_ns=stamps)
    assert frame.stamp_ns == start + 11
    assert (
        dataclasses.replace(make_frame(1.0, make_rig(1)), stamps_ns=stamps[:1]).stamp_ns == start
    )
