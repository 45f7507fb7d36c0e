"""The parts of torchvision that networks use. Importing them here halves the start-up time of the
node.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

COMPILER = ('torch._dynamo', 'torch._dynamo.utils')


def _import_torchvision() -> None:
    """Import torchvision without the compiler of PyTorch, which takes as long as PyTorch itself.

    torchvision imports it for one function that only ``roi_align`` calls. That function imports
    the compiler when it is called.
    """
    if any(name in sys.modules for name in ('torchvision', *COMPILER)):
        return
    package, utils = map(ModuleType, COMPILER)

    def is_compile_supported(device_type: str) -> bool:
        return bool(importlib.import_module(COMPILER[1]).is_compile_supported(device_type))

    vars(utils)['is_compile_supported'] = is_compile_supported
    sys.modules.update(zip(COMPILER, (package, utils), strict=True))
    try:
        importlib.import_module('torchvision')
    finally:
        for name in COMPILER:
            del sys.modules[name]


_import_torchvision()

from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1  # noqa: E402
from torchvision.ops import deform_conv2d  # noqa: E402

__all__ = ['BasicBlock', 'Bottleneck', 'conv1x1', 'deform_conv2d']
