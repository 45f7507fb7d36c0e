"""Converts between the weight names of this project ("own names") and the weight names of official
checkpoints ("official names"), and reads the config from official weights.

The names do not include the prefix ``model.`` that Lightning files have.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import torch

from bevdepth_core.config import (
    BEVGrid,
    DepthBins,
    ModelConfig,
    SizeAwareNMSConfig,
    StereoConfig,
)
from bevdepth_core.model import BEVDepth
from bevdepth_core.types import BOX_MAPS

GEOMETRY = (
    'backbone.voxel_size',
    'backbone.voxel_coord',
    'backbone.voxel_num',
    'backbone.frustum',
)
"""Official buffers that describe grid and frustum. ``official_config`` reads the config from these
buffers, and ``own_state_dict`` reads the frustum axes from the last of them."""

FRUSTUM_TOLERANCE_PX = 0.05
"""Largest accepted deviation of the official frustum from a regular grid, in pixels or meters. In
official checkpoints with averaged weights, the deviation is up to 0.0073."""

FRUSTUM_AXES = ('view_transform.frustum_u', 'view_transform.frustum_v', 'view_transform.frustum_d')
"""Buffers of this project for the frustum. Only these buffers have no official name."""

_DEPTH_NET = 'backbone.depth_net.'
_STEREO_BRANCH = _DEPTH_NET + 'depth_feat_conv.'
_STEREO_PREFIXES = (
    (_DEPTH_NET + 'mono_depth_net.', 'depth_net.mono_head.'),
    (_DEPTH_NET + 'mu_sigma_range_net.', 'depth_net.hypothesis_head.'),
    ('backbone.k_list', 'stereo.candidate_factors'),
    ('backbone.depth_values', 'stereo.bin_numbers'),
    ('backbone.similarity_net.0.conv.', 'stereo.similarity.0.0.'),
    ('backbone.similarity_net.0.bn.', 'stereo.similarity.0.1.'),
    ('backbone.similarity_net.1.conv.', 'stereo.similarity.1.0.'),
    ('backbone.similarity_net.1.bn.', 'stereo.similarity.1.1.'),
    ('backbone.similarity_net.2.', 'stereo.similarity.2.'),
    ('backbone.mask_net.', 'stereo.mask.'),
    ('backbone.depth_downsample_net.', 'stereo.downsample.'),
)


def from_official_name(name: str) -> str:
    """Convert the official name of a weight or buffer to its own name."""
    return _rename(name, _renamed_prefixes(stereo=name.startswith(_STEREO_BRANCH)))


def to_official_name(name: str, stereo: bool = False) -> str:
    """Convert the own name of a weight or buffer to its official name.

    Args:
        name: own name of a weight or buffer.
        stereo: whether the weight belongs to a stereo model. In stereo models, the official name
            of the depth branch differs from its official name in models without stereo.
    """
    return _rename(name, [(own, official) for official, own in _renamed_prefixes(stereo)])


@functools.cache
def _renamed_prefixes(stereo: bool) -> list[tuple[str, str]]:
    """Return pairs (official prefix, own prefix). If a name has several of these prefixes,
    ``_rename`` replaces the longest of them.
    """
    depth_branch, pyramid = (_STEREO_BRANCH, 2) if stereo else (_DEPTH_NET + 'depth_conv.', 3)
    return [
        *_module_prefixes(depth_branch, pyramid),
        *_STEREO_PREFIXES,
        *_gate_prefixes(),
        *_pyramid_prefixes(f'{depth_branch}{pyramid}.'),
        *_head_prefixes(),
    ]


def _module_prefixes(depth_branch: str, pyramid: int) -> list[tuple[str, str]]:
    return [
        ('backbone.img_backbone.', 'image_encoder.backbone.'),
        ('backbone.img_neck.deblocks.', 'image_encoder.neck.branches.'),
        (_DEPTH_NET + 'reduce_conv.', 'depth_net.reduce.'),
        (_DEPTH_NET + 'bn.', 'depth_net.camera_norm.'),
        (_DEPTH_NET + 'context_conv.', 'depth_net.context_head.'),
        (depth_branch, 'depth_net.depth_blocks.'),
        (f'{depth_branch}{pyramid}.global_avg_pool.', 'depth_net.pyramid.pool.'),
        (f'{depth_branch}{pyramid}.conv1.', 'depth_net.pyramid.project.0.'),
        (f'{depth_branch}{pyramid}.bn1.', 'depth_net.pyramid.project.1.'),
        (f'{depth_branch}{pyramid + 1}.', 'depth_net.deform.'),
        (f'{depth_branch}{pyramid + 1}.conv_offset.', 'depth_net.deform.offset.'),
        (f'{depth_branch}{pyramid + 2}.', 'depth_net.depth_head.'),
        ('backbone.depth_aggregation_net.reduce_conv.', 'view_transform.refinement.reduce.'),
        ('backbone.depth_aggregation_net.conv.', 'view_transform.refinement.residual.'),
        ('backbone.depth_aggregation_net.out_conv.0.', 'view_transform.refinement.out.'),
        ('head.trunk.', 'bev_encoder.trunk.'),
        ('head.neck.deblocks.', 'bev_encoder.neck.branches.'),
        ('head.shared_conv.conv.', 'head.shared.0.'),
        ('head.shared_conv.bn.', 'head.shared.1.'),
        ('head.task_heads.', 'head.tasks.'),
    ]


def _gate_prefixes() -> list[tuple[str, str]]:
    layers = (
        ('mlp.fc1', 'mlp.0'),
        ('mlp.fc2', 'mlp.2'),
        ('se.conv_reduce', 'gate.0'),
        ('se.conv_expand', 'gate.2'),
    )
    return [
        (f'{_DEPTH_NET}{branch}_{official}.', f'depth_net.{branch}_gate.{own}.')
        for branch in ('context', 'depth')
        for official, own in layers
    ]


def _pyramid_prefixes(pyramid: str) -> list[tuple[str, str]]:
    return [
        (f'{pyramid}aspp{index + 1}.{official}.', f'depth_net.pyramid.branches.{index}.{own}.')
        for index in range(4)
        for official, own in (('atrous_conv', '0'), ('bn', '1'))
    ]


def _head_prefixes() -> list[tuple[str, str]]:
    return [
        (f'head.task_heads.{task}.{output}.0.{official}.', f'head.tasks.{task}.{output}.0.{own}.')
        for task in range(len(ModelConfig().head.tasks))
        for output in (*BOX_MAPS, 'heatmap')
        for official, own in (('conv', '0'), ('bn', '1'))
    ]


def _rename(name: str, pairs: list[tuple[str, str]]) -> str:
    source, target = max(
        (pair for pair in pairs if name.startswith(pair[0])),
        key=lambda pair: len(pair[0]),
        default=('', ''),
    )
    return target + name.removeprefix(source)


def official_state_dict(model: BEVDepth) -> dict[str, torch.Tensor]:
    """Return the model's weights and the ``GEOMETRY`` buffers by their official names."""
    state = model.state_dict()
    u, v, d = (state.pop(name).cpu() for name in FRUSTUM_AXES)
    grid = model.config.grid
    size = torch.tensor(grid.cell)
    official = (
        size,
        torch.tensor(grid.lower) + size / 2,
        torch.tensor(grid.shape),
        _frustum(u, v, d),
    )
    return {
        **dict(zip(GEOMETRY, official, strict=True)),
        **{
            to_official_name(name, model.config.stereo is not None): tensor
            for name, tensor in state.items()
        },
    }


