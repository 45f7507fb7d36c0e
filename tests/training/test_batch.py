"""Tests the samples, targets and cameras of batches, and the inputs of the network."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from bevdepth_core.preprocess import normalize
from bevdepth_core.training.batch import Batch, collate, with_cameras
from bevdepth_core.training.targets import center_targets, depth_targets
from tests.networks import TINY
from tests.training.samples import noise_sample


def samples() -> list:
    return [noise_sample(place, np.random.default_rng(place)) for place in (4, 2, 7)]


def test_a_batch_contains_its_samples_and_their_targets_in_order() -> None:
    batch = collate(samples(), TINY)
    assert len(batch) == 3 and batch.names == ('sample 4', 'sample 2', 'sample 7')
    for place, sample in enumerate(samples()):
        assert torch.equal(batch.images[place], sample.images)
        assert torch.equal(batch.matrices.intrinsics[place], sample.matrices.intrinsics)
        assert torch.equal(
            batch.depth_bins[place], depth_targets(sample.depth, TINY.depth_bins, 16)
        )
        alone = center_targets(sample.boxes, sample.labels, TINY)
        for joined, targets in zip(batch.tasks, alone, strict=True):
            assert torch.equal(joined.heatmap[place], targets.heatmap[0])
            assert torch.equal(joined.box[joined.sample == place], targets.box)


def test_the_depth_targets_have_the_stride_of_the_network() -> None:
    network = replace(TINY, image_encoder=replace(TINY.image_encoder, stride=8))
    assert collate(samples(), network).depth_bins.shape[2:] == (4, 8)
    assert collate(samples(), TINY).depth_bins.shape[2:] == (2, 4)


def test_the_network_inputs_are_normalized_images_and_the_matrices_of_the_batch() -> None:
    batch = collate(samples(), TINY)
    inputs = batch.inputs(TINY.image)
    assert torch.equal(inputs.images, normalize(batch.images, TINY.image))
    assert torch.equal(inputs.matrices.image_aug, batch.matrices.image_aug)


def test_the_method_to_moves_every_tensor_of_a_batch_to_the_device() -> None:
    moved: Batch = collate(samples(), TINY).to(torch.device('meta'))
    tensors = [moved.images, moved.matrices.bev_aug, moved.depth_bins]
    tensors += [tensor for task in moved.tasks for tensor in vars(task).values()]
    assert {tensor.device.type for tensor in tensors} == {'meta'}
    assert moved.names == ('sample 4', 'sample 2', 'sample 7')


def test_the_first_sample_defines_the_number_of_cameras_of_a_batch() -> None:
    first, second = (
        noise_sample(place, np.random.default_rng(place), cameras=3) for place in (1, 2)
    )
    batch = collate([replace(first, camera_count=2), second], TINY)
    assert batch.images.shape[2] == batch.matrices.intrinsics.shape[2] == 2
    assert batch.depth_bins.shape[1] == 2
    assert torch.equal(batch.images[1], second.images[:, :2])


def test_with_fewer_cameras_boxes_outside_of_all_remaining_images_are_excluded() -> None:
    sample = noise_sample(0, np.random.default_rng(0), cameras=4)  # forward, left, back, right
    centers = torch.tensor([[8.0, 0, 1.5], [0, 8, 1.5], [-8, 0, 1.5], [0, -8, 1.5], [8, 0, 60]])
    boxes = torch.cat((centers, torch.ones(5, 6)), dim=1)
    turn = torch.diag(torch.tensor([1.0, -1, 1, 1]))  # the bird's-eye view is mirrored
    mirrored = replace(sample.matrices, bev_aug=turn)
    sample = replace(
        sample, boxes=boxes, labels=torch.arange(5), scores=torch.ones(5), matrices=mirrored
    )
    assert with_cameras(sample, 1).labels.tolist() == [0]
    assert with_cameras(sample, 2).labels.tolist() == [0, 3]
    assert with_cameras(sample, 3).labels.tolist() == [0, 2, 3]
    assert with_cameras(sample, 4).labels.tolist() == [0, 1, 2, 3]
