"""Depth targets: lidar points projected into the cameras."""

from __future__ import annotations

import numpy as np
import pytest

from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.depth_targets import depth_maps, read_points
from bevdepth_core.nuscenes.records import Pose, SensorRecord
from bevdepth_core.preprocess import ImageTransform

STILL = Pose(np.array([1.0, 0, 0, 0]), np.zeros(3))
UNCHANGED = ImageTransform(1.0, 0, 0, 160, 90)
LIDAR = SensorRecord('LIDAR_TOP', '', 0, STILL, STILL, (0, 0), np.zeros((3, 3)))


def camera(world_from_ego: Pose = STILL) -> SensorRecord:
    """Return a camera of 160 x 90 pixels at the origin of the ego frame; it looks along z."""
    intrinsics = np.array([(100.0, 0, 80), (0, 100, 45), (0, 0, 1)])
    return SensorRecord(CAMERAS[1], '', 0, STILL, world_from_ego, (160, 90), intrinsics)


def point_at(column: float, row: float, depth: float) -> tuple[float, float, float]:
    return ((column - 80) * depth / 100, (row - 45) * depth / 100, depth)


def depth_by_pixel(
    *points, transform: ImageTransform = UNCHANGED, world_from_ego: Pose = STILL
) -> dict[tuple[int, int], float]:
    """Return {(column, row): depth} for the pixels that have a depth in the map of ``points``."""
    depths = depth_maps(
        np.array(points, np.float32).reshape(-1, 3), LIDAR, [camera(world_from_ego)], [transform]
    )[0]
    assert depths.shape == (transform.height, transform.width) and depths.dtype == np.float32
    return {
        (int(column), int(row)): float(depths[row, column])
        for row, column in zip(*np.nonzero(depths), strict=True)
    }


def test_a_lidar_point_gives_its_depth_at_its_pixel():
    assert depth_by_pixel(point_at(100.5, 30.5, 7)) == {(100, 30): 7}


def test_points_behind_the_camera_give_no_depth():
    assert depth_by_pixel((0, 0, -5), (0, 0, 0)) == {}


def test_a_sweep_without_points_gives_an_empty_map():
    assert depth_by_pixel() == {}


def test_points_within_a_pixel_of_the_source_image_border_give_no_depth():
    assert (
        depth_by_pixel(
            point_at(0.9, 30.5, 7),
            point_at(159.1, 30.5, 7),
            point_at(50.5, 0.9, 7),
            point_at(50.5, 89.1, 7),
        )
        == {}
    )


def test_a_pixel_has_the_depth_of_its_last_point_even_if_an_earlier_point_is_nearer():
    assert depth_by_pixel(point_at(100.5, 30.5, 7), point_at(100.5, 30.5, 20)) == {(100, 30): 20}


def test_points_less_than_a_pixel_left_of_or_above_the_crop_count_as_inside():
    transform = ImageTransform(1.0, 50, 20, 80, 60)
    points = point_at(49.5, 40.5, 7), point_at(90.5, 19.5, 8)
    assert depth_by_pixel(*points, transform=transform) == {(0, 20): 7, (40, 0): 8}
    assert depth_by_pixel(point_at(48.5, 40.5, 7), transform=transform) == {}


def test_resizing_and_flipping_the_image_does_not_change_the_depth():
    assert depth_by_pixel(
        point_at(20.6, 60.6, 9), transform=ImageTransform(0.5, 0, 0, 80, 45, flip=True)
    ) == {(69, 30): 9}


def test_motion_of_the_vehicle_between_sweep_and_exposure_is_compensated():
    assert depth_by_pixel(
        (0.05, 0.05, 10), world_from_ego=Pose(STILL.quaternion, np.array([0.0, 0, 4]))
    ) == {(80, 45): 6}


def test_points_are_read_without_intensity_and_ring(tmp_path):
    np.arange(10, dtype=np.float32).tofile(tmp_path / 'scan.pcd.bin')
    assert read_points(tmp_path / 'scan.pcd.bin').tolist() == [[0, 1, 2], [5, 6, 7]]


def test_a_truncated_sweep_file_is_reported(tmp_path):
    np.arange(9, dtype=np.float32).tofile(tmp_path / 'scan.pcd.bin')
    with pytest.raises(ValueError, match=r'scan\.pcd\.bin is truncated'):
        read_points(tmp_path / 'scan.pcd.bin')


@pytest.mark.parametrize('depth', [0.01, 0.5, 1.0, 90.0])
def test_a_point_at_any_distance_in_front_of_the_camera_is_a_depth_target(depth):
    assert depth_by_pixel(point_at(100.5, 30.5, depth)) == {(100, 30): pytest.approx(depth)}


def test_points_more_than_a_pixel_inside_the_source_image_border_are_depth_targets():
    points = [
        point_at(u, v, 8) for u, v in ((1.5, 30.5), (158.5, 30.5), (50.5, 1.5), (50.5, 88.5))
    ]
    assert set(depth_by_pixel(*points)) == {(1, 30), (158, 30), (50, 1), (50, 88)}


def test_points_right_of_or_below_the_crop_give_no_depth():
    transform = ImageTransform(1.0, 0, 0, 100, 60)
    inside, outside = [(99.5, 40.5), (40.5, 59.5)], [(100.5, 40.5), (40.5, 60.5)]
    points = [point_at(*pixel, 7) for pixel in inside + outside]
    assert set(depth_by_pixel(*points, transform=transform)) == {(99, 40), (40, 59)}


def test_lidar_points_are_transformed_with_the_poses_of_lidar_camera_and_vehicle():
    """The lidar at x = 2 m is turned 90 degrees to the left. Between the sweep and the exposure of
    the camera, the vehicle drives 3 m along x.
    """
    left = np.array([np.sqrt(0.5), 0, 0, np.sqrt(0.5)])
    lidar = SensorRecord(
        'os1', '', 0, Pose(left, np.array([2.0, 0, 1.5])), STILL, (0, 0), np.zeros((3, 3))
    )
    optical = Pose(np.array([0.5, -0.5, 0.5, -0.5]), np.array([1.0, 0, 1.5]))
    later = Pose(np.array([1.0, 0, 0, 0]), np.array([3.0, 0, 0]))
    camera_record = SensorRecord('front', '', 0, optical, later, (160, 90), camera().intrinsics)
    in_lidar = np.array([[1.0, -10.0, 0.5]], np.float32)  # x 12, y 1, z 2 m in the world
    depths = depth_maps(in_lidar, lidar, [camera_record], [UNCHANGED])[0]
    row, column = (int(places[0]) for places in np.nonzero(depths))
    assert depths[row, column] == pytest.approx(8)
    assert (column, row) == (int(80 - 100 / 8), int(45 - 50 / 8))
