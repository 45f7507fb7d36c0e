"""Opens the graphs of ``bevdepth_core.export --format onnx`` in ONNX Runtime on the CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from bevdepth_core.engine.exported import ExportError, Graph

MISSING = "ONNX Runtime is not installed; run `pip install 'onnxruntime>=1.23'`"


def onnx_graph(path: Path, threads: int) -> Graph:
    """Return a function that runs the graph of a file.

    Raises:
        ExportError: see ``open_session``.
    """
    session = open_session(path, threads)
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: torch.Tensor) -> list[torch.Tensor]:
        arrays = (value.numpy() for value in inputs)
        found = session.run(None, dict(zip(names, arrays, strict=True)))
        return [torch.from_numpy(value) for value in found]

    return run


def open_session(path: Path, threads: int) -> Any:
    """Return an ONNX Runtime session on the CPU. The threads of the session do not wait in a busy
    loop.

    Raises:
        ExportError: ONNX Runtime is missing or cannot load the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(MISSING) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise ExportError(f'{path}: ONNX Runtime cannot load this file ({error})') from error
