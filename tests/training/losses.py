"""Computes losses of random network outputs in one process or in two processes."""

from __future__ import annotations

import numpy as np
import torch
from torch import distributed

from bevdepth_core.training.batch import Batch, collate
from bevdepth_core.training.criterion import criterion
from bevdepth_core.types import ModelOutputs, TaskMaps
from tests.networks import TINY
from tests.training.samples import noise_sample

WEIGHTS = (1.0,) * 10


def noise_batch(places: range) -> Batch:
    """Return a batch of the samples with the indices ``places``."""
    return collate([noise_sample(place, np.random.default_rng(place)) for place in places], TINY)


def noise_outputs(places: range) -> ModelOutputs:
    """Return random network outputs for the samples with the indices ``places``. A sample has the
    same outputs in every batch.
    """
    return _joined([_noise_output(torch.Generator().manual_seed(place)) for place in places])


def _noise_output(generator: torch.Generator) -> ModelOutputs:
    nx, ny, _ = TINY.grid.shape
    sizes = {'reg': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}
    tasks = []
    for task in TINY.head.tasks:
        maps = {**sizes, 'heatmap': len(task.classes)}
        tasks.append(
            TaskMaps(
                **{
                    name: torch.randn(1, channels, ny, nx, generator=generator)
                    for name, channels in maps.items()
                }
            )
        )
    depth = torch.randn(1, 2, TINY.depth_bins.count, 2, 4, generator=generator).softmax(dim=2)
    return ModelOutputs(tuple(tasks), depth)


def _joined(outputs: list[ModelOutputs]) -> ModelOutputs:
    tasks = [
        TaskMaps(
            **{name: torch.cat([getattr(maps, name) for maps in task]) for name in vars(task[0])}
        )
        for task in zip(*(output.tasks for output in outputs), strict=True)
    ]
    return ModelOutputs(tuple(tasks), torch.cat([output.depth for output in outputs]))


def loss_of(places: range):
    batch = noise_batch(places)
    return criterion(noise_outputs(places), batch.tasks, batch.depth_bins, WEIGHTS)


def put_half_of_the_loss(process: int, meeting_point: str, results) -> None:
    """Compute the losses of three of six samples, as process 0 or 1 of two processes.

    The losses are put into the queue ``results``. The two processes connect through the file
    ``meeting_point``.
    """
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo', init_method=f'file://{meeting_point}', rank=process, world_size=2
    )
    losses = loss_of(range(3 * process, 3 * process + 3))
    results.put((losses.heatmap.tolist(), losses.box.tolist(), losses.depth.item()))
    distributed.destroy_process_group()
