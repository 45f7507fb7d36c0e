"""Compiles the parts of a network to packages that C++ loads without Python.

``torch.export`` records the operators; AOTInductor generates C++ code and compiles it. All
operators are standard operators of PyTorch, so a program that loads a package need not register
ops of this project.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from bevdepth_core.config import ModelConfig
from bevdepth_core.engine.exported import ExportError
from bevdepth_core.export.parts import CAMERAS, Part


@torch.no_grad()
def write_package(part: Part, path: Path, numbers: dict[str, str]) -> None:
    """Write ``part`` as a package with a dynamic number of cameras.

    Args:
        part: a part with inputs on the CPU.
        path: file to write.
        numbers: texts that are stored in the package, for programs without a JSON parser; see
            ``package_numbers``.
    """
    options = {
        'aot_inductor.metadata': numbers,
        # Precompiling the headers needs the program openssl, which fails if the libraries of a
        # pip-only ROS 2 are on the library path.
        'aot_inductor.precompile_headers': False,
    }
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', FutureWarning)  # PyTorch warns about its own code
        torch._inductor.aoti_compile_and_package(
            _recorded(part), package_path=str(path), inductor_configs=options
        )


def _recorded(part: Part) -> ExportedProgram:
    # The inputs are copied, because torch.export merges two inputs that are the same tensor.
    inputs = tuple(value.clone() for value in part.inputs.values())
    shapes: Any = None
    if part.per_camera:
        cameras = Dim(CAMERAS, min=1)
        shapes = [{0: cameras} if name in part.per_camera else None for name in part.inputs]
    return torch.export.export(part.module, inputs, dynamic_shapes=shapes)


def require_compiler() -> None:
    """Raise ExportError if there is no C++ compiler."""
    compiler = os.environ.get('CXX', 'g++')
    if shutil.which(compiler) is None:
        raise ExportError(
            f'pt2 needs a C++ compiler, but {compiler} is not installed: run `apt install g++`, '
            'or set the environment variable CXX to the name of an installed compiler'
        )


def package_numbers(config: ModelConfig) -> dict[str, str]:
    """Return the settings that a program needs in addition to the graphs to compute boxes from
    images. Spaces separate the numbers of an entry, and commas separate the classes.
    """
    image, decode, scaling = config.image, config.decode, config.decode.scale_nms
    numbers = {
        'input_size': (image.height, image.width),
        'mean': image.mean,
        'std': image.std,
        'key_frames': (config.key_frames,),
        'score_threshold': (decode.score_threshold,),
        'boxes_per_task': (decode.boxes_per_task,),
        'nms_distance_squared': [task.nms_distance_squared for task in config.head.tasks],
        'scale_nms': () if scaling is None else (scaling.max_overlap, *scaling.factors),
    }
    texts = {name: ' '.join(map(str, values)) for name, values in numbers.items()}
    return {**texts, 'classes': ','.join(config.class_names)}
