"""Converts the convolutional layers of exported graphs to float16.

Inputs and outputs stay float32, and so do the layers that ``layer_groups`` leaves out.
"""

from __future__ import annotations

from pathlib import Path

from bevdepth_core.engine.exported import ExportError
from bevdepth_core.export.layer_groups import group_of

MISSING = "the package onnxruntime is missing; run `pip install 'onnxruntime>=1.23'`"


def to_half(path: Path) -> None:
    """Replace the graph ``path`` by one in float16.

    Raises:
        ExportError: ONNX Runtime, which has the converter, is missing.
    """
    import onnx

    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ExportError(MISSING) from error
    graph = onnx.load(path)
    in_float32 = [node.name for node in graph.graph.node if group_of(node.name) is None]
    half = convert_float_to_float16(
        graph, keep_io_types=True, op_block_list=[], node_block_list=in_float32
    )
    onnx.save(half, path)
