from __future__ import annotations

import math

import pytest
import torch

from bevdepth_core.config import DepthBins, ModelConfig
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


def test_a_box_is_described_by_its_cell_and_ten_numbers() -> None:
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


def test_classes_of_a_task_have_maps_of_their_own() -> None:
    _, trucks, buses, *_ = targets_of([box(0, 0), box(8, 8)], [TRUCK, BUS])
    assert trucks.heatmap.amax(dim=(0, 2, 3)).tolist() == [1, 0]
    assert buses.heatmap.amax(dim=(0, 2, 3)).tolist() == [1, 0]


@pytest.mark.parametrize(
    ('x', 'cells'), [(-51.3, [0]), (-51.9, [0]), (-52.1, []), (51.1, [127]), (51.2, [])]
)
def test_centres_up_to_one_cell_below_the_grid_count_as_its_first_cell(
    x: float, cells: list[int]
) -> None:
    cars = targets_of([box(x, 0)], [CAR])[0]
    assert cars.cell[:, 0].tolist() == cells


def test_peaks_that_overlap_keep_the_higher_value() -> None:
    near, far = [box(0.4, 0.4)], [box(1.2, 0.4)]
    both = targets_of(near + far, [CAR, CAR])[0].heatmap
    assert torch.equal(
        both, torch.maximum(targets_of(near, [CAR])[0].heatmap, targets_of(far, [CAR])[0].heatmap)
    )
    assert (both == 1).sum() == 2


def test_only_the_first_boxes_of_a_task_count_class_by_class() -> None:
    many = [box(0, 0)] * MAX_BOXES_PER_TASK
    _, trucks, *_ = targets_of([*many, box(16.4, 16.4)], [2] * MAX_BOXES_PER_TASK + [TRUCK])
    assert len(trucks.box) == MAX_BOXES_PER_TASK
    assert trucks.cell[0].tolist() == [84, 84]


def test_the_radius_grows_with_the_box_and_is_at_least_two() -> None:
    radii = gaussian_radius(
        torch.tensor([[0.5, 0.5], [5.75, 2.4], [30.0, 20.0], [60.0, 20.0]])
    ).tolist()
    assert radii[:2] == [2, 2]
    assert 2 < radii[2] < radii[3]


def test_targets_of_a_batch_are_those_of_its_samples() -> None:
    first, second = targets_of([box(0, 0)], [CAR]), targets_of([box(8, 8), box(-8, 8)], [CAR, CAR])
    cars = join([first, second])[0]
    assert torch.equal(cars.heatmap, torch.cat((first[0].heatmap, second[0].heatmap)))
    assert cars.sample.tolist() == [0, 1, 1]
    assert torch.equal(cars.box, torch.cat((first[0].box, second[0].box)))


@pytest.mark.parametrize(
    ('depth', 'expected'),
    [(1.99, NO_DEPTH), (2.0, 0), (2.49, 0), (2.5, 1), (57.99, 111), (58.0, NO_DEPTH)],
)
def test_a_depth_belongs_to_the_bin_whose_lower_edge_it_has_passed(
    depth: float, expected: int
) -> None:
    points = torch.zeros(1, 16, 32)
    points[0, 3, 20] = depth
    assert depth_targets(points, DepthBins()).tolist() == [[[NO_DEPTH, expected]]]


def test_the_nearest_point_of_a_feature_pixel_counts() -> None:
    points = torch.zeros(1, 32, 16)
    points[0, 1, 1], points[0, 15, 15], points[0, 16, 0] = 30.0, 10.0, 40.0
    assert depth_targets(points, DepthBins()).tolist() == [[[16], [76]]]
