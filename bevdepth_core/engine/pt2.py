"""Opens the packages of ``bevdepth_core.export --format pt2``."""

from __future__ import annotations

from pathlib import Path

import torch

from bevdepth_core.engine.exported import ExportError, Graph


def pt2_graph(path: Path) -> Graph:
    """Return a function that runs the compiled graph of a package. Packages contain machine code:
    open only packages from a trusted source.

    Raises:
        ExportError: the package cannot be loaded, for instance because it was compiled for another
            processor.
    """
    try:
        package = torch._inductor.aoti_load_package(str(path))
    except RuntimeError as error:
        raise ExportError(
            f'{path}: cannot be loaded ({error}); write it on this machine with '
            '`python -m bevdepth_core.export CHECKPOINT --format pt2 --out FOLDER`'
        ) from error

    def run(*inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        # The compiled code ignores strides and expects contiguous tensors.
        found = package(*(value.contiguous() for value in inputs))
        return (found,) if isinstance(found, torch.Tensor) else tuple(found)

    return run