def own_state_dict(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename official weights: the result has the names of this project. ``state`` must include
    the ``GEOMETRY`` buffers.

    Raises:
        ValueError: the frustum is not a grid of pixels and depths.
    """
    frustum = state['backbone.frustum']
    u, v, d = frustum[0, 0, :, 0], frustum[0, :, 0, 1], frustum[:, 0, 0, 2]
    if not torch.allclose(_frustum(u, v, d), frustum, rtol=0, atol=FRUSTUM_TOLERANCE_PX):
        raise ValueError('backbone.frustum is not a grid of pixels and depths')
    axes = dict(zip(FRUSTUM_AXES, (u.float(), v.float(), d.float()), strict=True))
    return {
        **{
            from_official_name(name): tensor
            for name, tensor in state.items()
            if name not in GEOMETRY
        },
        **axes,
    }


def _frustum(u: torch.Tensor, v: torch.Tensor, d: torch.Tensor) -> torch.Tensor:
    """Return the official (D, h, w, 4) points (u, v, d, 1) from the three axes."""
    depth, row, column = torch.meshgrid(d, v, u, indexing='ij')
    return torch.stack((column, row, depth, torch.ones_like(depth)), dim=-1)


def official_config(state: dict[str, torch.Tensor]) -> ModelConfig:
    """Read grid, depth bins and image size from the ``GEOMETRY`` buffers. The names and shapes of
    the weights show the number of key frames, and whether the network has depth refinement and
    stereo. All other values are the values of the official experiments.

    Raises:
        ValueError: a buffer or shape does not belong to an official experiment.
    """
    try:
        return _config(state, *(state[name] for name in GEOMETRY))
    except (KeyError, IndexError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f'the grid and the frustum cannot be read ({error})') from error


def _config(
    state: dict[str, torch.Tensor],
    size: torch.Tensor,
    first_center: torch.Tensor,
    count: torch.Tensor,
    frustum: torch.Tensor,
) -> ModelConfig:
    if (size.shape, first_center.shape, count.shape, frustum.dim(), frustum.shape[-1]) != (
        (3,),
        (3,),
        (3,),
        4,
        4,
    ):
        raise ValueError(
            'a buffer (voxel_size, voxel_coord, voxel_num or frustum) has an invalid shape'
        )
    lower = [round(value, 4) for value in (first_center.double() - size.double() / 2).tolist()]
    sizes = [round(value, 4) for value in size.tolist()]
    axes = [
        (low, round(low + cell * cells, 4), cell)
        for low, cell, cells in zip(lower, sizes, count.tolist(), strict=True)
    ]
    depths = [round(value, 4) for value in frustum[:, 0, 0, 2].tolist()]
    step = round(depths[1] - depths[0], 4)
    context_channels = state['backbone.depth_net.context_conv.weight'].shape[0]
    base = ModelConfig()
    stereo = any(name.startswith(_STEREO_BRANCH) for name in state)
    return replace(
        base,
        image=replace(base.image, height=16 * frustum.shape[1], width=16 * frustum.shape[2]),
        depth_bins=DepthBins(depths[0], round(depths[0] + step * len(depths), 4), step),
        grid=BEVGrid(*axes),
        depth_net=replace(
            base.depth_net, refinement=any('depth_aggregation_net' in name for name in state)
        ),
        key_frames=state['head.trunk.conv1.weight'].shape[1] // context_channels,
        # The released weights were trained with the clamp; the file does not contain this setting.
        stereo=StereoConfig(clamp_mean=True) if stereo else None,
        decode=replace(base.decode, size_aware_nms=SizeAwareNMSConfig() if stereo else None),
    )
