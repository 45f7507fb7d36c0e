"""Imports the compiled kernels of ``csrc``, if they are built; only this module imports them."""

from __future__ import annotations

from typing import Any

import torch

kernels: Any = None
why_missing = ''
try:
    import bevdepth_core.ops._kernels as _kernels

    kernels = _kernels
except ImportError as error:
    why_missing = str(error)


def launch(tensor: torch.Tensor) -> Any:
    """Return the launch argument of the kernels: data type and device of ``tensor``, and the
    current stream of this device.
    """
    dtype = getattr(kernels.Dtype, str(tensor.dtype).removeprefix('torch.'))
    stream = torch.cuda.current_stream(tensor.device).cuda_stream
    return kernels.Launch(dtype, tensor.device.index, stream)
