"""Compares samples from ``NuScenesDataset`` with samples from the official pipeline. Both
pipelines read the real nuScenes sample."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from bevdepth_core.config import ImageSpec
from bevdepth_core.nuscenes.augment import BevTransform
from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.dataset import NuScenesDataset, Sample
from bevdepth_core.nuscenes.images import read_crop
from bevdepth_core.nuscenes.index import load_index
from bevdepth_core.preprocess import ImageTransform, normalize, preprocess
from tests.core.nuscenes.dataroot import SPLIT, VERSION, make_dataroot
from tests.core.parity import real_images
from tests.reference import float32_steps, reference_golden
from tests.sample import sample_paths

OFFICIAL, ARRAYS = reference_golden('pipeline')
FRONT = CAMERAS.index('CAM_FRONT')
TRANSFORMS = [
    ImageTransform(
        camera['resize'], *camera['crop'][:2], 704, 256, camera['flip'], camera['rotate']
    )
    for camera in OFFICIAL['train_aug']['per_cam']
]
WORLD_M = 1011.0
"""Largest world coordinate of the real sample in m. The official code subtracts coordinates of
this size in float32. Its results therefore have the rounding errors of float32 numbers of this
size."""
MATRICES = {
    'key_ego_from_camera': ('sensor2ego', WORLD_M),
    'intrinsics': ('intrin', 0.0),
    'image_aug': ('ida', 1600.0),
    'bev_aug': ('bda', 1.0),
}
"""Maps our name of a matrix to its official name and to a size. The size is the largest absolute
value that is rounded to float32 while the matrix is computed; 0 means that the matrices must be
equal."""


def dataset(root: Path) -> NuScenesDataset:
    index = load_index(root, VERSION, SPLIT, root.parent / 'cache')
    return NuScenesDataset(index, root, ImageSpec(), 2)


@pytest.fixture(scope='module')
def two_frames(tmp_path_factory: pytest.TempPathFactory, real_sample: Path) -> NuScenesDataset:
    folder = tmp_path_factory.mktemp('two_frames') / 'dataset'
    return dataset(make_dataroot(folder, sample=real_sample))


@pytest.fixture(scope='module')
def validation(tmp_path_factory: pytest.TempPathFactory, real_sample: Path) -> Sample:
    """Return the sample that our code loads from the inputs of the official validation sample. The
    scene has one real frame, which is also used as past frame."""
    folder = tmp_path_factory.mktemp('one_frame') / 'dataset'
    return dataset(make_dataroot(folder, frames=1, sample=real_sample))[0]


@pytest.fixture(scope='module')
def training(two_frames: NuScenesDataset) -> Sample:
    """Return the sample that our code loads from the inputs of the official training sample, with
    the stored augmentation and with two different frames."""
    bda = OFFICIAL['train_aug']['bda']
    bev = BevTransform(bda['rotate'], bda['scale'], bda['flip_dx'], bda['flip_dy'])
    return two_frames.load(1, TRANSFORMS, bev, read_crop)


@pytest.fixture
def sample(request: pytest.FixtureRequest, validation: Sample, training: Sample) -> Sample:
    return {'val': validation, 'train': training}[request.param]


BOTH = pytest.mark.parametrize(
    ('sample', 'case'), [('val', 'val'), ('train', 'train')], indirect=['sample']
)


@pytest.mark.parametrize('name', MATRICES)
@BOTH
def test_matrices_equal_the_official_matrices(sample: Sample, case: str, name: str) -> None:
    theirs, size = MATRICES[name]
    matrix = getattr(sample.matrices, name)
    assert matrix.dtype == torch.float32
    assert np.abs(matrix.numpy() - ARRAYS[f'{case}/{theirs}']).max() <= float32_steps(size)


@BOTH
def test_images_equal_the_official_images(sample: Sample, case: str) -> None:
    images = normalize(sample.images, ImageSpec()).numpy()
    expected = OFFICIAL['val_image' if case == 'val' else 'train_aug']
    expected = expected.get('image', expected)
    assert list(images.shape) == expected['shape']
    stored = images.ravel()[ARRAYS[f'{case}/image/idx']]
    assert np.allclose(stored, ARRAYS[f'{case}/image/val'], atol=1e-5)
    assert np.linalg.norm(images.astype(np.float64)) == pytest.approx(expected['l2'], rel=1e-6)


@pytest.mark.parametrize('camera', range(6))
@BOTH
def test_lidar_depth_equals_the_official_depth_in_every_pixel(
    sample: Sample, case: str, camera: int
) -> None:
    expected = np.zeros(256 * 704, np.float32)
    name = f'lidar/{CAMERAS[camera]}/{case}'
    expected[ARRAYS[f'{name}/idx']] = ARRAYS[f'{name}/depth']
    depth = sample.depth[camera].numpy().ravel()
    assert np.array_equal(depth > 0, expected > 0)
    assert np.allclose(depth, expected, atol=1e-4)


def test_ground_truth_equals_the_official_boxes_and_labels(
    two_frames: NuScenesDataset, training: Sample
) -> None:
    for sample, name in ((two_frames[1], 'gt/'), (training, 'train/gt_')):
        distance = np.abs(sample.boxes.numpy() - ARRAYS[f'{name}boxes']).max()
        assert distance <= float32_steps(WORLD_M)
        assert np.array_equal(sample.labels.numpy(), ARRAYS[f'{name}labels'])


def test_the_mean_ego_pose_over_the_cameras_equals_the_official_mean_pose(
    real_sample: Path, tmp_path: Path
) -> None:
    root = make_dataroot(tmp_path / 'dataset', sample=real_sample)
    pose = load_index(root, VERSION, SPLIT, tmp_path / 'cache')[1].world_from_ego()
    official = OFFICIAL['val_img_metas']
    assert np.allclose(pose.quaternion, official['ego2global_rotation'], atol=1e-15)
    assert np.allclose(pose.translation, official['ego2global_translation'], atol=1e-12)


def read_front(sample: Path) -> np.ndarray:
    return np.asarray(Image.open(sample_paths(sample)[FRONT]))


def test_pixels_of_the_validation_image_equal_the_official_pixels(real_sample: Path) -> None:
    crops, _ = preprocess([read_front(real_sample)], ImageSpec())
    # The official pixels are stored in the order blue, green, red.
    assert np.array_equal(crops[0][..., ::-1], ARRAYS['val/image_cam_front_uint8'])


def test_pixels_of_the_augmented_training_image_equal_the_official_pixels(
    real_sample: Path,
) -> None:
    crop = TRANSFORMS[FRONT].apply(read_front(real_sample))
    assert np.array_equal(crop[..., ::-1], ARRAYS['train/image_cam_front_uint8'])


def test_mean_and_norm_of_the_network_input_equal_the_official_numbers() -> None:
    expected = OFFICIAL['val_image']
    images = real_images().double()
    assert images.mean().item() == pytest.approx(expected['mean'], rel=1e-6)
    # The official norm includes two equal frames, so it is larger by the factor sqrt(2).
    assert images.norm().item() * np.sqrt(2) == pytest.approx(expected['l2'], rel=1e-6)
