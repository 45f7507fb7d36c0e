"""BEVDepth: 3D object detection from cameras, as a PyTorch library without ROS.

``__all__`` lists the public API. Each name is imported on first use, because importing PyTorch
takes seconds.
"""

from __future__ import annotations

import importlib
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

# If `python -m bevdepth_core.NAME` is run without the packages, print a message instead of a
# traceback. While this command imports bevdepth_core, Python sets sys.argv[0] to '-m'.
if sys.argv[:1] == ['-m']:
    for _name in ('numpy', 'torch', 'yaml', 'jsonargparse', 'safetensors'):
        if find_spec(_name) is None:
            sys.exit(
                f"bevdepth_core needs {_name}, which this Python does not have: run 'make setup' "
                "once, then '. ./env.sh' ('source env.fish' in fish), in the folder of the project"
            )

if TYPE_CHECKING:
    from bevdepth_core.checkpoint import load_checkpoint
    from bevdepth_core.config import ModelConfig
    from bevdepth_core.inference import Detector
    from bevdepth_core.types import Boxes3D, CameraRig, Detections3D, Frame

__all__ = [
    'Boxes3D',
    'CameraRig',
    'Detections3D',
    'Detector',
    'Frame',
    'ModelConfig',
    'load_checkpoint',
]

_MODULES = {
    'Boxes3D': 'types',
    'CameraRig': 'types',
    'Detections3D': 'types',
    'Detector': 'inference',
    'Frame': 'types',
    'ModelConfig': 'config',
    'load_checkpoint': 'checkpoint',
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(importlib.import_module(f'{__name__}.{_MODULES[name]}'), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
