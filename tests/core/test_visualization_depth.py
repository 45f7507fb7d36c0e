"""Predicted depth as colors and as points."""

from __future__ import annotations

import numpy as np
import torch

from bevdepth_core.config import DepthBins, ImageSpec, load_model_config
from bevdepth_core.inference import Detector
from bevdepth_core.model import BEVDepth
from bevdepth_core.synthetic import nuscenes_like_rig
from bevdepth_core.types import CameraRig, Frame
from bevdepth_core.visualization import (
    DepthMaps,
    compose,
    depth_points,
    draw_depth_on_image,
    expected_depth,
    likely_depth,
)
from tests.reference import ROOT

BINS, SPEC = DepthBins(2.0, 58.0, 0.5), ImageSpec(128, 352)
ROWS, COLUMNS = 8, 22
SOURCE_SIZE = (320, 180)


def distribution(**shares: float) -> torch.Tensor:
    """Return a (1, D, 8, 22) depth distribution that is the same in all pixels. ``bin10=0.5``
    gives bin 10 the probability 0.5.
    """
    result = torch.zeros(1, BINS.count, ROWS, COLUMNS)
    for name, share in shares.items():
        result[:, int(name.removeprefix('bin'))] = share
    return result


def frame(index: int = 1) -> Frame:
    """Return a frame with one camera; no two pixels of the image have the same color."""
    rig = nuscenes_like_rig(*SOURCE_SIZE)
    columns, rows = np.meshgrid(np.arange(SOURCE_SIZE[0]), np.arange(SOURCE_SIZE[1]))
    image = np.stack((columns % 256, rows, columns // 256), axis=-1).astype(np.uint8)
    single = CameraRig(
        rig.names[index : index + 1],
        rig.intrinsics[index : index + 1],
        rig.ego_from_camera[index : index + 1],
    )
    return Frame((image,), single, np.zeros(1, np.int64), np.eye(4)[None])


def maps(meters) -> DepthMaps:
    return DepthMaps(np.broadcast_to(np.float32(meters), (1, ROWS, COLUMNS)).copy(), BINS, SPEC)


def test_a_depth_with_probability_1_is_the_center_of_its_bin() -> None:
    certain = distribution(bin20=1.0)
    for depth in (expected_depth(certain, BINS), likely_depth(certain, BINS)):
        np.testing.assert_allclose(depth, 2.0 + 20.5 * 0.5)
        assert depth.shape == (1, ROWS, COLUMNS)


def test_with_two_probable_depths_only_the_expected_depth_lies_between_them() -> None:
    bimodal = distribution(bin10=0.6, bin90=0.4)
    np.testing.assert_allclose(expected_depth(bimodal, BINS), 0.6 * 7.25 + 0.4 * 47.25, rtol=1e-5)
    np.testing.assert_allclose(likely_depth(bimodal, BINS), 7.25, rtol=1e-5)


def test_a_point_has_the_depth_the_ray_and_the_color_of_its_pixel() -> None:
    scene = frame()
    meters = np.linspace(3, 50, ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
    points, colors = depth_points(scene, maps(meters))
    camera = (points - scene.rig.ego_from_camera[0, :3, 3]) @ scene.rig.ego_from_camera[0, :3, :3]
    np.testing.assert_allclose(camera[:, 2], meters.ravel(), rtol=1e-5)
    pixels = camera @ scene.rig.intrinsics[0].T
    pixels = pixels[:, :2] / pixels[:, 2:]
    np.testing.assert_allclose(pixels[:, 0], colors[:, 0] + 256.0 * colors[:, 2], atol=0.51)
    np.testing.assert_allclose(pixels[:, 1], colors[:, 1], atol=0.51)


def test_depth_colors_cover_the_network_input_and_differ_for_near_and_far_pixels() -> None:
    image = np.full((*SOURCE_SIZE[::-1], 3), 90, np.uint8)
    meters = np.full((ROWS, COLUMNS), 4.0, np.float32)
    meters[:, COLUMNS // 2 :] = 50.0
    covered = draw_depth_on_image(image, maps(meters), 0, SOURCE_SIZE)
    # The image is resized to 352x198 pixels. The network input omits the upper 70 of these 198
    # rows.
    first_seen = round(70 / 198 * 180)
    np.testing.assert_array_equal(covered[: first_seen - 2], image[: first_seen - 2])
    near, far = covered[120, 60].astype(int), covered[120, 260].astype(int)
    assert near[0] > near[2] + 50
    assert far[2] > far[0] + 30


def test_the_figure_contains_the_depth() -> None:
    scene = frame()
    plain, colored = (compose(scene, None, depth=depth, width=800) for depth in (None, maps(10.0)))
    assert plain.shape == colored.shape
    assert np.abs(plain.astype(int) - colored).mean() > 10


def test_a_detector_keeps_the_depth_only_on_request() -> None:
    torch.manual_seed(0)
    detector = Detector(BEVDepth(load_model_config(ROOT / 'config' / 'models' / 'small.yaml')))
    detector(frame())
    assert detector.depth is None
    detector.keep_depth = True
    detector(frame())
    spec = detector.config.image
    assert detector.depth.shape[:2] == (1, detector.config.depth_bins.count)
    assert detector.depth.shape[3] / detector.depth.shape[2] == spec.width / spec.height
    torch.testing.assert_close(detector.depth.sum(dim=1), torch.ones_like(detector.depth[:, 0]))
