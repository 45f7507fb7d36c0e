"""Circle NMS keeps boxes greedily in the order of their scores, with a distance limit per task."""

import numpy as np
import pytest
import torch

from bevdepth_core.ops.circle_nms import circle_nms


def plain_nms(centers: np.ndarray, valid: np.ndarray, limit: float, max_boxes: int) -> list[int]:
    """Return the indices of the boxes of one task that circle NMS keeps by definition. The list is
    filled with -1 up to ``max_boxes`` entries.
    """
    kept: list[int] = []
    for index in np.flatnonzero(valid):
        distances = ((centers[kept] - centers[index]) ** 2).sum(axis=1)
        if len(kept) < max_boxes and (distances > limit).all():
            kept.append(int(index))
    return kept + [-1] * (max_boxes - len(kept))


@pytest.mark.parametrize('max_boxes', [5, 25, 70])
def test_the_kept_boxes_of_every_task_follow_the_definition(max_boxes):
    generator = torch.Generator().manual_seed(0)
    centers = 20 * torch.rand(3, 60, 2, generator=generator)
    valid = torch.rand(3, 60, generator=generator) > 0.3
    limits = (4.0, 0.5, 12.0)
    kept = circle_nms(centers, valid, torch.tensor(limits), max_boxes)
    assert kept.dtype == torch.int32
    for task, limit in enumerate(limits):
        expected = plain_nms(centers[task].numpy(), valid[task].numpy(), limit, max_boxes)
        assert kept[task].tolist() == expected


def line(*positions: float) -> tuple[torch.Tensor, torch.Tensor]:
    centers = torch.tensor([[(0.0, x) for x in positions]])
    return centers, torch.ones(1, len(positions), dtype=torch.bool)


def test_the_limit_is_a_squared_distance_and_a_box_exactly_at_the_limit_is_suppressed():
    assert circle_nms(*line(0, 2, 2.01, 4.02), torch.tensor([4.0]), 4).tolist() == [[0, 2, 3, -1]]


def test_the_distance_is_computed_from_both_axes():
    centers = torch.tensor([[(0.0, 0.0), (1.5, 1.5), (1.0, 1.0)]])
    every = torch.ones(1, 3, dtype=torch.bool)
    assert circle_nms(centers, every, torch.tensor([4.0]), 3).tolist() == [[0, 1, -1]]


def test_a_suppressed_box_suppresses_no_other_box():
    assert circle_nms(*line(0, 1.5, 3), torch.tensor([4.0]), 3).tolist() == [[0, 2, -1]]


def test_an_invalid_box_is_dropped_and_suppresses_no_other_box():
    centers, valid = line(0, 1, 1.5, 9)
    valid[0, 0] = False
    assert circle_nms(centers, valid, torch.tensor([4.0]), 3).tolist() == [[1, 3, -1]]
    assert valid.tolist() == [[False, True, True, True]]  # the argument is not modified


def test_at_most_the_given_number_of_boxes_is_kept():
    assert circle_nms(*line(0, 10, 20, 30), torch.tensor([4.0]), 2).tolist() == [[0, 1]]


def test_tasks_may_keep_different_numbers_of_boxes():
    centers = torch.tensor([[(0.0, 0.0), (0.1, 0.0), (0.2, 0.0)]] * 2)
    valid = torch.ones(2, 3, dtype=torch.bool)
    kept = circle_nms(centers, valid, torch.tensor([1.0, 1e-4]), 4)
    assert kept.tolist() == [[0, -1, -1, -1], [0, 1, 2, -1]]


def test_a_negative_limit_suppresses_no_box():
    assert circle_nms(*line(1, 1), torch.tensor([-1.0]), 3).tolist() == [[0, 1, -1]]


def test_an_input_without_boxes_gives_no_boxes():
    centers, valid = torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool)
    assert circle_nms(centers, valid, torch.ones(2), 2).tolist() == [[-1, -1]] * 2
