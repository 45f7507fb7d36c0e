"""Computes order and augmentation of the samples from seed and epoch only, so that runs can be
resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from bevdepth_core.nuscenes.dataset import Sample


class SampleSource(Protocol):
    """Interface of a dataset for training."""

    def __len__(self) -> int: ...

    def sample(self, place: int, rng: np.random.Generator) -> Sample:
        """Return the sample with index ``place``; its augmentation depends only on ``rng``."""


class SampleRequest(NamedTuple):
    """The index ``place`` of a sample to load, and the seed of the augmentation."""

    place: int
    seed: tuple[int, int, int]


class SeededSampler(Sampler[SampleRequest]):
    """Yields the requests of one process. Every epoch has one permutation of all samples, and each
    process loads a different part of this permutation.

    A request depends only on the seed, the epoch and the position in the permutation, and not on
    loader processes or earlier epochs.

    Args:
        count: number of samples in the dataset.
        seed: seed of permutations and augmentation.
        process: number of this process.
        processes: number of processes.
        epoch: epoch of the first iteration.
        skip: number of requests of this process to skip in the first iteration.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
        epoch: int = 0,
        skip: int = 0,
    ) -> None:
        self._count, self._seed, self._process, self._processes = count, seed, process, processes
        self._epoch, self._skip = epoch, skip

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration; Lightning calls this."""
        if epoch != self._epoch:
            self._epoch, self._skip = epoch, 0

    def __len__(self) -> int:
        return self._count // self._processes

    def __iter__(self) -> Iterator[SampleRequest]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._count)
        positions = range(self._process, len(self) * self._processes, self._processes)
        for position in positions[self._skip :]:
            yield SampleRequest(int(order[position]), (self._seed, self._epoch, position))


class SeededDataset(Dataset[Sample]):
    """A dataset that PyTorch's loader indexes with a ``SampleRequest``."""

    def __init__(self, source: SampleSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, request: SampleRequest) -> Sample:
        return self._source.sample(request.place, np.random.default_rng(request.seed))


class OrderChangedError(ValueError):
    """A run cannot be resumed, because the order of its samples would change."""


class ResumableLoader(DataLoader):
    """A loader that refuses to resume a run if the order of the samples would change.

    Args:
        order: all values on which the order of the samples depends.
        options: arguments of ``DataLoader``.
    """

    def __init__(self, *, order: dict[str, int], **options: Any) -> None:
        super().__init__(**options)
        self._order = order

    def state_dict(self) -> dict[str, int]:
        """Return the values that ``load_state_dict`` compares."""
        return dict(self._order)

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Raise OrderChangedError if the order of the samples would change."""
        require_same_order(state, self._order)


def require_same_order(stored: Mapping[str, int], order: Mapping[str, int]) -> None:
    """Raise OrderChangedError if a value on which the order depends has changed."""
    changed = [
        f'{name} was {stored.get(name)} and is {value}'
        for name, value in order.items()
        if stored.get(name) != value
    ]
    if changed:
        raise OrderChangedError(
            f'the run cannot be resumed with other data: {", ".join(changed)}; resume it with '
            'the settings of its start, or start a new run with another --output'
        )
