"""The network under training: frozen stem, pretrained weights, one step, optimizer and
schedule.
"""

from __future__ import annotations

import math
import urllib.error
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchvision.models import get_model_weights

from bevdepth_core.config import ModelConfig
from bevdepth_core.model import BEVDepth
from bevdepth_core.training.batch import Batch
from bevdepth_core.training.criterion import criterion

_MILESTONE_FACTOR = 0.1


@dataclass(frozen=True)
class ModelSettings:
    """The network and how it learns; the defaults are the paper's with two key frames.

    Attributes:
        network: every number of the network.
        pretrained: first weights of the image backbone: the name of torchvision's weights such as
            ``IMAGENET1K_V1``, the path of a file with a torchvision state dict, or ``none`` for
            random ones.
        heatmap_bias: first bias of the heatmaps, such as -2.19 for a first score of 0.1
            everywhere; null for a random one near 0, which is what the official code ends up with.
        freeze_stem: keep the backbone's first convolution and its batch norm as they are; right
            for pretrained weights only.
        code_weights: weights of the ten box numbers in the loss: x, y, z, three sizes, sine,
            cosine, velocity x and y.
        learning_rate: at ``learning_rate_batch`` samples a step; it grows with the number of
            samples.
        learning_rate_batch: samples a step, over all GPUs, that ``learning_rate`` is meant for.
        weight_decay: of AdamW.
        warmup_steps: steps of linear growth of the learning rate at the start.
        schedule: ``steps`` multiplies the learning rate by 0.1 at each milestone, ``cosine`` lets
            it fall to 0.
        milestones: epochs of ``steps``.
    """

    network: ModelConfig = field(default_factory=ModelConfig)
    pretrained: str = 'IMAGENET1K_V1'
    heatmap_bias: float | None = None
    freeze_stem: bool = True
    code_weights: tuple[float, float, float, float, float, float, float, float, float, float] = (
        1.0,
    ) * 10
    learning_rate: float = 2e-4
    learning_rate_batch: int = 64
    weight_decay: float = 1e-7
    warmup_steps: int = 0
    schedule: Literal['steps', 'cosine'] = 'steps'
    milestones: tuple[int, ...] = (19, 23)


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the message names batch and losses."""


class BEVDepthModule(LightningModule):
    """One step of training.

    The random numbers of a step (dropout) follow from seed, epoch, step and rank alone, so that a
    resumed run draws what an uninterrupted one does.

    Args:
        settings: network and recipe.
        seed: of the first weights and of every step.
        description: plain values that checkpoints carry along, such as the whole configuration of
            the run.

    Raises:
        ValueError: pretrained weights that do not exist or do not fit.
        ConnectionError: pretrained weights that could not be downloaded.
    """

    def __init__(
        self, settings: ModelSettings, seed: int = 0, description: dict | None = None
    ) -> None:
        super().__init__()
        self.settings = settings
        self.seed = seed
        self.description = description or {}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            # Convolutions and batch norms are faster so, most of all on tensor cores.
            self.model = BEVDepth(settings.network).to(memory_format=torch.channels_last)
        if settings.heatmap_bias is not None:
            for task in self.model.head.tasks:
                nn.init.constant_(task['heatmap'][-1].bias, settings.heatmap_bias)
        load_pretrained(
            self.model.image_encoder.backbone,
            settings.pretrained,
            settings.network.image_encoder.depth,
        )
        if settings.freeze_stem:
            for layer in self._stem():
                layer.requires_grad_(False)
        self.train()

    def _stem(self) -> tuple[nn.Module, nn.Module]:
        backbone = self.model.image_encoder.backbone
        return backbone.conv1, backbone.bn1

    def train(self, mode: bool = True) -> BEVDepthModule:
        """Switch to training or evaluation; a frozen stem stays in evaluation."""
        super().train(mode)
        if self.settings.freeze_stem:
            for layer in self._stem():
                layer.eval()
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        words = np.random.SeedSequence(
            (self.seed, self.current_epoch, batch_idx, self.global_rank)
        ).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            NonFiniteLossError: it is NaN or infinite.
        """
        outputs = self.model(batch.inputs(self.settings.network.image))
        losses = criterion(outputs, batch.tasks, batch.depth_bins, self.settings.code_weights)
        named = losses.named()
        if not named['total'].isfinite():
            values = ', '.join(f'{name} {value.item():g}' for name, value in named.items())
            raise NonFiniteLossError(
                f'the loss is not finite in epoch {self.current_epoch}, batch {batch_idx}, '
                f'samples {", ".join(batch.names)}: {values}. '
                'Look at these samples, lower the learning rate, or train with bf16 or 32 bits, '
                'then resume from the last checkpoint.'
            )
        self.log_dict(
            {f'loss/{name}': value for name, value in named.items()}, batch_size=len(batch)
        )
        self.log('loss', named['total'], prog_bar=True, logger=False, batch_size=len(batch))
        return losses.total

    def configure_optimizers(self) -> dict:
        settings, data = self.settings, self.trainer.datamodule
        samples = data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        rate = settings.learning_rate * samples / settings.learning_rate_batch
        optimizer = torch.optim.AdamW(trainable, lr=rate, weight_decay=settings.weight_decay)
        steps_per_epoch = data.steps_per_epoch
        total = (
            self.trainer.max_steps
            if self.trainer.max_steps > 0
            else steps_per_epoch * self.trainer.max_epochs
        )
        factor = partial(
            learning_rate_factor,
            steps_per_epoch=steps_per_epoch,
            total_steps=total,
            settings=settings,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'},
        }

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        checkpoint['description'] = self.description


def learning_rate_factor(
    step: int, steps_per_epoch: int, total_steps: int, settings: ModelSettings
) -> float:
    """Return what the learning rate is multiplied by at optimizer step ``step``, counted from
    0.
    """
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == 'cosine':
        return warmup * (1 + math.cos(math.pi * min(1.0, step / total_steps))) / 2
    return warmup * _MILESTONE_FACTOR ** sum(
        step // steps_per_epoch >= epoch for epoch in settings.milestones
    )


def load_pretrained(backbone: nn.Module, source: str, depth: int) -> None:
    """Give the image backbone its first weights.

    Args:
        backbone: torchvision's ResNet without classifier.
        source: see ``ModelSettings.pretrained``.
        depth: of the ResNet.

    Raises:
        ValueError: no such weights, or they do not fit.
        ConnectionError: they could not be downloaded.
    """
    if source == 'none':
        return
    state = _read_state(Path(source)) if Path(source).suffix else _download_state(source, depth)
    state = {name: tensor for name, tensor in state.items() if not name.startswith('fc.')}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f'model.pretrained: {source} does not fit a ResNet-{depth}: {error}'
        ) from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(
            f"model.pretrained: {path}: no such file; give torchvision's name of weights, a file, "
            'or none'
        )
    return torch.load(path, map_location='cpu', weights_only=True)


def _download_state(name: str, depth: int) -> dict[str, Tensor]:
    try:
        weights = get_model_weights(f'resnet{depth}')[name]
    except KeyError as error:
        raise ValueError(
            f'model.pretrained: torchvision has no weights {name} of ResNet-{depth}; give a file '
            'or none'
        ) from error
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError) as error:
        raise ConnectionError(
            f'model.pretrained: {weights.url} could not be downloaded ({error}); fetch it '
            'elsewhere and give the file, '
            'or train from random weights with --model.pretrained none'
        ) from error
