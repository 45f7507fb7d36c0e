"""Writes an exported network: graphs and their manifest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from bevdepth_core.engine.exported import MANIFEST, ExportError
from bevdepth_core.export.half_precision import to_half
from bevdepth_core.export.manifest import write_manifest
from bevdepth_core.export.onnx_graphs import OPSET, write_graph
from bevdepth_core.export.parts import network_parts
from bevdepth_core.export.pt2_graphs import package_numbers, require_compiler, write_package
from bevdepth_core.export.quantization import IN_FLOAT32, Samples, to_int8
from bevdepth_core.model import BEVDepth

DEFORMABLE = ('sampled', 'native')
"""Operators of the deformable convolution: ``sampled`` uses GridSample and Conv, and ``native``
uses DeformConv."""
PRECISIONS = ('fp32', 'fp16', 'int8')
REDUCED = ('image_branch', 'detection')
"""Graphs that fp16 and int8 change. The splat graph computes geometry and stays in float32."""


def export_onnx(
    model: BEVDepth,
    folder: Path,
    *,
    pooling: str = 'plain',
    deformable: str = 'sampled',
    precision: str = 'fp32',
    samples: Samples | None = None,
    in_float32: Collection[str] = IN_FLOAT32,
    name: str = 'unnamed',
) -> None:
    """Write the graphs of ``model`` and their manifest.

    Args:
        model: the model, in evaluation mode and on the CPU.
        folder: folder for the files. It is created if it is missing; existing files are replaced.
        pooling: one of ONNX_POOLINGS.
        deformable: one of DEFORMABLE.
        precision: one of PRECISIONS.
        samples: inputs of the graphs, with which int8 quantization is calibrated. If the precision
            is not int8, the samples are ignored.
        in_float32: groups of layers that int8 leaves in float32.
        name: name of the weights, for the manifest.

    Raises:
        ExportError: the network cannot be exported with these options, or a Python package is
            missing.
    """
    _require_onnx()
    _prepare(model, folder)
    parts = network_parts(model, pooling, deformable == 'sampled')
    for part in parts:
        path = folder / f'{part.name}.onnx'
        write_graph(part, path)
        if part.name in REDUCED and precision == 'fp16':
            to_half(path)
        if part.name in REDUCED and precision == 'int8':
            to_int8(path, [] if samples is None else samples.by_graph[part.name], in_float32)
    options = {'precision': precision, 'pooling': pooling, 'deformable': deformable}
    write_manifest(model, parts, folder, 'onnx', name, {**options, 'opset': OPSET})


def export_pt2(model: BEVDepth, folder: Path, *, name: str = 'unnamed') -> None:
    """Compile ``model`` to packages for the CPU of this machine and write their manifest.

    Pooling and deformable convolution are standard operators, so a program that loads the packages
    needs only the library libtorch.

    Args:
        model: the model, in evaluation mode and on the CPU.
        folder: folder for the files. It is created if it is missing; existing files are replaced.
        name: name of the weights, for the manifest.

    Raises:
        ExportError: the network has stereo depth or size-aware NMS, or there is no C++ compiler.
    """
    require_compiler()
    numbers = package_numbers(model.config)
    _prepare(model, folder)
    parts = network_parts(model, 'whole', True)
    for part in parts:
        write_package(part, folder / f'{part.name}.pt2', numbers)
    options = {'precision': 'fp32', 'pooling': 'whole', 'torch': torch.__version__}
    write_manifest(model, parts, folder, 'pt2', name, options)


def _prepare(model: BEVDepth, folder: Path) -> None:
    if model.config.stereo is not None:
        raise ExportError('stereo models cannot be exported; use a model without stereo')
    if model.config.decode.size_aware_nms is not None:
        raise ExportError(
            'an export describes only circle NMS: set decode.size_aware_nms of the model config '
            'to null'
        )
    folder.mkdir(parents=True, exist_ok=True)
    # If the export fails, the old manifest must not describe a mix of old and new files.
    (folder / MANIFEST).unlink(missing_ok=True)


def _require_onnx() -> None:
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise ExportError('the package onnx is missing; run `pip install onnx`') from error
