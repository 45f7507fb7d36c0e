"""Suppression for all tasks at once keeps what the plain one keeps."""

import numpy as np
import torch

from bevdepth_core.config import HeadTask
from bevdepth_core.decode import ScoredBoxes, suppress_circles
from bevdepth_core.ops.circle_suppression import suppress_circles as suppress_all
from bevdepth_core.types import Boxes3D


def test_every_task_keeps_what_the_plain_suppression_keeps():
    generator = torch.Generator().manual_seed(0)
    centers = 20 * torch.rand(3, 60, 2, generator=generator)
    valid = torch.rand(3, 60, generator=generator) > 0.3
    limits = (4.0, 0.5, 12.0)
    kept = suppress_all(centers, valid, torch.tensor(limits), 25)
    for task, limit in enumerate(limits):
        places = np.flatnonzero(valid[task].numpy())
        center = np.c_[centers[task].numpy()[places], np.zeros(len(places))]
        boxes = Boxes3D(
            center, np.ones_like(center), np.zeros(len(places)), np.zeros((len(places), 2))
        )
        plain = suppress_circles(
            ScoredBoxes(boxes, np.zeros(len(places), np.float32), places),
            HeadTask(('car',), limit),
            25,
        )
        expected = np.full(25, -1)
        expected[: len(plain)] = places[plain]
        assert kept[task].tolist() == expected.tolist()


def test_the_border_is_suppressed_and_a_dropped_box_suppresses_nobody():
    line = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [2.01, 0.0], [4.02, 0.0]]])
    every = torch.ones(1, 4, dtype=torch.bool)
    assert suppress_all(line, every, torch.tensor([4.0]), 4).tolist() == [[0, 2, 3, -1]]
    assert suppress_all(
        line, torch.tensor([[False, True, True, True]]), torch.tensor([4.0]), 3
    ).tolist() == [[1, 3, -1]]


def test_no_boxes_keep_none():
    assert (
        suppress_all(
            torch.zeros(2, 0, 2), torch.zeros(2, 0, dtype=torch.bool), torch.ones(2), 2
        ).tolist()
        == [[-1, -1]] * 2
    )
