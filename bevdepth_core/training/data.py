"""Opens the training and validation data of a run, and creates the data loaders."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import cv2
import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.data import BatchSampler, DataLoader, Subset

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.nuscenes.augment import Augmentation
from bevdepth_core.nuscenes.dataset import NuScenesDataset
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.sampling import class_balanced_positions
from bevdepth_core.preprocess import ImageTransform
from bevdepth_core.training.batch import Batch, collate
from bevdepth_core.training.command_line import require_at_least
from bevdepth_core.training.dataset_settings import DatasetSettings, report_boxes
from bevdepth_core.training.seeded_sampler import (
    ResumableLoader,
    SampleSource,
    SeededDataset,
    SeededSampler,
)


@dataclass(frozen=True)
class DataSettings(DatasetSettings):
    """Data for training and validation.

    Attributes:
        val_split: split to validate on; null for no validation.
        val_samples: number of validation samples, which are spread over the split; 0 for all
            samples of the split.
        class_balanced: repeat samples of rare classes (CBGS).
        batch_size: number of samples per GPU and batch.
        workers: number of loader processes per GPU.
        augmentation: ranges of random changes.
    """

    val_split: str | None = None
    val_samples: int = 400
    class_balanced: bool = False
    batch_size: int = 8
    workers: int = 4
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        require_at_least('data', self, val_samples=0, batch_size=1, workers=0, min_points=0)


def open_nuscenes(
    settings: DataSettings, network: ModelConfig, needs_boxes: bool = True
) -> NuScenesDataset:
    """Return the training data of ``settings``, and log how many boxes it has.

    Args:
        settings: the dataset.
        network: configuration of the network, which contains the class list, the BEV grid, the
            image size and the number of key frames.
        needs_boxes: True to reject a dataset without usable boxes; False to reject a dataset
            without lidar.

    Raises:
        ValueError: an error of ``load_index``; or the dataset is rejected (see ``needs_boxes``), a
            batch may have a single image, or the augmentation does not fit the size of the images.
    """
    index = settings.load(network)
    if not needs_boxes and index.channels.lidar is None:
        raise ValueError(
            f'{settings.description()} has no lidar, which model.objective depth needs: train '
            'with annotations (model.objective detection), or on data with a lidar'
        )
    _require_several_images(settings, len(index.channels.cameras))
    _require_suitable_scale(settings, index, network.image)
    rank_zero_only(report_boxes)(index, settings, network, needs_boxes)
    positions = _balanced_positions(index) if settings.class_balanced else None
    return _dataset(index, settings, network, positions)


def _require_several_images(settings: DataSettings, cameras: int) -> None:
    """Raise ValueError if a batch may have a single image. The batch norm after the global pooling
    of the depth network needs at least two images.
    """
    rig = settings.augmentation.rig
    fewest = min(cameras, rig.min_cameras or cameras) if rig else cameras
    if settings.batch_size * fewest < 2:
        raise ValueError(
            'training with a batch of one image is not possible, because batch norms need two '
            'images: set '
            'data.batch_size to 2 or more'
        )


def _require_suitable_scale(settings: DataSettings, index: SampleIndex, spec: ImageSpec) -> None:
    """Raise ValueError if training never uses the scale of inference. The training images would
    then have black borders, or contain only small parts of the camera images.
    """
    image = settings.augmentation.image
    low, high = image.scale
    for width, height in index.image_sizes():
        needed = 1.0 if image.relative else ImageTransform.for_inference(width, height, spec).scale
        if not low <= needed <= high:
            raise ValueError(
                f'data.augmentation.image.scale [{low:g}, {high:g}] does not contain {needed:.3g},'
                f' the scale that fits images of {width}x{height} to the network input of '
                f'{spec.width}x{spec.height}: set --data.augmentation.image.relative true '
                f"--data.augmentation.image.scale '[0.88, 1.25]', which suits any size"
            )


def open_validation(
    settings: DataSettings, network: ModelConfig, needs_boxes: bool = True
) -> NuScenesDataset:
    """Return the samples of ``settings.val_split`` to validate on; see ``open_nuscenes``."""
    settings = replace(settings, split=str(settings.val_split))
    index = settings.load(network)
    rank_zero_only(report_boxes)(index, settings, network, needs_boxes)
    count = min(settings.val_samples or len(index), len(index))
    return _dataset(index, settings, network, np.arange(count) * len(index) // count)


def _dataset(
    index: SampleIndex, settings: DataSettings, network: ModelConfig, positions: np.ndarray | None
) -> NuScenesDataset:
    return NuScenesDataset(
        index,
        settings.root,
        network.image,
        network.key_frames,
        settings.augmentation,
        positions,
    )


def _balanced_positions(index: SampleIndex) -> np.ndarray:
    labels = [index.labels(position) for position in range(len(index))]
    return class_balanced_positions(labels, len(index.class_names))


def _start_worker(worker: int) -> None:
    """Limit OpenCV in a loader process to one thread, and ignore Ctrl-C and SIGTERM, which the
    training process handles. A terminal and a scheduler send these signals to all processes of a
    run.
    """
    cv2.setNumThreads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


class TrainingData(LightningDataModule):
    """Provides shuffled batches of augmented samples. An incomplete last batch of an epoch is
    dropped.

    Args:
        open_source: function that returns the dataset. One process of each machine calls it before
            the other processes, so that this call can fill a cache.
        network: configuration of the model for which the targets are computed.
        batch_size: number of samples per process and batch.
        workers: number of loader processes per training process.
        seed: seed of order and augmentation.
        open_validation: function that returns the samples to validate on; None: no validation.
    """

    def __init__(
        self,
        open_source: Callable[[], SampleSource],
        network: ModelConfig,
        batch_size: int,
        workers: int = 0,
        seed: int = 0,
        open_validation: Callable[[], NuScenesDataset] | None = None,
    ) -> None:
        super().__init__()
        self._open_source, self._network = open_source, network
        self.batch_size, self._workers, self._seed = batch_size, workers, seed
        self._open_validation = open_validation
        self._source: SampleSource | None = None
        self._validation: NuScenesDataset | None = None

    def prepare_data(self) -> None:
        """Open the datasets, once."""
        if self._source is None:
            self._source = self._open_source()
            self._validation = self._open_validation() if self._open_validation else None

    def setup(self, stage: str) -> None:
        """Open the datasets in processes in which ``prepare_data`` was not called."""
        self.prepare_data()

    @property
    def source(self) -> SampleSource:
        """The training samples."""
        if self._source is None:
            raise RuntimeError('the data has not been set up')
        return self._source

    @property
    def validation(self) -> NuScenesDataset | None:
        """The samples to validate on."""
        return self._validation

    @property
    def _running(self) -> Trainer:
        if self.trainer is None:
            raise RuntimeError('the data module is not attached to a trainer')
        return self.trainer

    def batches(self, processes: int) -> int:
        """Return the number of batches per epoch and process.

        Raises:
            ValueError: there are fewer samples than one batch for each process.
        """
        batches = len(self.source) // processes // self.batch_size
        if batches == 0:
            raise ValueError(
                f'{len(self.source)} samples are fewer than one batch of {self.batch_size} for '
                f'each of {processes} processes; train on more samples or lower data.batch_size'
            )
        return batches

    def order(self, processes: int) -> dict[str, int]:
        """Return all values on which the order of the training samples depends."""
        return {
            'samples': len(self.source),
            'seed': self._seed,
            'processes': processes,
            'batch size': self.batch_size,
        }

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps per epoch; raises the error of ``batches``."""
        running = self._running
        return math.ceil(self.batches(running.world_size) / running.accumulate_grad_batches)

    def train_dataloader(self) -> ResumableLoader:
        """Return the loader. In a resumed run, the loader skips the samples of the current epoch
        that the run has already used.
        """
        trainer = self._running
        epoch, step = divmod(trainer.global_step, self.steps_per_epoch)
        skip = step * trainer.accumulate_grad_batches * self.batch_size
        sampler: Any = SeededSampler(
            len(self.source), self._seed, trainer.global_rank, trainer.world_size, epoch, skip
        )
        return ResumableLoader(
            order=self.order(trainer.world_size),
            dataset=SeededDataset(self.source),
            batch_sampler=BatchSampler(sampler, self.batch_size, drop_last=True),
            **self._loader_options(),
        )

    def val_dataloader(self) -> DataLoader[Batch] | list:
        """Return the loader of this process; an empty list without validation.

        All processes have the same number of samples, because the losses of the processes are
        averaged batch by batch. Samples that cannot be divided equally are dropped.
        """
        if self._validation is None:
            return []
        processes, process = self._running.world_size, self._running.global_rank
        equal = len(self._validation) // processes * processes
        part: Any = Subset(self._validation, range(process, equal, processes))
        return DataLoader(
            dataset=part,
            batch_size=self.batch_size,
            **self._loader_options(),
        )

    def _loader_options(self) -> dict[str, Any]:
        return {
            'num_workers': self._workers,
            'collate_fn': partial(collate, config=self._network),
            'worker_init_fn': _start_worker,
            'pin_memory': self._running.strategy.root_device.type == 'cuda',
            'persistent_workers': self._workers > 0,
        }
