"""Loads the initial weights of a network: an ImageNet backbone or a BEVDepth checkpoint."""

from __future__ import annotations

import logging
import urllib.error
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights

from bevdepth_core.checkpoint import CheckpointError, load_checkpoint, require_plain_archive
from bevdepth_core.model import BEVDepth

_LOG = logging.getLogger(__name__)
_NO_WEIGHTS = (
    'model.pretrained: {} is damaged or contains no weights; copy or download it again, or train '
    'with --model.pretrained none --model.freeze_stem false'
)


def load_initial(model: BEVDepth, path: str) -> None:
    """Copy the weights of a checkpoint. Log which heads were copied and which have random weights.

    A head is copied if the checkpoint has a task with the same classes in the same order.

    Args:
        model: network to which the weights are copied.
        path: checkpoint file, or the name of bundled or downloaded weights.

    Raises:
        CheckpointError: the file cannot be read, or its network differs from ``model``.
    """
    source = load_checkpoint(path)
    _require_same_layers(model, source, path)
    state = {
        name: tensor
        for name, tensor in source.state_dict().items()
        if not name.startswith('head.tasks.')
    }
    source_tasks = {task.classes: number for number, task in enumerate(source.config.head.tasks)}
    for number, task in enumerate(model.config.head.tasks):
        names = ', '.join(task.classes)
        if task.classes in source_tasks:
            head = source.head.tasks[source_tasks[task.classes]].state_dict()
            state |= {f'head.tasks.{number}.{name}': tensor for name, tensor in head.items()}
            _LOG.info('model.init: copied the head for %s from the checkpoint', names)
        else:
            _LOG.info(
                'model.init: the head for %s has random weights: '
                'the checkpoint has no task of these classes',
                names,
            )
    model.load_state_dict(state, strict=False)


def _require_same_layers(model: BEVDepth, source: BEVDepth, path: str) -> None:
    expected, found = (
        {
            name: tuple(tensor.shape)
            for name, tensor in network.state_dict().items()
            if not name.startswith('head.tasks.')
        }
        for network in (model, source)
    )
    differing = sorted({name.split('.')[0] for name, _ in expected.items() ^ found.items()})
    if differing:
        raise CheckpointError(
            f'model.init: the network in {path} differs from model.network in '
            f'{", ".join(differing)}; remove model.network to use the network of the checkpoint'
        )


def load_pretrained(backbone: nn.Module, source: str, depth: int) -> None:
    """Copy weights trained on ImageNet into the image backbone.

    Args:
        backbone: torchvision's ResNet without classifier.
        source: see ``ModelSettings.pretrained``.
        depth: depth of the ResNet.

    Raises:
        ValueError: torchvision has no weights of this name, the file is damaged, or the weights
            do not fit.
        ConnectionError: the weights could not be downloaded.
    """
    if source == 'none':
        return
    state = _read_state(Path(source)) if Path(source).suffix else _download_state(source, depth)
    state = {name: tensor for name, tensor in state.items() if not name.startswith('fc.')}
    try:
        backbone.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f'model.pretrained: {source} does not fit a ResNet-{depth} ({error}); set '
            f'model.pretrained to weights of a ResNet-{depth}, or to none'
        ) from error


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise ValueError(
            f'model.pretrained: {path} does not exist; set model.pretrained to a name of '
            'torchvision weights, an existing file, or none'
        )
    if zipfile.is_zipfile(path):  # older files of torchvision are not zip archives
        require_plain_archive(path)
    try:
        state = torch.load(path, map_location='cpu', weights_only=True)
    except Exception as error:  # PyTorch raises many types for damaged files
        raise ValueError(_NO_WEIGHTS.format(path)) from error
    if not isinstance(state, dict):
        raise ValueError(_NO_WEIGHTS.format(path))
    return state


def _download_state(name: str, depth: int) -> dict[str, Tensor]:
    try:
        weights = get_model_weights(f'resnet{depth}')[name]
    except KeyError as error:
        raise ValueError(
            f'model.pretrained: torchvision has no weights {name} for ResNet-{depth}; set '
            'model.pretrained to the path of a file, or to none'
        ) from error
    try:
        return dict(weights.get_state_dict(progress=True, check_hash=True))
    except (urllib.error.URLError, OSError) as error:
        raise ConnectionError(
            f'model.pretrained: {weights.url} could not be downloaded ({error}); download it on '
            'another machine and set model.pretrained to the path of the file, '
            'or train from random weights with --model.pretrained none --model.freeze_stem false'
        ) from error
