"""A checkpoint to try things with while there are no trained weights: it has the right form and detects nothing."""

from __future__ import annotations

from pathlib import Path

import torch

from bevdepth_core.checkpoint import save_checkpoint
from bevdepth_core.config import load_model_config
from bevdepth_core.model import BEVDepth


def save_untrained_checkpoint(preset: str | Path, path: str | Path, seed: int = 0) -> None:
    """Write a model of ``preset``, a YAML file of ``config/models``, with random weights; the same seed gives the same file."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BEVDepth(load_model_config(preset))
    save_checkpoint(model, path, metadata={'weights': f'random, seed {seed}'})
