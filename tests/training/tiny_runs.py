"""Creates a checkpoint of a tiny network, and command lines for training on a small dataset."""

from __future__ import annotations

from pathlib import Path

import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.model import BEVDepth
from tests.core.nuscenes.own_rig import SPLIT, VERSION
from tests.networks import TINY
from tests.reference import ROOT


def tiny_checkpoint(folder: Path) -> Path:
    """Write random weights of a tiny network, the same on every call, and return their path."""
    path = folder / 'tiny.safetensors'
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(1)
        save_checkpoint(BEVDepth(TINY), path)
    return path


def command(preset: str, root: Path, output: Path, *more: str) -> list[str]:
    """Return arguments of training/train.py for one epoch with a batch size of 2."""
    options = {
        'config': ROOT / f'config/training/{preset}.yaml',
        'output': output,
        'data.root': root,
        'data.version': VERSION,
        'data.split': SPLIT,
        'data.cache_dir': root.parent / 'cache',
        'data.batch_size': 2,
        'data.workers': 0,
        'trainer.accelerator': 'cpu',
        'trainer.devices': 1,
        'trainer.max_epochs': 1,
        'trainer.log_every_n_steps': 1,
    }
    return [*(f'--{name}={value}' for name, value in options.items()), *more]
