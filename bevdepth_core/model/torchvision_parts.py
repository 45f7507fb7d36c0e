"""Imports the parts of torchvision that the networks use, without importing the compiler of
PyTorch. This halves the start-up time of the node.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

COMPILER = ('torch._dynamo', 'torch._dynamo.utils')


class _StandIn(ModuleType):
    """Placeholder for a module of the compiler. It imports the real module when an attribute is
    used.
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith('__'):
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in COMPILER:
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


def _is_compile_supported(device_type: str) -> bool:
    return bool(importlib.import_module(COMPILER[1]).is_compile_supported(device_type))


def _import_torchvision() -> None:
    """Import torchvision without the compiler of PyTorch. The import of the compiler would take as
    long as the import of PyTorch itself.

    torchvision imports one function of the compiler, ``is_compile_supported``, which only
    ``roi_align`` calls. ``_is_compile_supported`` replaces this function, and imports the compiler
    only when ``roi_align`` is called. If another version of torchvision uses other functions of
    the compiler, the placeholders import the compiler.
    """
    if any(name in sys.modules for name in ('torchvision', *COMPILER)):
        return
    sys.modules.update({name: _StandIn(name) for name in COMPILER})
    vars(sys.modules[COMPILER[1]])['is_compile_supported'] = _is_compile_supported
    try:
        importlib.import_module('torchvision')
    finally:
        _remove_stand_ins()


_import_torchvision()

from torchvision.models.resnet import BasicBlock, Bottleneck, conv1x1  # noqa: E402
from torchvision.ops import deform_conv2d  # noqa: E402

__all__ = ['BasicBlock', 'Bottleneck', 'conv1x1', 'deform_conv2d']
