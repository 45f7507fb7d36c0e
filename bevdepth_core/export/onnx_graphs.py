"""Writes the parts of a network as ONNX graphs.

The older exporter of PyTorch, which traces the network, writes the graphs. The newer exporter,
which is based on torch.export, gives the same operators, but takes minutes for a network of this
size.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.jit._trace import TracerWarning
from torch.onnx.symbolic_helper import _maybe_get_const
from torch.onnx.utils import register_custom_op_symbolic, unregister_custom_op_symbolic

from bevdepth_core.export.parts import CAMERAS, Part

OPSET = 19
"""Version of the ONNX operators. 19 is the first version with DeformConv."""
DOMAIN = 'bevdepth'
"""ONNX domain of the nodes that this project defines, see docs/EXPORT.md."""


@torch.no_grad()
def write_graph(part: Part, path: Path) -> None:
    """Write ``part`` as an ONNX file with a dynamic number of cameras."""
    with _own_symbols(), warnings.catch_warnings():
        # These warnings say that the older exporter is used, that fixed sizes become constants,
        # and that an index must not be negative. Indices of cells are never negative.
        for category in (DeprecationWarning, TracerWarning, UserWarning):
            warnings.simplefilter('ignore', category)
        torch.onnx.export(
            part.module,
            tuple(part.inputs.values()),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            dynamic_axes={name: {0: CAMERAS} for name in part.per_camera},
        )


@contextmanager
def _own_symbols() -> Iterator[None]:
    """Within this context, export deformable convolutions and the pooling ops of this project as
    the ONNX nodes that the functions below create.
    """
    symbols = {
        'torchvision::deform_conv2d': _deformable_convolution,
        'bevdepth::voxel_pooling': _voxel_pooling,
        'bevdepth::voxel_index': _voxel_index,
        'bevdepth::voxel_pooling_volume': _voxel_pooling_volume,
    }
    for name, symbol in symbols.items():
        register_custom_op_symbolic(name, symbol, OPSET)
    try:
        yield
    finally:
        for name in symbols:
            unregister_custom_op_symbolic(name, OPSET)


def _deformable_convolution(
    graph: Any, features: Any, weight: Any, offset: Any, mask: Any, bias: Any, *options: Any
) -> Any:
    groups, offset_groups = (_maybe_get_const(option, 'i') for option in options[6:8])
    return graph.op(
        'DeformConv',
        features,
        weight,
        offset,
        group_i=groups,
        offset_group_i=offset_groups,
        kernel_shape_i=[3, 3],
        pads_i=[1, 1, 1, 1],
    )


def _voxel_pooling(graph: Any, *arguments: Any) -> Any:
    columns, rows, _ = _maybe_get_const(arguments[8], 'is')
    numbers = _grid_numbers(*arguments[6:8])
    return graph.op(
        f'{DOMAIN}::VoxelPooling', *arguments[:6], **numbers, columns_i=columns, rows_i=rows
    )


def _voxel_index(graph: Any, *arguments: Any) -> Any:
    return graph.op(f'{DOMAIN}::VoxelIndex', *arguments[:4], **_grid_numbers(*arguments[4:6]))


def _voxel_pooling_volume(graph: Any, volume: Any, index: Any, shape: Any) -> Any:
    columns, rows, _ = _maybe_get_const(shape, 'is')
    return graph.op(f'{DOMAIN}::VoxelPoolingVolume', volume, index, columns_i=columns, rows_i=rows)


def _grid_numbers(lower: Any, cell: Any) -> dict[str, float]:
    """Return the numbers of the grid as one attribute per number, because onnxruntime-extensions
    cannot read an attribute with several numbers.
    """
    return {
        f'{name}_{axis}_f': number
        for name, numbers in (('lower', lower), ('cell', cell))
        for axis, number in zip('xyz', _maybe_get_const(numbers, 'fs'), strict=True)
    }
