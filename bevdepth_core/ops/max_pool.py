"""Max pooling after the stem of a ResNet. For channels_last maps, PyTorch's kernel takes eight
times as long as the compiled kernel.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from bevdepth_core.ops.compiled import kernels, launch


def max_pool(features: torch.Tensor) -> torch.Tensor:
    """Return the largest value of each 3x3 window, stride 2, padding 1.

    Args:
        features: (N, C, H, W). Channels_last features on CUDA must be float16, bfloat16 or
            float32, because the compiled kernel reads them.

    Returns:
        (N, C, ceil(H / 2), ceil(W / 2)).
    """
    nhwc = features.permute(0, 2, 3, 1)
    if kernels is None or not features.is_cuda or not nhwc.is_contiguous():
        return F.max_pool2d(features, 3, stride=2, padding=1)
    images, height, width, channels = nhwc.shape
    pooled = nhwc.new_empty(images, (height + 1) // 2, (width + 1) // 2, channels)
    kernels.max_pool(launch(nhwc), kernels.Map(*nhwc.shape), nhwc.data_ptr(), pooled.data_ptr())
    return pooled.permute(0, 3, 1, 2)
