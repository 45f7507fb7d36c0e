"""Samples of nuScenes-format datasets: ground truth, augmentation, matrices and depth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pyquaternion import Quaternion

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.dataset import (
    NuScenesDataset,
    Sample,
    ground_truth,
    key_ego_from_camera,
    load_frame,
)
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.nuscenes.records import Annotations, Pose, SampleRecord, SensorRecord
from bevdepth_core.preprocess import normalize
from bevdepth_core.types import CameraMatrices, ModelInputs
from tests.core.frames import two_frame_inputs
from tests.core.nuscenes.dataroot import SPLIT, TOKEN, VERSION, make_dataroot
from tests.reference import float32_steps
from tests.sample import sample_infos, synthetic_sample

MATRICES = ('key_ego_from_camera', 'intrinsics', 'image_aug', 'bev_aug')


def dataset(root, **options) -> NuScenesDataset:
    return NuScenesDataset(
        load_index(root, VERSION, SPLIT, root.parent / 'cache'), root, ImageSpec(), 2, **options
    )


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return make_dataroot(tmp_path_factory.mktemp('two_frames') / 'dataset')


@pytest.fixture(scope='module')
def validation(tmp_path_factory):
    """Return the only sample of a scene. There is no earlier frame, so the past frame is the
    frame of the sample itself.
    """
    return dataset(make_dataroot(tmp_path_factory.mktemp('one_frame') / 'dataset', frames=1))[0]


def test_annotations_without_a_lidar_or_radar_point_are_not_ground_truth(root):
    record = load_index(root, VERSION, SPLIT, root.parent / 'cache')[1]
    assert len(record.annotations) == len(ground_truth(record)[0]) + 1


def test_a_tilted_box_has_the_yaw_that_pyquaternion_computes(root):
    record = load_index(root, VERSION, SPLIT, root.parent / 'cache')[1]
    tilted = Quaternion(axis=(1, 2, 0), degrees=8) * Quaternion(axis=(0, 0, 1), degrees=70)
    annotations = Annotations(
        np.array([0]),
        np.zeros((1, 3)),
        np.ones((1, 3)),
        tilted.elements[None],
        np.zeros((1, 3)),
        np.array([1]),
        np.array([True]),
        np.array([b'']),
        np.array([1.0]),
    )
    object.__setattr__(record, 'annotations', annotations)
    official = (Quaternion(record.world_from_ego().quaternion).inverse * tilted).yaw_pitch_roll[0]
    usual = (Quaternion(record.world_from_ego().quaternion).inverse * tilted).rotation_matrix
    assert ground_truth(record)[0].yaw[0] == pytest.approx(official, abs=1e-6)
    assert abs(official - np.arctan2(usual[1, 0], usual[0, 0])) > 1e-3


def test_the_first_frame_of_a_scene_is_its_own_past_frame(root):
    sample = dataset(root)[0]
    assert torch.equal(sample.images[0], sample.images[1])
    assert torch.equal(
        sample.matrices.key_ego_from_camera[0], sample.matrices.key_ego_from_camera[1]
    )


def test_a_sample_without_annotations_has_no_boxes_and_no_labels(tmp_path):
    root = make_dataroot(tmp_path / 'dataset', frames=1)
    (root / VERSION / 'sample_annotation.json').write_text('[]')
    sample = dataset(root).sample(0, np.random.default_rng(0))
    assert sample.boxes.shape == (0, 9) and sample.labels.shape == (0,)


def test_an_augmented_sample_depends_only_on_its_random_generator(root):
    first, again, other = (
        dataset(root).sample(1, np.random.default_rng(seed)) for seed in (5, 5, 6)
    )
    assert all(
        torch.equal(getattr(first, name), getattr(again, name))
        for name in ('images', 'boxes', 'labels', 'depth')
    )
    assert all(
        torch.equal(getattr(first.matrices, name), getattr(again.matrices, name))
        for name in MATRICES
    )
    assert not torch.equal(first.matrices.image_aug, other.matrices.image_aug) and not torch.equal(
        first.matrices.bev_aug, other.matrices.bev_aug
    )
    assert first.name == TOKEN


def test_each_camera_has_its_own_image_transform_which_is_the_same_in_all_frames(root):
    aug = dataset(root).sample(1, np.random.default_rng(0)).matrices.image_aug
    assert torch.equal(aug[0], aug[1])
    assert len({tuple(matrix.ravel().tolist()) for matrix in aug[0]}) == 6


def test_matrices_boxes_and_depth_of_an_augmented_sample_are_consistent(root):
    """The inverses of the random matrices transform boxes and lidar points of the augmented
    sample back to the boxes and points of the sample without augmentation.
    """
    plain, augmented = dataset(root)[1], dataset(root).sample(1, np.random.default_rng(1))
    back = augmented.boxes[:, :3] @ torch.linalg.inv(augmented.matrices.bev_aug[:3, :3]).T
    assert torch.allclose(back, plain.boxes[:, :3], atol=1e-4)
    for camera in range(6):
        pixels = _pixels_by_depth(plain, camera), _pixels_by_depth(augmented, camera)
        common = sorted(pixels[0].keys() & pixels[1].keys())
        assert len(common) > 1000
        first, second = (np.array([found[depth] for depth in common]) for found in pixels)
        apart = np.abs(first - second)
        assert np.quantile(apart, 0.99) < 5  # by chance, a few different points have equal depths


def _pixels_by_depth(sample: Sample, camera: int) -> dict[float, tuple[float, float]]:
    """Map each depth in the depth map of a camera to its pixel (u, v) in the source image."""
    depths = sample.depth[camera].numpy()
    rows, columns = np.nonzero(depths)
    depth = depths[rows, columns]
    points = np.stack([columns + 0.5, rows + 0.5, depth, np.ones_like(depth)])
    u, v = (np.linalg.inv(sample.matrices.image_aug[0, camera].numpy()) @ points)[:2]
    return dict(zip(depth.tolist(), zip(u.tolist(), v.tolist(), strict=True), strict=True))


def test_samples_are_selected_and_repeated_by_their_positions(root):
    chosen = dataset(root, positions=[1, 0, 1])
    assert len(chosen) == 3 and [chosen[place].name for place in (0, 2)] == [TOKEN, TOKEN]


def test_a_validation_sample_gives_model_inputs_of_two_frames_and_six_cameras(validation):
    matrices = CameraMatrices.stack([validation.matrices])
    assert ModelInputs(normalize(validation.images[None], ImageSpec()), matrices).images.shape == (
        1,
        2,
        6,
        3,
        256,
        704,
    )


def test_inputs_from_loaded_frames_equal_the_inputs_from_the_dataset(root):
    index, sample = load_index(root, VERSION, SPLIT, root.parent / 'cache'), dataset(root)[1]
    key, past = load_frame(index[1], root), load_frame(index[0], root)
    inputs = two_frame_inputs(key, past, ModelConfig())
    assert key.rig.names == CAMERAS
    assert torch.equal(inputs.images[0], normalize(sample.images, ImageSpec()))
    assert torch.equal(inputs.matrices.image_aug[0], sample.matrices.image_aug) and torch.equal(
        inputs.matrices.intrinsics[0], sample.matrices.intrinsics
    )
    apart = inputs.matrices.key_ego_from_camera[0] - sample.matrices.key_ego_from_camera
    assert apart.abs().max() <= float32_steps(1011.0)  # the largest world coordinate, m
    cameras = sample_infos(synthetic_sample())[1]['cam_infos']
    assert key.stamps_ns.tolist() == [cameras[name]['timestamp'] * 1000 for name in CAMERAS]


def sensor(channel: str, ego_from_sensor: Pose, world_from_ego: Pose) -> SensorRecord:
    return SensorRecord(channel, '', 0, ego_from_sensor, world_from_ego, (96, 64), np.eye(3))


LEFT = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
"""Quaternion of a turn of 90 degrees to the left, about z."""
STILL = np.array([1.0, 0, 0, 0])


def turned_record() -> SampleRecord:
    """Return a sample with three boxes; the vehicle is at (10, 20, 1) m and faces along y."""
    pose = Pose(LEFT, np.array([10.0, 20.0, 1.0]))
    annotations = Annotations(
        label=np.array([3, 1, 2]),
        center=np.array([(10.0, 25, 2), (0.0, 0, 0), (8.0, 20, 1)]),
        size=np.array([(2.0, 4, 1.5), (1.0, 1, 1), (3.0, 8, 3)]),
        quaternion=np.array([LEFT, STILL, STILL]),
        velocity=np.array([(0.0, 5, 0), (1.0, 1, 1), (np.nan, np.nan, np.nan)]),
        points=np.array([3, 0, -1]),
        seen=np.array([True, False, True]),
        attribute=np.array([b'', b'', b'']),
        score=np.array([1.0, 0.5, 0.25]),
    )
    cameras = (sensor('front', Pose(STILL, np.array([1.0, 0, 1.5])), pose),)
    return SampleRecord('token', 'scene', 0, cameras, None, annotations)


def test_ground_truth_is_in_the_frame_of_the_vehicle():
    boxes, labels = ground_truth(turned_record())
    assert labels.tolist() == [3, 2]
    assert boxes.center == pytest.approx(np.array([(5, 0, 1), (0, 2, 0)]), abs=1e-5)
    assert boxes.size.tolist() == [[4, 2, 1.5], [8, 3, 3]]
    assert boxes.yaw == pytest.approx(np.array([0, -np.pi / 2]), abs=1e-6)
    assert boxes.velocity == pytest.approx(np.array([(5, 0), (0, 0)]), abs=1e-5)


def test_the_cameras_of_a_past_frame_have_extrinsics_in_the_ego_frame_of_the_key_frame():
    record = turned_record()
    earlier = Pose(STILL, np.array([10.0, 17.0, 1.0]))
    past = (sensor('front', Pose(STILL, np.array([1.0, 0, 1.5])), earlier),)
    frame = SampleRecord('past', 'scene', 0, past, None, record.annotations)
    of_key_frame = key_ego_from_camera(record, record)[0]
    of_past_frame = key_ego_from_camera(record, frame)[0]
    assert of_key_frame[:3, 3].tolist() == pytest.approx([1, 0, 1.5], abs=1e-5)
    # In the world, the past camera is at (11, 17, 2.5) m. The vehicle of the key frame is at
    # (10, 20, 1) m and faces along y.
    assert of_past_frame[:3, 3].tolist() == pytest.approx([-3, -1, 1.5], abs=1e-5)
    assert of_past_frame[:3, 0].tolist() == pytest.approx([0, -1, 0], abs=1e-6)
    assert of_past_frame.dtype == torch.float32
