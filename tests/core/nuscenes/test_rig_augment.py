"""Augmented rigs. The image warp for another focal length or pitch is exact, and the images,
matrices and depth of a changed rig agree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from bevdepth_core.config import ImageSpec
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.nuscenes.augment import (
    Augmentation,
    BevAugmentation,
    BevTransform,
    ImageAugmentation,
)
from bevdepth_core.nuscenes.classes import ClassMap
from bevdepth_core.nuscenes.dataset import NuScenesDataset
from bevdepth_core.nuscenes.images import covered_mask, read_crop_fast, read_warped
from bevdepth_core.nuscenes.index import Selection, load_index
from bevdepth_core.nuscenes.records import Pose, SensorRecord
from bevdepth_core.nuscenes.rig_augment import CameraChange, RigAugmentation, RigChange
from bevdepth_core.preprocess import ImageTransform
from tests.core.nuscenes.own_rig import FORWARD, SPLIT, VERSION, write_own_dataset

STILL = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))
MATRIX = np.array([[100.0, 0, 80], [0, 100, 60], [0, 0, 1]])


def camera(height: float = 1.5) -> SensorRecord:
    """Return a camera at x = 1 m, y = 0 that looks along x; ``height`` is in meters."""
    pose = Pose(np.array(FORWARD), np.array([1.0, 0, height]))
    return SensorRecord('front', 'front.png', 0, pose, STILL, (160, 120), MATRIX)


def projected(record: SensorRecord, points: np.ndarray) -> np.ndarray:
    """Return the (n, 2) pixels at which the camera shows (n, 3) points of the ego frame."""
    sensor_from_ego = invert_rigid(record.ego_from_sensor.matrix())
    pixels = (points @ sensor_from_ego[:3, :3].T + sensor_from_ego[:3, 3]) @ record.intrinsics.T
    return pixels[:, :2] / pixels[:, 2:]


def moved(change: CameraChange, record: SensorRecord, points: np.ndarray) -> np.ndarray:
    """Return the (n, 2) pixels at which the warped image shows (n, 3) points of the ego frame."""
    pixels = np.column_stack((projected(record, points), np.ones(len(points))))
    warped = pixels @ change.homography(record).T
    return warped[:, :2] / warped[:, 2:]


POINTS = np.array([(11.0, 2, 0.5), (6, -1, 2.5), (41, 8, 1.5), (5, 1, 0)])


@pytest.mark.parametrize(
    'change', [CameraChange(1.3), CameraChange(pitch_deg=4), CameraChange(0.8, -3)]
)
def test_the_warp_for_another_focal_length_and_pitch_is_exact_for_every_point(
    change: CameraChange,
) -> None:
    expected = projected(change.applied(camera()), POINTS)
    np.testing.assert_allclose(moved(change, camera(), POINTS), expected, atol=1e-9)


@pytest.mark.parametrize('change', [CameraChange(height=0.6), CameraChange(1.2, 2, -0.5)])
def test_the_warp_for_another_camera_height_is_exact_for_points_on_the_ground(
    change: CameraChange,
) -> None:
    ground = POINTS * (1, 1, 0)
    expected = projected(change.applied(camera()), ground)
    np.testing.assert_allclose(moved(change, camera(), ground), expected, atol=1e-9)


def test_the_warp_for_another_camera_height_keeps_the_horizon_and_stretches_objects() -> None:
    change = CameraChange(height=0.6)
    point = np.array([(11.0, 2, 0.5)])
    # The point is 10 m ahead of the camera and 1 m below it: row 60 + 100 * 1 / 10 = 70. The warp
    # multiplies the distance to the horizon (row 60) by the ratio of the heights, 2.1 / 1.5.
    assert projected(camera(), point)[0].tolist() == pytest.approx([60, 70])
    assert moved(change, camera(), point)[0].tolist() == pytest.approx([60, 74])
    assert projected(change.applied(camera()), point)[0].tolist() == pytest.approx([60, 76])
    horizon = np.array([(1e9, 3, 1.5)])
    assert moved(change, camera(), horizon)[0, 1] == pytest.approx(60, abs=1e-3)


def test_a_changed_camera_has_the_changed_intrinsics_height_and_pitch() -> None:
    changed = CameraChange(1.25, 0, 0.4).applied(camera())
    assert changed.intrinsics.tolist() == [[125, 0, 80], [0, 125, 60], [0, 0, 1]]
    assert changed.ego_from_sensor.translation.tolist() == [1, 0, 1.9]
    down = CameraChange(pitch_deg=10).applied(camera())
    axis = down.ego_from_sensor.matrix()[:3, 2]
    np.testing.assert_allclose(axis, (np.cos(np.pi / 18), 0, -np.sin(np.pi / 18)), atol=1e-12)


@pytest.mark.parametrize(
    ('height', 'change', 'result'),
    [(1.5, -0.4, 1.1), (0.5, -0.4, 0.3), (0.2, -0.1, 0.2), (0.2, 1, 0.2)],
)
def test_no_camera_is_lowered_below_0_3_m_and_a_camera_below_0_3_m_keeps_its_height(
    height: float, change: float, result: float
) -> None:
    changed = CameraChange(height=change).applied(camera(height))
    assert changed.ego_from_sensor.translation[2] == pytest.approx(result)


def spot(path: Path, x: float, y: float) -> Path:
    """Write a black image with a bright spot at pixel (x, y), and return its path."""
    rows, columns = np.mgrid[:120, :160]
    image = 250 * np.exp(-((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2) / 18)
    cv2.imwrite(str(path), image.astype(np.uint8))
    return path


def center_of(image: np.ndarray) -> np.ndarray:
    weights = image[..., 0].astype(float)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]] + 0.5
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


@pytest.mark.parametrize('flip', [False, True])
def test_the_warped_image_shows_a_point_where_the_changed_matrices_project_it(
    tmp_path: Path, flip: bool
) -> None:
    change, point = CameraChange(1.2, 3), np.array([(11.0, 1.5, 1.0)])
    path = spot(tmp_path / 'spot.png', *projected(camera(), point)[0])
    transform = ImageTransform(0.8, 8, 10, 96, 80, flip, 4.0)
    image = read_warped(path, transform, change.homography(camera()))
    pixel = np.array([*projected(change.applied(camera()), point)[0], 1, 1])
    np.testing.assert_allclose(center_of(image), (transform.matrix() @ pixel)[:2], atol=0.4)


def test_the_warped_image_of_an_unchanged_rig_equals_the_fast_crop_within_3_gray_levels(
    tmp_path: Path,
) -> None:
    path = tmp_path / 'image.png'
    rows, columns = np.mgrid[:120, :160]
    waves = 120 + 60 * np.sin(columns / 9) + 60 * np.sin(rows / 7)
    cv2.imwrite(str(path), waves.astype(np.uint8))
    transform = ImageTransform(0.8, 10, 12, 96, 80)
    warped, plain = read_warped(path, transform, np.eye(3)), read_crop_fast(path, transform)
    assert np.abs(warped.astype(int) - plain).max() <= 3
    assert covered_mask((160, 120), transform, np.eye(3)).all()


def test_the_mask_marks_the_crop_pixels_that_lie_inside_the_source_image() -> None:
    narrow = CameraChange(0.5).homography(camera())
    part = covered_mask((160, 120), ImageTransform(1.0, 0, 0, 160, 120), narrow)
    assert part[40:80, 50:110].all() and not part[:20].any() and not part[:, :30].any()


def test_changes_are_sampled_from_their_ranges() -> None:
    augmentation = RigAugmentation((0.9, 1.1), (-1, 2), (0.1, 0.3), min_cameras=2)
    changes = [augmentation.draw(np.random.default_rng(seed), 5) for seed in range(200)]
    cameras = [change for rig in changes for change in rig.cameras]
    assert all(0.9 <= c.focal <= 1.1 and -1 <= c.pitch_deg <= 2 for c in cameras)
    assert all(len({c.height for c in rig.cameras}) == 1 for rig in changes)
    assert all(0.1 <= c.height <= 0.3 for c in cameras)
    assert all(sorted(rig.order) == list(range(5)) for rig in changes)
    assert {rig.camera_count for rig in changes} == {2, 3, 4, 5}
    assert len({rig.order for rig in changes}) > 50
    default = RigAugmentation().draw(np.random.default_rng(0), 5)
    assert (default.order, default.camera_count) == ((0, 1, 2, 3, 4), 5)
    assert RigAugmentation(min_cameras=9).draw(np.random.default_rng(0), 2).camera_count == 2


@pytest.mark.parametrize(
    ('values', 'message'),
    [
        ({'focal': (1.2, 0.8)}, 'rig.focal must be'),
        ({'focal': (0.0, 1.0)}, 'rig.focal must be positive'),
        ({'height': (1.0, 0.0)}, 'rig.height must be'),
        ({'min_cameras': 0}, 'rig.min_cameras must be at least 1'),
    ],
)
def test_the_message_about_an_invalid_range_names_its_option(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RigAugmentation(**values)


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> NuScenesDataset:
    root = write_own_dataset(tmp_path_factory.mktemp('rig') / 'data')
    index = load_index(
        root, VERSION, SPLIT, root.parent / 'cache', Selection(ClassMap(('car', 'truck')))
    )
    augmentation = Augmentation(
        ImageAugmentation((1.0, 1.0), True, rotation_deg=(0, 0), flip_probability=0),
        BevAugmentation((0, 0), (1, 1), 0, 0),
        RigAugmentation((1.2, 1.2), (2, 2), (0.2, 0.2)),
    )
    return NuScenesDataset(index, root, ImageSpec(32, 64), 2, augmentation)


def test_the_matrices_and_the_depth_of_a_sample_fit_the_changed_rig(
    dataset: NuScenesDataset,
) -> None:
    plain, changed = dataset[1], dataset.sample(1, np.random.default_rng(0))
    assert plain.camera_count == changed.camera_count == 2
    factor = changed.matrices.intrinsics[..., 0, 0] / plain.matrices.intrinsics[..., 0, 0]
    torch.testing.assert_close(factor, torch.full_like(factor, 1.2))
    rise = changed.matrices.key_ego_from_camera - plain.matrices.key_ego_from_camera
    torch.testing.assert_close(rise[..., 2, 3], torch.full((2, 2), 0.2))
    assert torch.equal(plain.boxes, changed.boxes) and changed.scores.tolist() == [1, 1]
    lidar = dataset.index[1].lidar
    assert lidar is not None and (changed.depth > 0).sum() > 20
    # The first pixel that has a depth is transformed to the ego frame, where it must be near a
    # lidar point.
    row, column = (changed.depth[0] > 0).nonzero()[0].tolist()
    depth = changed.depth[0, row, column]
    matrices = changed.matrices
    image = torch.linalg.inv(matrices.image_aug[0, 0])
    pixel = image @ torch.tensor([column + 0.5, row + 0.5, 1.0, 1.0])
    ray = torch.tensor([pixel[0] * depth, pixel[1] * depth, depth, 1.0])
    point = matrices.key_ego_from_camera[0, 0] @ torch.linalg.inv(matrices.intrinsics[0, 0]) @ ray
    path = dataset._dataroot / lidar.filename
    points_file = np.fromfile(path, np.float32).reshape(-1, 5)[:, :3] + (1.0, 0, 1.5)
    assert np.abs(points_file - point[:3].numpy()).max(axis=1).min() < 0.35


def test_cameras_are_reordered_together_with_their_images_depth_and_matrices(
    dataset: NuScenesDataset,
) -> None:
    spec = ImageSpec(32, 64)
    transforms = [ImageTransform.for_inference(96, 64, spec)] * 2
    transforms[1] = replace(transforms[1], flip=True)
    changes = (CameraChange(), CameraChange(1.5))
    same, turned = (
        dataset.load(1, transforms, BevTransform(), read_crop_fast, RigChange(changes, order, 1))
        for order in ((0, 1), (1, 0))
    )
    assert same.camera_count == 1
    for name in ('images', 'depth'):
        first, second = getattr(same, name), getattr(turned, name)
        axis = 1 if name == 'images' else 0
        assert torch.equal(first, second.flip(axis)), name
    for name in ('key_ego_from_camera', 'intrinsics', 'image_aug'):
        first, second = getattr(same.matrices, name), getattr(turned.matrices, name)
        assert torch.equal(first, second.flip(1)), name
    assert not torch.equal(same.matrices.intrinsics[:, 0], same.matrices.intrinsics[:, 1])
