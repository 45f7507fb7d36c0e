"""The Lightning module: initial weights, frozen layers, training step, optimizer and schedule."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from bevdepth_core.config import ModelConfig
from bevdepth_core.model import BEVDepth
from bevdepth_core.training.batch import Batch
from bevdepth_core.training.command_line import require_at_least
from bevdepth_core.training.criterion import Losses, criterion, depth_criterion
from bevdepth_core.training.initial_weights import load_initial, load_pretrained
from bevdepth_core.types import ModelOutputs

_MILESTONE_FACTOR = 0.1
_DEPTH_LAYERS = (
    'depth_net.depth_gate', 'depth_net.depth_blocks', 'depth_net.pyramid', 'depth_net.deform',
)  # fmt: skip
_DEPTH_HEADS = ('depth_net.depth_head',)
_STEREO_DEPTH_HEADS = (
    'depth_net.mono_head', 'depth_net.hypothesis_head', 'stereo.similarity', 'stereo.downsample',
)  # fmt: skip
"""The layers of the stereo mask are not in this list, because the depth loss does not depend on
them."""


@dataclass(frozen=True)
class ModelSettings:
    """The network and its optimization. The defaults are the values of the paper for two key
    frames.

    Attributes:
        network: configuration of the network. With ``init``, missing values are taken from the
            checkpoint.
        init: BEVDepth checkpoint from whose weights the training starts: a file, or a name such as
            ``small``. Heads with the same classes are copied, and other heads get random weights.
            If it is null, ``pretrained`` is used.
        objective: ``detection`` trains the whole network with all losses. ``depth`` trains the
            depth branch with lidar depth, which needs no annotations; all other weights and
            batch norm statistics stay fixed.
        pretrained: initial weights of the image backbone if ``init`` is null: a torchvision name
            such as ``IMAGENET1K_V1``, a file with a torchvision state dict, or ``none`` for random
            weights.
        heatmap_bias: initial bias of the heatmap layers that are not copied from ``init``. For
            example, -2.19 gives an initial score of 0.1. null: a random bias near 0, as in the
            official code.
        freeze_stem: keep the first convolution and the first batch norm of the backbone fixed;
            only suitable for pretrained weights.
        code_weights: weights of the ten box numbers in the loss: x, y, z, three sizes, sine,
            cosine, velocity x and y.
        learning_rate: learning rate for ``learning_rate_batch`` samples per step. For another
            number of samples per step, the learning rate is scaled in proportion.
        learning_rate_batch: number of samples per step, over all GPUs, for which
            ``learning_rate`` is valid.
        weight_decay: weight decay of AdamW.
        warmup_steps: steps of a linear increase of the learning rate at the start.
        schedule: ``steps`` multiplies the learning rate by 0.1 at each milestone, ``cosine``
            decreases it to 0.
        milestones: epochs at which the schedule ``steps`` multiplies the learning rate by 0.1.
    """

    network: ModelConfig = field(default_factory=ModelConfig)
    init: str | None = None
    objective: Literal['detection', 'depth'] = 'detection'
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

    def __post_init__(self) -> None:
        require_at_least(
            'model', self, learning_rate=0, learning_rate_batch=1, weight_decay=0, warmup_steps=0
        )


class NonFiniteLossError(FloatingPointError):
    """The loss became NaN or infinite; the message names the batch and the losses."""


class BEVDepthModule(LightningModule):
    """The network with its losses and its optimizer.

    The random numbers of a step (dropout) depend only on seed, epoch, batch and rank. A resumed
    run therefore uses the same random numbers as an uninterrupted run.

    Args:
        settings: network and optimization.
        seed: seed of the initial weights and of every step.
        description: plain values to store in checkpoints, such as the configuration of the run.

    Raises:
        ValueError: the initial weights do not exist, are damaged or do not fit.
        ConnectionError: the pretrained weights could not be downloaded.
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
            self.model = BEVDepth(settings.network)
        self._load_first_weights()
        for part in self._frozen():
            part.requires_grad_(False)
        for part in self._depth_branch():
            part.requires_grad_(True)
        self.train()

    def setup(self, stage: str) -> None:
        """Use channels_last on CUDA, which makes convolutions and batch norms faster.

        On the CPU, channels_last is not used, because the batch norm of PyTorch sums channels_last
        maps less exactly there. The depth would deviate from the official numbers by 5e-5 instead
        of 6e-7.
        """
        if self.trainer.strategy.root_device.type == 'cuda':
            _use_channels_last(self.model)

    def _load_first_weights(self) -> None:
        settings = self.settings
        if settings.heatmap_bias is not None:
            for task in self.model.head.tasks:
                nn.init.constant_(_heatmap_bias(task), settings.heatmap_bias)
        if settings.init is not None:
            load_initial(self.model, settings.init)
        else:
            depth = settings.network.image_encoder.depth
            load_pretrained(self.model.image_encoder.backbone, settings.pretrained, depth)

    def _frozen(self) -> tuple[nn.Module, ...]:
        """Return the modules to freeze. The layers of ``_depth_branch`` are trained even if one of
        these modules contains them.
        """
        if self.settings.objective == 'depth':
            return (self.model,)
        backbone = self.model.image_encoder.backbone
        return (backbone.conv1, backbone.bn1) if self.settings.freeze_stem else ()

    def _depth_branch(self) -> tuple[nn.Module, ...]:
        """Return the layers that influence only the depth.

        With the objective ``depth``, only these layers are trained. Their batch norms use and
        update the statistics of the new data. The shared layers before them stay fixed, because
        the context depends on the shared layers, and the detection heads were trained with this
        context.
        """
        heads = _DEPTH_HEADS if self.model.stereo is None else _STEREO_DEPTH_HEADS
        return tuple(self.model.get_submodule(name) for name in (*_DEPTH_LAYERS, *heads))

    def train(self, mode: bool = True) -> BEVDepthModule:
        """Switch to training or evaluation mode; frozen modules stay in evaluation mode."""
        super().train(mode)
        for part in self._frozen():
            part.eval()
        for part in self._depth_branch():
            part.train(mode)
        return self

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        words = np.random.SeedSequence(
            (self.seed, self.current_epoch, batch_idx, self.global_rank)
        ).generate_state(2)
        torch.manual_seed(int(words[0]) << 32 | int(words[1]))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the loss of a batch.

        Raises:
            NonFiniteLossError: the loss is NaN or infinite.
        """
        losses, _ = self._losses(batch)
        named = losses.named()
        if not named['total'].isfinite():
            raise NonFiniteLossError(self._non_finite(batch, batch_idx, named))
        self.log_dict(
            {f'loss/{name}': value for name, value in named.items()}, batch_size=len(batch)
        )
        self.log('loss', named['total'], prog_bar=True, logger=False, batch_size=len(batch))
        return losses.total

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, ModelOutputs | None]:
        """Log the losses of a batch, and return the ``outputs`` of the network. With objective
        ``depth``, they are None.
        """
        losses, outputs = self._losses(batch)
        named = {f'val/loss/{name}': value for name, value in losses.named().items()}
        self.log_dict(named, on_epoch=True, sync_dist=True, batch_size=len(batch))
        return {'outputs': outputs}

    def _losses(self, batch: Batch) -> tuple[Losses, ModelOutputs | None]:
        inputs = batch.inputs(self.settings.network.image)
        if self.settings.objective == 'depth':
            return depth_criterion(self.model.key_frame_depth(inputs), batch.depth_bins), None
        outputs = self.model(inputs)
        weights = self.settings.code_weights
        return criterion(outputs, batch.tasks, batch.depth_bins, weights), outputs

    def _non_finite(self, batch: Batch, batch_idx: int, named: dict[str, Tensor]) -> str:
        values = ', '.join(f'{name} {value.item():g}' for name, value in named.items())
        return (
            f'the loss is not finite in epoch {self.current_epoch}, batch {batch_idx}, '
            f'samples {", ".join(batch.names)}: {values}. '
            'Check these samples, or train with bf16 or 32 bits, and resume from the last '
            'checkpoint. To lower the learning rate, start a new run.'
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        settings, trainer = self.settings, self.trainer
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        samples = data.batch_size * trainer.world_size * trainer.accumulate_grad_batches
        trainable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        rate = settings.learning_rate * samples / settings.learning_rate_batch
        optimizer = torch.optim.AdamW(trainable, lr=rate, weight_decay=settings.weight_decay)
        epochs = trainer.max_epochs or 0
        total = trainer.max_steps if trainer.max_steps > 0 else data.steps_per_epoch * epochs
        factor = partial(
            learning_rate_factor,
            steps_per_epoch=data.steps_per_epoch,
            total_steps=total,
            settings=settings,
        )
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {
            'optimizer': optimizer,
            'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint['description'] = self.description


def _use_channels_last(model: nn.Module) -> None:
    """Store the weights of 2D convolutions in channels_last layout. Other weights have no such
    layout.
    """
    for weight in model.parameters():
        if weight.dim() == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)


def _heatmap_bias(task: Any) -> Tensor:
    return task['heatmap'][-1].bias


def learning_rate_factor(
    step: int, steps_per_epoch: int, total_steps: int, settings: ModelSettings
) -> float:
    """Return the factor of the learning rate at optimizer step ``step``, counted from 0."""
    warmup = min(1.0, (step + 1) / (settings.warmup_steps + 1))
    if settings.schedule == 'cosine':
        return warmup * (1 + math.cos(math.pi * min(1.0, step / total_steps))) / 2
    return warmup * _MILESTONE_FACTOR ** sum(
        step // steps_per_epoch >= epoch for epoch in settings.milestones
    )
