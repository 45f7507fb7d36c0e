"""Operations PyTorch has no form of; each is a ``torch.library`` custom op with a plain torch reference."""

from bevdepth_core.ops.voxel_pooling import (
    force_reference,
    voxel_index,
    voxel_pooling,
    voxel_pooling_indexed,
    voxel_pooling_volume,
)

__all__ = ['force_reference', 'voxel_index', 'voxel_pooling', 'voxel_pooling_indexed', 'voxel_pooling_volume']
