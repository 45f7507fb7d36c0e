"""Operations of the network, each with a plain torch reference, and compiled kernels where PyTorch
has no form of it, a slow one, or one that no CUDA graph can hold.
"""

from bevdepth_core.ops.backend import force_reference, kernels_in_use
from bevdepth_core.ops.voxel_pooling import voxel_index, voxel_pooling, voxel_pooling_volume

__all__ = [
    'force_reference',
    'kernels_in_use',
    'voxel_index',
    'voxel_pooling',
    'voxel_pooling_volume',
]
