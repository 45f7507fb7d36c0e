"""Operations PyTorch has no form of, each with a plain torch reference; those that take gradients
are ``torch.library`` ops.
"""

from bevdepth_core.ops.voxel_pooling import (
    force_reference,
    kernels_in_use,
    voxel_index,
    voxel_pooling,
    voxel_pooling_indexed,
    voxel_pooling_volume,
)

__all__ = [
    'force_reference',
    'kernels_in_use',
    'voxel_index',
    'voxel_pooling',
    'voxel_pooling_indexed',
    'voxel_pooling_volume',
]
