"""Voxel pooling with ScatterND, which adds all values of the same cell.

On a CPU, this pooling is faster than ``PlainPooling``. TensorRT ignores the addition, see
``export.pooling``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bevdepth_core.export.pooling import FrustumCells
from bevdepth_core.model.view_transform import LiftSplat


class ScatterPooling(nn.Module):
    """Computes the result of ``LiftSplat`` for one sample. The rows of the feature map are
    processed one after the other to limit the memory.

    Args:
        view: view transform of the model, which has the frustum axes, the grid and the refinement.
    """

    def __init__(self, view: LiftSplat) -> None:
        super().__init__()
        self.refinement = view.refinement
        self.cells = FrustumCells(view)

    def forward(self, depth: Tensor, context: Tensor, ego_from_frustum: Tensor) -> Tensor:
        """Return the map (1, C, ny, nx); the arguments are the same as for ``PlainPooling``."""
        volume = None
        if self.refinement is not None:
            volume = self.refinement(depth[None], context[None])[0]  # (N, C, D, h, w)
        # The last place, which is no cell, collects the points outside the grid.
        places = context.new_zeros(self.cells.outside + 1, context.shape[1])
        for row in range(len(self.cells.frustum_v)):
            if volume is None:
                weights, pixels = (value[:, :, row].transpose(1, 2) for value in (depth, context))
                values = weights[..., None] * pixels[:, :, None]  # (N, w, D, C)
            else:
                values = volume[:, :, :, row].permute(0, 3, 2, 1)
            cells = self.cells.flat(ego_from_frustum, row).flatten().long()
            places = _AddRows.apply(places, cells, values.flatten(0, 2))
        return places[:-1].t().unflatten(1, (self.cells.rows, self.cells.columns))[None]


class WholePooling(ScatterPooling):
    """``ScatterPooling`` that processes all rows together, for AOTInductor. AOTInductor compiles
    product and addition to one loop, which needs no memory for the product.
    """

    def forward(self, depth: Tensor, context: Tensor, ego_from_frustum: Tensor) -> Tensor:
        rows = range(len(self.cells.frustum_v))
        cells = torch.stack([self.cells.flat(ego_from_frustum, row) for row in rows], dim=1)
        if self.refinement is None:
            weights, pixels = (value.permute(0, 2, 3, 1) for value in (depth, context))
            values = weights[..., None] * pixels[..., None, :]  # (N, h, w, D, C)
        else:
            values = self.refinement(depth[None], context[None])[0].permute(0, 3, 4, 2, 1)
        places = context.new_zeros(self.cells.outside + 1, context.shape[1])
        places = places.index_add(0, cells.flatten().long(), values.flatten(0, 3))
        bev = places[:-1].t().unflatten(1, (self.cells.rows, self.cells.columns))[None]
        return bev.contiguous()  # the compiled detection part needs contiguous inputs


class _AddRows(torch.autograd.Function):
    """``index_add`` along the first dimension, exported as one ScatterND.

    The exports of PyTorch are not suitable. The export of ``index_put`` does not add the values of
    equal places, and the export of ``scatter_add`` expands the places to the size of the values.
    """

    @staticmethod
    def forward(ctx: Any, data: Tensor, places: Tensor, values: Tensor) -> Tensor:
        return data.index_add(0, places, values)

    @staticmethod
    def symbolic(graph: Any, data: Any, places: Any, values: Any) -> Any:
        last = graph.op('Constant', value_t=torch.tensor([-1]))
        indices = graph.op('Unsqueeze', places, last)
        return graph.op('ScatterND', data, indices, values, reduction_s='add')
