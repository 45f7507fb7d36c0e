"""Converts the convolutional layers of exported graphs to float16.

Inputs, outputs and layers outside of ``layer_groups.GROUPS`` stay float32.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from bevdepth_core.engine.exported import ExportError
from bevdepth_core.engine.onnx import MISSING, open_session
from bevdepth_core.export.layer_groups import group_of


def to_half(path: Path) -> None:
    """Convert the convolutional layers of the ONNX file ``path`` to float16, in place.

    Raises:
        ExportError: ONNX Runtime, which has the converter, is missing.
    """
    import onnx

    try:
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise ExportError(MISSING) from error
    graph = onnx.load(path)
    in_float32 = [node.name for node in graph.graph.node if group_of(node.name) is None]
    half = convert_float_to_float16(
        graph, keep_io_types=True, op_block_list=[], node_block_list=in_float32
    )
    # The converter appends casts after the nodes that read the outputs of the casts. A valid ONNX
    # graph needs the opposite order.
    ordered = ONNXModel(half)
    ordered.topological_sort()
    onnx.save(ordered.model, path)


def overflows(path: Path, inputs: dict[str, np.ndarray]) -> list[str]:
    """Return the names of the float16 values of a graph that exceed the range of float16 for
    ``inputs``.

    On a CPU, ONNX Runtime computes float16 graphs in float32, so inner values do not overflow.
    ONNX Runtime converts only the outputs of a graph to float16. Therefore this function adds all
    float16 values to the outputs.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(path))
    half = onnx.TensorProto.FLOAT16
    values = [v for v in graph.graph.value_info if v.type.tensor_type.elem_type == half]
    graph.graph.output.extend(values)
    with tempfile.TemporaryDirectory() as folder:
        onnx.save(graph, temporary := Path(folder) / path.name)
        names = [value.name for value in values]
        found = open_session(temporary, 1).run(names, inputs)
    return [name for name, value in zip(names, found, strict=True) if not np.isfinite(value).all()]
