"""Voxel pooling from standard operators, for runtimes that have no kernel for voxel pooling.

The op ``ops.voxel_pooling`` adds each frustum point to its cell. ONNX has operators for this
scatter with addition (ScatterND, ScatterElements), but TensorRT ignores the addition. This module
computes the same sums with matrix products. For each pixel, ``Y @ diag(depth) @ X`` is the (ny,
nx) map of its depth probabilities. Row i of X belongs to depth bin i of the pixel, and contains a
1 at the x index of the cell of this bin. Column i of Y contains a 1 at the y index of the same
cell. The BEV map is the sum of the maps of all pixels, each multiplied by the context of its
pixel. Products with 0 and 1 are exact, so only the order of the sums differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bevdepth_core.model.view_transform import LiftSplat


class FrustumCells(nn.Module):
    """Computes the cell of every frustum point from camera matrices. ``ops.voxel_index`` computes
    the same cells.

    Args:
        view: view transform, which has the frustum axes and the grid.

    Attributes:
        columns: number of cells of the grid along x.
        rows: number of cells of the grid along y.
        outside: number that ``flat`` returns for points outside the grid.
    """

    frustum_u: Tensor
    frustum_v: Tensor
    frustum_d: Tensor
    lower: Tensor
    cell: Tensor

    def __init__(self, view: LiftSplat) -> None:
        super().__init__()
        for name in ('frustum_u', 'frustum_v', 'frustum_d'):
            self.register_buffer(name, getattr(view, name).clone())
        self.columns, self.rows, _ = view.grid.shape
        self.outside = self.columns * self.rows
        self.register_buffer('lower', torch.tensor(view.grid.lower))
        self.register_buffer('cell', torch.tensor(view.grid.cell))

    def forward(self, ego_from_frustum: Tensor, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return x, y and z of the cells, (N, w, D) float32 whole numbers. Points outside the grid
        have -1 or a number beyond the last cell.

        Args:
            ego_from_frustum: (N, 3, 4) float32.
            row: row of the feature map.
        """
        d = self.frustum_d
        ud, vd = self.frustum_u[:, None] * d, self.frustum_v[row] * d
        x, y, z = (
            self._whole(ego_from_frustum[:, axis, :, None, None], axis, ud, vd)
            for axis in range(3)
        )
        return x, y, z

    def flat(self, ego_from_frustum: Tensor, row: int) -> Tensor:
        """Return the (N, w, D) float32 indices into the flattened map, ``y * columns + x``; points
        outside the grid have the index ``outside``. The arguments are the same as for ``forward``.
        """
        x, y, z = self(ego_from_frustum, row)
        inside = (x >= 0) & (x < self.columns) & (y >= 0) & (y < self.rows) & (z == 0)
        return torch.where(inside, y * self.columns + x, self.outside)

    def _whole(self, matrix_row: Tensor, axis: int, ud: Tensor, vd: Tensor) -> Tensor:
        """Return the cell numbers along one axis."""
        m0, m1, m2, m3 = matrix_row.unbind(1)  # each (N, 1, 1)
        point = ((m0 * ud + m1 * vd) + m2 * self.frustum_d) + m3
        quotient = (point - self.lower[axis]) / self.cell[axis]
        # A quotient above -1 is truncated towards zero. All other quotients give -1, also NaN,
        # because comparisons with NaN are False.
        return torch.where(quotient > -1, quotient.clamp(min=0).floor(), -1)


class PlainPooling(nn.Module):
    """``ops.voxel_pooling`` for one sample, computed with matrix products. The rows of the feature
    map are processed one after the other to limit the memory.

    Args:
        view: view transform, which has the frustum axes and the grid.
    """

    columns: Tensor
    rows: Tensor

    def __init__(self, view: LiftSplat) -> None:
        super().__init__()
        nx, ny, _ = view.grid.shape
        self.cells = FrustumCells(view)
        self.register_buffer('columns', torch.arange(nx, dtype=torch.float32))
        self.register_buffer('rows', torch.arange(ny, dtype=torch.float32)[:, None])

    def forward(self, depth: Tensor, context: Tensor, ego_from_frustum: Tensor) -> Tensor:
        """Return the map (1, C, ny, nx).

        Args:
            depth: (N, D, h, w) float32.
            context: (N, C, h, w) float32.
            ego_from_frustum: (N, 3, 4) float32.
        """
        bev = self._of_row(depth, context, ego_from_frustum, 0)
        for row in range(1, len(self.cells.frustum_v)):
            bev = bev + self._of_row(depth, context, ego_from_frustum, row)
        return bev.unflatten(1, (len(self.rows), len(self.columns)))[None]

    def _of_row(self, depth: Tensor, context: Tensor, matrices: Tensor, row: int) -> Tensor:
        """Return the (C, ny * nx) map that the pixels of one row of the feature map give."""
        x, y, z = self.cells(matrices, row)
        weights = torch.where(z == 0, depth[:, :, row].transpose(1, 2), 0.0)  # (N, w, D)
        in_column = (x[..., None] == self.columns).to(weights.dtype)  # (N, w, D, nx)
        in_row = (y[..., None, :] == self.rows).to(weights.dtype)  # (N, w, ny, D)
        pixel_maps = in_row @ (in_column * weights[..., None])  # (N, w, ny, nx)
        pixels = context[:, :, row].transpose(0, 1).flatten(1)  # (C, N * w)
        return pixels @ pixel_maps.flatten(0, 1).flatten(1)
