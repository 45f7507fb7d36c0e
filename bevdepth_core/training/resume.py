"""Checks that a run is resumed with the settings and the data of its start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from bevdepth_core.checkpoint import CheckpointError, require_plain_archive
from bevdepth_core.config import model_config_from_dict, model_config_to_dict
from bevdepth_core.training.seeded_sampler import require_same_order

CHANGEABLE = frozenset(
    (
        'model.init', 'model.pretrained',
        'data.root', 'data.cache_dir', 'data.categories', 'data.workers', 'data.val_split',
        'data.val_samples',
        'trainer.accelerator', 'trainer.devices', 'trainer.nodes', 'trainer.precision',
        'trainer.max_epochs', 'trainer.max_steps', 'trainer.log_every_n_steps',
        'trainer.checkpoint_every_n_steps', 'trainer.validate_every_n_epochs', 'trainer.logger',
        'output',
    )
)  # fmt: skip
"""Settings that may be changed when a run is resumed; docs/TRAINING.md explains them. The number
of processes, which follows from devices and nodes, must not change."""
_SHOWN = 5
"""Number of changed settings that a message shows."""


class SettingsChangedError(ValueError):
    """A run cannot be resumed, because settings have changed since its start."""


def require_resumable(path: Path, settings: Mapping[str, Any], order: Mapping[str, int]) -> None:
    """Raise an error unless a run can be resumed.

    Args:
        path: checkpoint of the run.
        settings: current configuration as plain values.
        order: all values on which the order of the samples depends.

    Raises:
        CheckpointError: the file is truncated or damaged.
        SettingsChangedError: a setting has changed since the start of the run. Settings that the
            checkpoint does not contain, because an earlier version of this project wrote the
            checkpoint, are not compared.
        OrderChangedError: the order of the samples would change.
    """
    content = _read(path)
    changed = list(_changes(_normalized(content.get('description') or {}), settings))
    if changed:
        more = f' and {len(changed) - _SHOWN} more' if len(changed) > _SHOWN else ''
        raise SettingsChangedError(
            f'the run cannot be resumed with other settings: {", ".join(changed[:_SHOWN])}{more}; '
            'resume it with the settings of its start, or start a new run with another --output'
        )
    for stored in content['loops']['fit_loop']['state_dict'].get('combined_loader', ()):
        require_same_order(stored, order)


def _read(path: Path) -> dict[str, Any]:
    try:
        require_plain_archive(path)
        return torch.load(path, map_location='cpu', weights_only=True, mmap=True)
    except Exception as error:  # PyTorch raises many types for damaged files
        raise CheckpointError(
            f'{path} is truncated or damaged, so the run cannot be resumed: restore a copy, '
            'or start a new run with another --output, for example with --model.init and the '
            f'newest file in {path.parent / "weights"}'
        ) from error


def _normalized(settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings in which the network is described in the format of this version."""
    model = settings.get('model', {})
    with suppress(KeyError, ValueError):
        network = model_config_to_dict(model_config_from_dict(model['network']))
        return settings | {'model': model | {'network': network}}
    return settings


def _changes(
    stored: Mapping[str, Any], settings: Mapping[str, Any], section: str = ''
) -> Iterator[str]:
    """Yield a text for each setting that has changed."""
    for name, value in settings.items():
        key = f'{section}{name}'
        if name not in stored or key in CHANGEABLE:
            continue
        if isinstance(value, dict) and isinstance(stored[name], dict):
            yield from _changes(stored[name], value, f'{key}.')
        elif value != stored[name]:
            yield f'{key} was {_text(stored[name])} and is {_text(value)}'


def _text(value: object) -> str:
    return 'null' if value is None else str(value)
