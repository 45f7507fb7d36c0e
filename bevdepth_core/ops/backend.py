"""Selects the implementation of voxel pooling and of the cost volume: the compiled kernels or the
torch reference.

The environment variable ``BEVDEPTH_VOXEL_POOLING=reference`` and ``force_reference()`` select the
reference. Each choice for voxel pooling is logged once per process.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Iterator

import torch
from torch import Tensor

from bevdepth_core.ops.compiled import kernels, why_missing

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def force_reference() -> Iterator[None]:
    """Use the torch references of voxel pooling and of the cost volume on every device while the
    ``with`` block runs.
    """
    global _reference_forced
    before, _reference_forced = _reference_forced, True
    try:
        yield
    finally:
        _reference_forced = before


def kernels_in_use() -> bool:
    """Return True if the compiled kernels are used on CUDA, that is, if they are built and the
    reference is not selected.
    """
    return kernels is not None and not _reference_forced


def _reference_requested() -> bool:
    """Return True if the environment variable selects the reference."""
    value = os.environ.get('BEVDEPTH_VOXEL_POOLING', '')
    if value not in ('', 'reference'):
        raise ValueError(f"BEVDEPTH_VOXEL_POOLING must be 'reference' or not set, got {value!r}")
    return value == 'reference'


_reference_forced = _reference_requested()


def use_kernels(features: Tensor) -> bool:
    """Return True if the compiled kernels pool ``features``, and False if the reference does."""
    if _reference_forced:
        _log_once(logging.INFO, features.device.type, 'torch reference, as requested')
    elif not features.is_cuda:
        _log_once(logging.INFO, features.device.type, 'torch reference')
    elif kernels is None:
        _log_once(
            logging.WARNING,
            'cuda',
            f'slow torch reference, because the kernels are not built: {why_missing}',
        )
    else:
        _log_once(logging.INFO, 'cuda', 'compiled kernels')
        return True
    return False


def use_forward_kernels(features: Tensor) -> bool:
    """Return True if the compiled kernels run the forward pass. In PyTorch's deterministic mode,
    the reference pools float64 features, because the float64 kernel has atomic sums, whose order
    is not fixed.
    """
    if not use_kernels(features):
        return False
    if features.dtype == torch.float64 and torch.are_deterministic_algorithms_enabled():
        _log_once(
            logging.INFO,
            'cuda',
            'torch reference in the forward pass in float64, because deterministic algorithms '
            'are requested',
        )
        return False
    return True


@functools.cache
def _log_once(level: int, device_type: str, choice: str) -> None:
    logger.log(level, 'voxel pooling on %s: %s', device_type, choice)
