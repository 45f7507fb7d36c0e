"""Registers functions as ``torch.library`` ops of the namespace ``bevdepth``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Function = TypeVar('Function', bound=Callable[..., Any])


def _no_gradient(ctx: Any, *gradients: Any) -> None:
    raise NotImplementedError('this op has no gradient')


def register_op(
    name: str,
    backward: Callable[..., Any] = _no_gradient,
    setup_context: Callable[..., None] | None = None,
) -> Callable[[Function], Function]:
    """Register the decorated function as ``torch.ops.bevdepth.<name>``. The function must not
    change its arguments.

    ``torch.library.custom_op`` is not used. Its ops import the compiler of PyTorch at the first
    call, and the first image set would take several seconds longer.

    Args:
        name: name of the op.
        backward: see ``torch.library.register_autograd``; by default, the backward pass raises
            NotImplementedError.
        setup_context: see ``torch.library.register_autograd``.
    """

    def register(function: Function) -> Function:
        full_name = f'bevdepth::{name}'
        schema = torch.library.infer_schema(function, mutates_args=())
        torch.library.define(full_name, schema, tags=(torch.Tag.pt2_compliant_tag,))
        torch.library.impl(full_name, 'default', function)
        torch.library.register_autograd(full_name, backward, setup_context=setup_context)
        return function

    return register
