"""Tests the order of samples and their random seeds, also with several processes and after a
resume.
"""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import BatchSampler

from bevdepth_core.training.batch import collate
from bevdepth_core.training.seeded_sampler import (
    ResumableLoader,
    SeededDataset,
    SeededSampler,
)
from tests.networks import TINY
from tests.training.runs import Noise


def places(draws: SeededSampler) -> list[int]:
    return [draw.place for draw in draws]


def test_an_epoch_contains_every_sample_once() -> None:
    assert sorted(places(SeededSampler(11, seed=0))) == list(range(11))


def test_each_process_loads_an_equal_part_of_an_epoch_without_overlap() -> None:
    shares = [
        places(SeededSampler(11, seed=0, process=process, processes=3)) for process in range(3)
    ]
    assert [len(share) for share in shares] == [3, 3, 3]
    assert len({place for share in shares for place in share}) == 9


def test_two_processes_together_load_the_batches_of_one_process_with_twice_the_batch_size() -> (
    None
):
    alone = BatchSampler(SeededSampler(12, seed=4), 4, drop_last=True)
    shared = [
        BatchSampler(SeededSampler(12, seed=4, process=process, processes=2), 2, drop_last=True)
        for process in range(2)
    ]
    assert [sorted(batch) for batch in alone] == [
        sorted(first + second) for first, second in zip(*shared, strict=True)
    ]


def test_order_and_random_seeds_of_samples_differ_between_epochs_and_between_run_seeds() -> None:
    first, second, other = (
        SeededSampler(20, seed=0),
        SeededSampler(20, seed=0, epoch=1),
        SeededSampler(20, seed=1),
    )
    assert len({tuple(places(draws)) for draws in (first, second, other)}) == 3
    assert len({draw.seed for draws in (first, second, other) for draw in draws}) == 60


def test_skipped_samples_are_missing_only_in_the_resumed_epoch() -> None:
    complete, resumed = (
        SeededSampler(10, seed=0, epoch=3),
        SeededSampler(10, seed=0, epoch=3, skip=4),
    )
    resumed.set_epoch(3)
    assert list(resumed) == list(complete)[4:]
    for draws in (complete, resumed):
        draws.set_epoch(4)
    assert list(resumed) == list(complete)


def test_batches_are_the_same_with_and_without_worker_processes() -> None:
    def images(workers: int) -> torch.Tensor:
        sampler = BatchSampler(SeededSampler(4, seed=0), 2, drop_last=True)
        loader = ResumableLoader(
            order={},
            dataset=SeededDataset(Noise(4)),
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=lambda s: collate(s, TINY),
        )
        return torch.stack([batch.images for batch in loader])

    assert torch.equal(images(0), images(2))


def test_a_loader_rejects_the_stored_state_of_a_loader_with_different_settings() -> None:
    def loader(samples: int) -> ResumableLoader:
        return ResumableLoader(order={'samples': samples, 'seed': 0}, dataset=[1])

    loader(10).load_state_dict(loader(10).state_dict())
    with pytest.raises(ValueError, match='samples was 10 and is 11'):
        loader(11).load_state_dict(loader(10).state_dict())
