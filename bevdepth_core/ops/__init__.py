"""Operations of the network. Each operation has a reference in plain PyTorch. Compiled kernels
exist for operations that PyTorch does not have, runs slowly, or cannot capture in a CUDA graph.
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
