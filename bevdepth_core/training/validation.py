"""Computes mAP and NDS on the validation samples during training."""

from __future__ import annotations

import logging
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import distributed

from bevdepth_core.config import ModelConfig
from bevdepth_core.decode import ScoredBoxes, decode
from bevdepth_core.nuscenes.dataset import NuScenesDataset
from bevdepth_core.nuscenes.records import Pose
from bevdepth_core.nuscenes.result_file import result_boxes
from bevdepth_core.training.batch import Batch
from bevdepth_core.types import Detections3D

_LOG = logging.getLogger(__name__)


class ValidationScore(Callback):
    """Callback that decodes the boxes of every validation batch and logs ``val/mAP`` and
    ``val/NDS``.

    Args:
        network: configuration of the network, for decoding.
    """

    def __init__(self, network: ModelConfig) -> None:
        self._network = network
        self._results: dict[str, list[dict]] = {}
        self._poses: dict[str, Pose] = {}

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._results = {}
        if not self._poses:
            index = _validation(trainer).index
            self._poses = {record.token: record.world_from_ego() for record in index}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        samples = decode(outputs['outputs'].tasks, self._network)
        for token, found in zip(batch.names, samples, strict=True):
            self._results[token] = self._entries(token, found)

    def _entries(self, token: str, found: ScoredBoxes) -> list[dict]:
        classes = self._network.class_names
        detections = Detections3D(found.boxes, found.scores, found.labels, classes, stamp_ns=0)
        return result_boxes(token, detections, self._poses[token])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        scores = self._scores(trainer, _gathered(self._results))
        pl_module.log_dict(trainer.strategy.broadcast(scores), prog_bar=True)

    def _scores(self, trainer: Trainer, results: dict[str, list[dict]]) -> dict[str, float]:
        """Return the scores, which only the first process computes; other processes return 0."""
        scores = {'val/mAP': 0.0, 'val/NDS': 0.0}
        if not trainer.is_global_zero:
            return scores
        # The devkit takes seconds to import.
        from bevdepth_core.nuscenes.index_evaluation import evaluate_on_index

        try:
            summary = evaluate_on_index(results, _validation(trainer).index)
        except ValueError as error:
            _LOG.warning('the validation has no score: %s', error)
            return scores
        return {'val/mAP': summary['mean_ap'], 'val/NDS': summary['nd_score']}


def _validation(trainer: Trainer) -> NuScenesDataset:
    return trainer.datamodule.validation  # type: ignore[attr-defined]


def _gathered(results: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Return the results of all processes together."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return results
    parts: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(parts, results)
    return {token: entries for part in parts for token, entries in part.items()}
