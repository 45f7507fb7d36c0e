"""Sets PyTorch's global flags for TF32 and cuDNN while a ``with`` block runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def convolution_flags(dtype: torch.dtype, search: bool = False) -> Iterator[None]:
    """Allow TF32 during the ``with`` block, or forbid it if ``dtype`` is float32. The flags are
    restored after the block.

    TF32 rounds float32 operands to ten bits of mantissa. By default, PyTorch allows TF32 for
    convolutions.

    Args:
        dtype: the data type in which the network computes.
        search: let cuDNN measure its kernels for each new size and select the fastest kernel.
    """
    convolutions, products = torch.backends.cudnn, torch.backends.cuda.matmul
    before = (convolutions.allow_tf32, convolutions.benchmark, products.allow_tf32)
    allowed = dtype != torch.float32
    convolutions.allow_tf32 = products.allow_tf32 = allowed
    convolutions.benchmark = search or before[1]
    try:
        yield
    finally:
        convolutions.allow_tf32, convolutions.benchmark, products.allow_tf32 = before
