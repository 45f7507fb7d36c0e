"""Tests the training targets: heatmaps, boxes and depth bins."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from bevdepth_core.config import BEVGrid, DepthBins, ModelConfig
from bevdepth_core.training.targets import (
    MAX_BOXES_PER_TASK,
    NO_DEPTH,
    center_targets,
    depth_targets,
    gaussian_radius,
    join,
)

CONFIG = ModelConfig()
CAR, TRUCK, BUS = 0, 1, 3


def box(
    x: float, y: float, length: float = 4.0, width: float = 2.0, yaw: float = 0.0
) -> list[float]:
    return [x, y, 1.0, length, width, 1.5, yaw, 3.0, -1.0]


def targets_of(boxes: list[list[float]], labels: list[int]):
    return center_targets(
        torch.tensor(boxes).reshape(-1, 9), torch.tensor(labels, dtype=torch.int64), CONFIG
    )


def test_a_sample_without_boxes_has_empty_targets() -> None:
    for targets, task in zip(targets_of([], []), CONFIG.head.tasks, strict=True):
        assert targets.heatmap.shape == (1, len(task.classes), 128, 128)
        assert not targets.heatmap.any()
        assert targets.box.shape == (0, 10)


def test_the_target_of_a_box_is_its_cell_and_ten_numbers() -> None:
    cars, *others = targets_of([box(10.3, -20.1, yaw=0.5)], [CAR])
    assert cars.cell.tolist() == [[76, 38]]
    expected = [
        61.5 / 0.8 - 76,
        31.1 / 0.8 - 38,
        1,
        math.log(4),
        math.log(2),
        math.log(1.5),
        math.sin(0.5),
        math.cos(0.5),
        3,
        -1,
    ]
    torch.testing.assert_close(cars.box[0], torch.tensor(expected), atol=1e-5, rtol=0)
    assert (cars.heatmap == 1).nonzero().tolist() == [[0, 0, 38, 76]]
    assert not any(len(targets.box) or targets.heatmap.any() for targets in others)


def test_each_class_of_a_task_has_its_own_heatmap() -> None:
    _, trucks, buses, *_ = targets_of([box(0, 0), box(8, 8)], [TRUCK, BUS])
    assert trucks.heatmap.amax(dim=(0, 2, 3)).tolist() == [1, 0]
    assert buses.heatmap.amax(dim=(0, 2, 3)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ('x', 'cells'), [(-51.3, [0]), (-51.9, [0]), (-52.1, []), (51.1, [127]), (51.2, [])]
)
def test_a_center_less_than_one_cell_below_the_lower_bound_belongs_to_the_first_cell(
    x: float, cells: list[int]
) -> None:
    cars = targets_of([box(x, 0)], [CAR])[0]
    assert cars.cell[:, 0].tolist() == cells


def test_where_two_peaks_overlap_the_heatmap_has_the_higher_value() -> None:
    near, far = [box(0.4, 0.4)], [box(1.2, 0.4)]
    joint = targets_of(near + far, [CAR, CAR])[0].heatmap
    assert torch.equal(
        joint, torch.maximum(targets_of(near, [CAR])[0].heatmap, targets_of(far, [CAR])[0].heatmap)
    )
    assert (joint == 1).sum() == 2


def test_if_a_task_has_too_many_boxes_the_boxes_of_its_first_classes_are_kept() -> None:
    many = [box(0, 0)] * MAX_BOXES_PER_TASK
    _, trucks, *_ = targets_of([*many, box(16.4, 16.4)], [2] * MAX_BOXES_PER_TASK + [TRUCK])
    assert len(trucks.box) == MAX_BOXES_PER_TASK
    assert trucks.cell[0].tolist() == [84, 84]


def test_the_gaussian_radius_grows_with_the_box_and_is_at_least_two() -> None:
    radii = gaussian_radius(
        torch.tensor([[0.5, 0.5], [5.75, 2.4], [30.0, 20.0], [60.0, 20.0]])
    ).tolist()
    assert radii[:2] == [2, 2]
    assert 2 < radii[2] < radii[3]


def test_the_targets_of_a_batch_contain_the_targets_of_its_samples_in_order() -> None:
    first, second = targets_of([box(0, 0)], [CAR]), targets_of([box(8, 8), box(-8, 8)], [CAR, CAR])
    cars = join([first, second])[0]
    assert torch.equal(cars.heatmap, torch.cat((first[0].heatmap, second[0].heatmap)))
    assert cars.sample.tolist() == [0, 1, 1]
    assert torch.equal(cars.box, torch.cat((first[0].box, second[0].box)))


@pytest.mark.parametrize(
    ('depth', 'expected'),
    [(1.99, NO_DEPTH), (2.0, 0), (2.49, 0), (2.5, 1), (57.99, 111), (58.0, NO_DEPTH)],
)
def test_a_depth_bin_includes_its_lower_edge_and_excludes_its_upper_edge(
    depth: float, expected: int
) -> None:
    points = torch.zeros(1, 16, 32)
    points[0, 3, 20] = depth
    assert depth_targets(points, DepthBins()).tolist() == [[[NO_DEPTH, expected]]]


def test_a_feature_pixel_has_the_smallest_depth_of_its_points() -> None:
    points = torch.zeros(1, 32, 16)
    points[0, 1, 1], points[0, 15, 15], points[0, 16, 0] = 30.0, 10.0, 40.0
    assert depth_targets(points, DepthBins()).tolist() == [[[16], [76]]]


WIDE = replace(CONFIG, grid=BEVGrid(x=(-9.6, 9.6, 0.8), y=(-4.0, 2.4, 0.4)))
"""A grid of 24 x 16 cells of 0.8 x 0.4 m."""


def test_targets_are_correct_on_a_grid_that_is_not_square() -> None:
    cars = center_targets(torch.tensor([box(6.1, -2.3)]), torch.tensor([CAR]), WIDE)[0]
    assert cars.heatmap.shape == (1, 1, 16, 24)
    assert cars.cell.tolist() == [[19, 4]]
    assert (cars.heatmap == 1).nonzero().tolist() == [[0, 0, 4, 19]]
    torch.testing.assert_close(
        cars.box[0, :3], torch.tensor([15.7 / 0.8 - 19, 1.7 / 0.4 - 4, 1]), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(
    ('x', 'y', 'count'), [(9.5, 0, 1), (9.7, 0, 0), (0, 2.3, 1), (0, 2.5, 0), (-10.5, 0, 0)]
)
def test_boxes_outside_the_bounds_of_an_axis_have_no_target(
    x: float, y: float, count: int
) -> None:
    cars = center_targets(torch.tensor([box(x, y)]), torch.tensor([CAR]), WIDE)[0]
    assert len(cars.box) == count


def test_a_peak_is_a_gaussian_within_its_radius_and_zero_outside() -> None:
    heatmap = targets_of([box(0.4, 0.4, 0.5, 0.5)], [CAR])[0].heatmap[0, 0]
    sigma = 5 / 6
    for dx, dy in ((1, 0), (0, 1), (2, 0), (1, -2), (-2, 2)):
        expected = math.exp(-(dx**2 + dy**2) / (2 * sigma**2))
        assert heatmap[64 + dy, 64 + dx].item() == pytest.approx(expected, rel=1e-5)
    assert heatmap[64, 67] == 0 and heatmap[61, 64] == 0


def test_length_is_measured_in_cells_along_x_and_width_in_cells_along_y() -> None:
    """The box covers 20 x 2 cells. With swapped axes, the radius would be different."""
    cars = center_targets(torch.tensor([box(0.4, -1.0, 16.0, 0.8)]), torch.tensor([CAR]), WIDE)[0]
    radius = int(gaussian_radius(torch.tensor([[20.0, 2.0]]))[0])
    row = cars.heatmap[0, 0, 7]
    assert int((row > 0).sum()) == 2 * radius + 1


@pytest.mark.parametrize('size', [(6.0, 3.0), (20.0, 8.0), (40.0, 40.0), (12.0, 60.0)])
def test_the_gaussian_radius_is_the_smallest_of_the_three_official_solutions(
    size: tuple[float, float],
) -> None:
    height, width = size
    b1, c1 = height + width, width * height * 0.9 / 1.1
    r1 = (b1 + math.sqrt(b1**2 - 4 * c1)) / 2
    b2, c2 = 2 * (height + width), 0.9 * width * height
    r2 = (b2 + math.sqrt(b2**2 - 16 * c2)) / 2
    a3, b3, c3 = 0.4, -0.2 * (height + width), -0.9 * width * height
    r3 = (b3 + math.sqrt(b3**2 - 4 * a3 * c3)) / 2
    expected = max(2, int(min(r1, r2, r3)))
    assert gaussian_radius(torch.tensor([size])).tolist() == [expected]


@pytest.mark.parametrize(('stride', 'shape'), [(8, (1, 4, 8)), (16, (1, 2, 4))])
def test_the_map_of_depth_bins_has_the_size_of_the_feature_map(
    stride: int, shape: tuple[int, ...]
) -> None:
    points = torch.zeros(1, 32, 64)
    points[0, 20, 50] = 7.0
    bins = depth_targets(points, DepthBins(1.0, 11.0, 2.0), stride)
    assert bins.shape == shape
    assert (bins != NO_DEPTH).nonzero().tolist() == [[0, 20 // stride, 50 // stride]]
    assert bins.max() == 3
