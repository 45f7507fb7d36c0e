"""Tests the losses of heatmaps, boxes and depth."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
import torch
from torch import multiprocessing

from bevdepth_core.training.batch import collate
from bevdepth_core.training.criterion import (
    box_loss,
    criterion,
    depth_criterion,
    depth_loss,
    heatmap_loss,
)
from bevdepth_core.training.targets import center_targets
from bevdepth_core.types import TaskMaps
from tests.networks import TINY
from tests.training.losses import (
    WEIGHTS,
    loss_of,
    noise_batch,
    noise_outputs,
    put_half_of_the_loss,
)
from tests.training.samples import noise_sample


def test_the_total_loss_is_the_sum_of_the_heatmap_box_and_depth_losses() -> None:
    named = loss_of(range(3)).named()
    assert named['total'].item() == pytest.approx(
        sum(named[name].item() for name in ('heatmap', 'box', 'depth'))
    )


def test_a_perfect_heatmap_has_almost_no_loss_and_a_missed_box_has_a_large_loss() -> None:
    target = torch.zeros(1, 1, 8, 8)
    target[0, 0, 3, 4] = 1
    assert heatmap_loss(40 * target - 20, target, target) < 1e-4
    assert heatmap_loss(torch.full_like(target, -20), target, target) > 9


def test_the_loss_of_a_false_positive_is_smaller_near_a_box_than_far_from_boxes() -> None:
    logit = torch.full((1, 1, 1, 1), 3.0)
    none = torch.zeros(1, 1, 1, 1)
    far, near = (
        heatmap_loss(logit, torch.full((1, 1, 1, 1), value), none) for value in (0.0, 0.9)
    )
    assert near < 1e-3 * far


def test_box_losses_use_the_configured_weights() -> None:
    batch, outputs = noise_batch(range(2)), noise_outputs(range(2))
    task = next(index for index, targets in enumerate(batch.tasks) if len(targets.box))
    alone = [
        box_loss(outputs.tasks[task], batch.tasks[task], np.eye(10)[number].tolist())
        for number in range(10)
    ]
    assert all(loss > 0 for loss in alone)
    assert box_loss(outputs.tasks[task], batch.tasks[task], WEIGHTS).item() == pytest.approx(
        sum(alone).item()
    )


def test_pixels_without_depth_have_no_loss() -> None:
    outputs, bins = noise_outputs(range(1)), torch.full((1, 2, 2, 4), -1)
    assert depth_loss(outputs.depth, bins) == 0
    bins[0, 1, 1, 2] = 5
    known = outputs.depth[0, 1, :, 1, 2]
    expected = -known[5].log() - (1 - known).log().sum() + (1 - known[5]).log()
    assert depth_loss(outputs.depth, bins).item() == pytest.approx(expected.item(), rel=1e-5)


def test_samples_without_boxes_and_depth_have_a_finite_loss_and_gradients_for_every_map() -> None:
    sample = noise_sample(0, np.random.default_rng(0))
    empty = type(sample)(
        **{
            **vars(sample),
            'boxes': torch.zeros(0, 9),
            'labels': torch.zeros(0).long(),
            'depth': torch.zeros_like(sample.depth),
        }
    )
    batch, outputs = collate([empty], TINY), noise_outputs(range(1))
    maps = [tensor.requires_grad_() for task in outputs.tasks for tensor in vars(task).values()]
    loss = criterion(outputs, batch.tasks, batch.depth_bins, WEIGHTS)
    assert loss.box.sum() == 0
    assert loss.depth == 0
    loss.total.backward()
    assert all(tensor.grad is not None and tensor.grad.isfinite().all() for tensor in maps)


def test_the_loss_is_computed_in_float32_under_autocast() -> None:
    batch, outputs = noise_batch(range(2)), noise_outputs(range(2))
    plain = criterion(outputs, batch.tasks, batch.depth_bins, WEIGHTS)
    with torch.autocast('cpu', torch.bfloat16):
        cast = criterion(outputs, batch.tasks, batch.depth_bins, WEIGHTS)
    assert cast.total.dtype == torch.float32
    assert torch.equal(cast.total, plain.total)


def test_the_mean_loss_of_two_processes_equals_the_loss_of_one_process_with_all_samples() -> None:
    # A forked process does not have to import the modules again.
    context = multiprocessing.get_context('fork')
    results = context.SimpleQueue()
    with tempfile.NamedTemporaryFile(delete=False) as meeting_point:
        pass
    multiprocessing.start_processes(
        put_half_of_the_loss, (meeting_point.name, results), nprocs=2, start_method='fork'
    )
    halves = [results.get() for _ in range(2)]
    expected = loss_of(range(6))
    for name, parts in zip(('heatmap', 'box', 'depth'), zip(*halves, strict=True), strict=True):
        np.testing.assert_allclose(
            np.mean(parts, axis=0), getattr(expected, name).numpy(), rtol=1e-5, err_msg=name
        )


def test_the_focal_loss_has_the_official_exponents() -> None:
    logits = torch.tensor([0.3, -0.7, 1.1]).view(1, 1, 1, 3)
    target = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    score = logits.sigmoid().flatten()
    expected = (
        -score[0].log() * (1 - score[0]) ** 2
        - (1 - score[1]).log() * score[1] ** 2 * 0.5**4
        - (1 - score[2]).log() * score[2] ** 2
    )
    assert heatmap_loss(logits, target, (target == 1).float()).item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_scores_are_clamped_before_the_logarithm() -> None:
    target = torch.ones(1, 1, 1, 1)
    loss = heatmap_loss(torch.full_like(target, -100.0), target, (target == 1).float()).item()
    assert loss == pytest.approx(-np.log(1e-4) * (1 - 1e-4) ** 2, rel=1e-5)


def test_loss_sums_are_divided_by_their_counts_and_multiplied_by_their_weights() -> None:
    batch, outputs = noise_batch(range(3)), noise_outputs(range(3))
    losses = criterion(outputs, batch.tasks, batch.depth_bins, WEIGHTS)
    for number, (maps, targets) in enumerate(zip(outputs.tasks, batch.tasks, strict=True)):
        centers = max(1, int((targets.heatmap == 1).sum()))
        expected = heatmap_loss(maps.heatmap, targets.heatmap, targets.center_weights()) / centers
        assert losses.heatmap[number].item() == pytest.approx(expected.item(), rel=1e-5)
        if len(targets.box):
            box = 0.25 * box_loss(maps, targets, WEIGHTS) / len(targets.box)
            assert losses.box[number].item() == pytest.approx(box.item(), rel=1e-5)
    pixels = int((batch.depth_bins >= 0).sum())
    depth = 3 * depth_loss(outputs.depth, batch.depth_bins) / pixels
    assert losses.depth.item() == pytest.approx(depth.item(), rel=1e-5)
    assert losses.detection.item() == pytest.approx((losses.heatmap + losses.box).sum().item())


def test_depth_training_has_the_same_depth_loss_as_full_training() -> None:
    batch, outputs = noise_batch(range(2)), noise_outputs(range(2))
    alone = depth_criterion(outputs.depth, batch.depth_bins)
    together = criterion(outputs, batch.tasks, batch.depth_bins, WEIGHTS)
    assert torch.equal(alone.depth, together.depth)
    assert alone.total == alone.depth


def test_the_loss_of_a_box_reads_the_maps_at_the_sample_and_cell_of_the_box() -> None:
    """All other cells of the maps have the value 1e6, which would cause a large loss."""
    batch, outputs = noise_batch(range(2)), noise_outputs(range(2))
    task = next(number for number, each in enumerate(batch.tasks) if 1 in each.sample)
    targets, maps = batch.tasks[task], outputs.tasks[task]
    values = torch.full_like(maps.box_values(), 1e6)
    values[targets.sample, :, targets.cell[:, 1], targets.cell[:, 0]] = targets.box
    parts = values.split([2, 1, 3, 2, 2], dim=1)
    exact = TaskMaps(*parts, maps.heatmap)
    assert box_loss(exact, targets, WEIGHTS) == 0


def test_the_score_of_a_box_is_its_weight_in_the_losses_and_in_the_counts() -> None:
    """The loss of two boxes with scores 1 and 0.25 is the weighted mean of the losses that the two
    boxes have alone."""
    boxes = torch.tensor([[4.0, 4, 0, 4, 2, 1, 0, 0, 0], [-6.0, -6, 0, 4, 2, 1, 0, 0, 0]])
    labels = torch.zeros(2, dtype=torch.int64)
    depth_bins, outputs = torch.full((1, 2, 2, 4), -1), noise_outputs(range(1))

    def losses(scores):
        tasks = center_targets(boxes, labels, TINY, torch.tensor(scores))
        return tasks[0], criterion(outputs, tasks, depth_bins, WEIGHTS)

    targets, weighted = losses([1.0, 0.25])
    assert targets.center_weights()[targets.heatmap == 1].sort()[0].tolist() == [0.25, 1]
    assert targets.center_weights()[targets.heatmap < 1].abs().sum() == 0
    maps = outputs.tasks[0]
    single = [box_loss(maps, losses(s)[0], WEIGHTS).item() for s in ([1.0, 1e-9], [1e-9, 1.0])]
    expected = 0.25 * (single[0] + 0.25 * single[1]) / 1.25
    assert weighted.box[0].item() == pytest.approx(expected, rel=1e-4)
    at_centers = maps.heatmap.float().sigmoid()
    weights, zeros = targets.center_weights(), torch.zeros_like(targets.heatmap)
    parts = [
        heatmap_loss(maps.heatmap, targets.heatmap, weights * (weights == value)).item()
        - heatmap_loss(maps.heatmap, targets.heatmap, zeros).item()
        for value in (1.0, 0.25)
    ]
    scores = at_centers[weights == 0.25].clamp(1e-4, 1 - 1e-4)
    assert parts[1] == pytest.approx(
        0.25 * (-(scores.log()) * (1 - scores) ** 2).sum().item(), rel=1e-3
    )


def test_two_boxes_in_one_cell_count_as_one_center_with_the_higher_score() -> None:
    boxes = torch.tensor([[4.0, 4, 0, 4, 2, 1, 0, 0, 0]] * 2)
    labels = torch.zeros(2, dtype=torch.int64)
    targets = center_targets(boxes, labels, TINY, torch.tensor([0.3, 0.7]))[0]
    assert targets.center_weights().sum().item() == pytest.approx(0.7)
