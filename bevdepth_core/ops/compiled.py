"""The kernels of ``csrc`` where they are built, and how they are told where to run; the only
importer of the compiled module.
"""

from __future__ import annotations

import torch

try:
    from bevdepth_core.ops import _kernels as kernels

    why_missing = ''
except ImportError as error:
    kernels = None
    why_missing = str(error)


def launch(tensor: torch.Tensor):
    """Return type and device of ``tensor`` and the caller's stream, as the kernels take them."""
    dtype = getattr(kernels.Dtype, str(tensor.dtype).removeprefix('torch.'))
    return kernels.Launch(
        dtype, tensor.device.index, torch.cuda.current_stream(tensor.device).cuda_stream
    )
