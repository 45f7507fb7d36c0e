"""A calibration is computed for a rig and image sizes, and is reused while both stay the same."""

import dataclasses

import numpy as np
import pytest
import torch

from bevdepth_core.config import ImageSpec
from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.geometry import to_4x4
from bevdepth_core.inference import Detector
from bevdepth_core.model.depth_net import camera_vector
from bevdepth_core.model.view_transform import ego_from_frustum
from bevdepth_core.preprocess import image_matrices
from bevdepth_core.types import CameraMatrices, CameraRig
from tests.core.frames import make_frame, make_rig
from tests.networks import random_model

SPEC = ImageSpec(64, 160)
RIG = make_rig(3, 320, 180)
IMAGES = [np.zeros((180, 320, 3), np.uint8)] * 3


def changed_rig(**changes) -> CameraRig:
    return dataclasses.replace(RIG, **changes)


def moved(camera: int) -> CameraRig:
    poses = RIG.ego_from_camera.copy()
    poses[camera, 0, 3] += 0.01
    return changed_rig(ego_from_camera=poses)


def zoomed(camera: int) -> CameraRig:
    intrinsics = RIG.intrinsics.copy()
    intrinsics[camera, 0, 0] *= 1.01
    return changed_rig(intrinsics=intrinsics)


def matrices_of(rig: CameraRig, images: list[np.ndarray]) -> CameraMatrices:
    arrays = (rig.ego_from_camera, to_4x4(rig.intrinsics), image_matrices(images, SPEC))
    tensors = (torch.from_numpy(matrix).float()[None] for matrix in arrays)
    return CameraMatrices(*tensors, torch.eye(4)[None])


def test_the_camera_vector_and_the_frustum_matrices_agree_with_the_functions_of_the_model():
    calibration = Calibration.of(RIG, IMAGES, SPEC)
    matrices = matrices_of(RIG, IMAGES)
    assert torch.equal(calibration.cameras, camera_vector(matrices))
    assert calibration.cameras.dtype == torch.float32
    frustum = calibration.ego_from_frustum(RIG.ego_from_camera)
    assert frustum.shape == (1, 3, 3, 4) and frustum.dtype == torch.float32
    assert torch.allclose(frustum, ego_from_frustum(matrices), rtol=1e-5, atol=1e-6)


def test_a_calibration_is_reused_for_the_same_rig_and_sizes_even_if_names_differ():
    calibration = Calibration.of(RIG, IMAGES, SPEC)
    assert calibration.holds_for(make_rig(3, 320, 180), [image.copy() for image in IMAGES])
    assert calibration.holds_for(changed_rig(names=('a', 'b', 'c')), IMAGES)


@pytest.mark.parametrize('camera', range(3))
def test_a_calibration_is_not_reused_for_a_moved_or_zoomed_camera_or_another_image_size(camera):
    calibration = Calibration.of(RIG, IMAGES, SPEC)
    assert not calibration.holds_for(moved(camera), IMAGES)
    assert not calibration.holds_for(zoomed(camera), IMAGES)
    for size in ((181, 320), (180, 321), (320, 180)):
        images = list(IMAGES)
        images[camera] = np.zeros((*size, 3), np.uint8)
        assert not calibration.holds_for(RIG, images)
    assert not calibration.holds_for(make_rig(2, 320, 180), IMAGES[:2])


@pytest.fixture(scope='module')
def model():
    return random_model('small')


def assert_same(found, expected):
    assert len(found) == len(expected) > 50
    assert np.array_equal(found.boxes.center, expected.boxes.center)
    assert np.array_equal(found.scores, expected.scores)


@pytest.mark.parametrize('change', ['size', 'moved', 'zoomed'])
def test_after_a_change_of_rig_or_image_size_the_boxes_equal_the_boxes_of_a_new_detector(
    model, change
):
    detector = Detector(model)
    detector(make_frame(0.0, RIG, size=(180, 320)))
    rig = {'size': RIG, 'moved': moved(1), 'zoomed': zoomed(2)}[change]
    size = (160, 320) if change == 'size' else (180, 320)
    frame = make_frame(5.0, rig, size=size, seed=3)
    found = detector(frame)
    assert_same(found, Detector(model)(frame))
    same_images = dataclasses.replace(frame, rig=RIG)
    if change != 'size':
        other = Detector(model)(same_images)
        assert not np.array_equal(found.scores[: len(other)], other.scores[: len(found)])
