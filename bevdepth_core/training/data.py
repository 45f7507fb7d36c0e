"""From a dataset to batches, in an order that a resumed run continues."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Protocol

import cv2
import numpy as np
from lightning.pytorch import LightningDataModule
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from bevdepth_core.config import ModelConfig
from bevdepth_core.nuscenes.augment import Augmentation
from bevdepth_core.nuscenes.dataset import NuScenesDataset, Sample
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.sampling import class_balanced_positions
from bevdepth_core.training.batch import collate
from bevdepth_core.training.dataset_settings import DatasetSettings, report_boxes


@dataclass(frozen=True)
class DataSettings(DatasetSettings):
    """What to train on.

    Attributes:
        class_balanced: repeat samples of rare classes (CBGS).
        batch_size: samples per GPU and step.
        workers: loader processes per GPU.
        augmentation: ranges of random changes.
    """

    class_balanced: bool = False
    batch_size: int = 8
    workers: int = 4
    augmentation: Augmentation = field(default_factory=Augmentation)


def open_nuscenes(
    settings: DataSettings, network: ModelConfig, needs_boxes: bool = True
) -> NuScenesDataset:
    """Return the dataset that ``settings`` describes, and log how many boxes it has.

    Args:
        settings: the dataset.
        network: its class list, BEV grid, image size and key frames.
        needs_boxes: reject a dataset without usable boxes.

    Raises:
        ValueError: as ``load_index``, or no box is usable.
    """
    index = settings.load(network)
    report_boxes(index, settings, network, needs_boxes)
    return NuScenesDataset(
        index,
        settings.root,
        network.image,
        network.key_frames,
        settings.augmentation,
        _balanced_positions(index) if settings.class_balanced else None,
    )


def _balanced_positions(index: SampleIndex) -> np.ndarray:
    labels = [index.labels(position) for position in range(len(index))]
    return class_balanced_positions(labels, len(index.class_names))


class SampleSource(Protocol):
    """What training needs of a dataset."""

    def __len__(self) -> int: ...

    def sample(self, place: int, rng: np.random.Generator) -> Sample:
        """Return a sample; its augmentation is drawn from ``rng`` alone."""


class Draw(NamedTuple):
    """A sample to load, and what its augmentation is seeded with."""

    place: int
    seed: tuple[int, int, int]


class ShuffledDraws(Sampler[Draw]):
    """Draws of one process: a new permutation each epoch, the same for all processes, each sample
    to one of them.

    Everything follows from seed, epoch and turn in the permutation; nothing from workers or
    earlier epochs.

    Args:
        count: samples of the dataset.
        seed: of permutations and augmentation.
        process: number of this process.
        processes: how many there are.
        epoch: of the first iteration.
        skip: draws of this process to leave out in that epoch.
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
        """Choose the epoch of the next iteration; Lightning calls this."""
        if epoch != self._epoch:
            self._epoch, self._skip = epoch, 0

    def __len__(self) -> int:
        return self._count // self._processes

    def __iter__(self) -> Iterator[Draw]:
        order = np.random.default_rng((self._seed, self._epoch)).permutation(self._count)
        turns = range(self._process, len(self) * self._processes, self._processes)
        for turn in turns[self._skip :]:
            yield Draw(int(order[turn]), (self._seed, self._epoch, turn))


class DrawnSamples(Dataset):
    """A source as torch's loader asks for it: indexed by ``Draw``.

    Args:
        source: where samples come from.
    """

    def __init__(self, source: SampleSource) -> None:
        self._source = source

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, draw: Draw) -> Sample:
        return self._source.sample(draw.place, np.random.default_rng(draw.seed))


class ResumableLoader(DataLoader):
    """A loader that refuses to continue a run whose order of samples was another one.

    Args:
        order: everything that decides the order.
        options: of ``DataLoader``.
    """

    def __init__(self, *, order: dict[str, int], **options) -> None:
        super().__init__(**options)
        self._order = order

    def state_dict(self) -> dict[str, int]:
        return dict(self._order)

    def load_state_dict(self, state: dict[str, int]) -> None:
        changed = [
            f'{name} was {state.get(name)} and is {value}'
            for name, value in self._order.items()
            if state.get(name) != value
        ]
        if changed:
            raise ValueError(
                f'the run cannot go on with other data: {", ".join(changed)}; resume as it was '
                'started, or start anew'
            )


def _one_thread(worker: int) -> None:
    """Keep a loader process to one core, as torch does by itself."""
    cv2.setNumThreads(1)


class TrainingData(LightningDataModule):
    """Shuffled batches of augmented samples; the last incomplete batch of an epoch is dropped.

    Args:
        open_source: returns the dataset; called on one process of each machine first, so that it
            may fill a cache.
        network: the model that the targets are for.
        batch_size: samples per process and batch.
        workers: loader processes per training process.
        seed: of order and augmentation.
    """

    def __init__(
        self,
        open_source: Callable[[], SampleSource],
        network: ModelConfig,
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._open_source, self._network = open_source, network
        self._source: SampleSource | None = None
        self.batch_size, self._workers, self._seed = batch_size, workers, seed

    def prepare_data(self) -> None:
        self._source = self._open_source()

    def setup(self, stage: str) -> None:
        if self._source is None:
            self._source = self._open_source()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch.

        Raises:
            ValueError: there is not one batch for each process.
        """
        processes = self.trainer.world_size
        batches = len(self._source) // processes // self.batch_size
        if batches == 0:
            raise ValueError(
                f'{len(self._source)} samples make no batch of {self.batch_size} for each of '
                f'{processes} processes; '
                'train on more samples or lower data.batch_size'
            )
        return math.ceil(batches / self.trainer.accumulate_grad_batches)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader; when a run is resumed its first epoch starts where the checkpoint was
        written.
        """
        trainer = self.trainer
        epoch, step = divmod(trainer.global_step, self.steps_per_epoch)
        skip = step * trainer.accumulate_grad_batches * self.batch_size
        draws = ShuffledDraws(
            len(self._source), self._seed, trainer.global_rank, trainer.world_size, epoch, skip
        )
        order = {
            'samples': len(self._source),
            'seed': self._seed,
            'processes': trainer.world_size,
            'batch size': self.batch_size,
        }
        return ResumableLoader(
            order=order,
            dataset=DrawnSamples(self._source),
            batch_sampler=BatchSampler(draws, self.batch_size, drop_last=True),
            num_workers=self._workers,
            collate_fn=partial(collate, config=self._network),
            worker_init_fn=_one_thread,
            pin_memory=trainer.strategy.root_device.type == 'cuda',
            persistent_workers=self._workers > 0,
        )
