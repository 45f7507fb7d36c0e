"""Voxel pooling from standard operators, for runtimes that have no kernel for it.

The op ``ops.voxel_pooling`` adds each frustum point to its cell: a scatter with addition. ONNX has
it (ScatterND, ScatterElements), but TensorRT ignores the addition. Here the same sums are matrix
products. The map of one pixel's depth is ``Y @ diag(depth) @ X``: X and Y hold, for each depth
bin, a one in the column or row of the point's cell. The BEV map is the sum of these maps, each
times its pixel's context. Products with 0 and 1 are exact: only the order of sums differs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bevdepth_core.model.view_transform import LiftSplat


class FrustumCells(nn.Module):
    """The cell of every frustum point, as ``ops.voxel_index`` defines it, from camera matrices.

    Args:
        view: frustum axes and grid.

    Attributes:
        columns: cells of the grid along x.
        rows: cells of the grid along y.
        outside: what ``flat`` returns for points outside the grid.
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
        """Return x, y and z of the cells, (N, w, D) float32 whole numbers; -1 and numbers beyond
        the grid are outside.

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
        """Return the (N, w, D) float32 places in the flat map, ``y * columns + x``; the arguments
        are those of ``forward``.
        """
        x, y, z = self(ego_from_frustum, row)
        inside = (x >= 0) & (x < self.columns) & (y >= 0) & (y < self.rows) & (z == 0)
        return torch.where(inside, y * self.columns + x, self.outside)

    def _whole(self, matrix_row: Tensor, axis: int, ud: Tensor, vd: Tensor) -> Tensor:
        """Return the cell numbers along one axis."""
        m0, m1, m2, m3 = matrix_row.unbind(1)  # each (N, 1, 1)
        point = ((m0 * ud + m1 * vd) + m2 * self.frustum_d) + m3
        quotient = (point - self.lower[axis]) / self.cell[axis]
        # Truncated towards zero; -1 for NaN, because comparisons with NaN are False.
        return torch.where(quotient > -1, quotient.clamp(min=0).floor(), -1)


class PlainPooling(nn.Module):
    """``ops.voxel_pooling`` for one sample as matrix products, one row of the feature map after
    the other, which bounds the memory.

    Args:
        view: frustum axes and grid.
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
        """Return the (C, ny * nx) sum over the pixels of one row of the feature map."""
        x, y, z = self.cells(matrices, row)
        weights = torch.where(z == 0, depth[:, :, row].transpose(1, 2), 0.0)  # (N, w, D)
        in_column = (x[..., None] == self.columns).to(weights.dtype)  # (N, w, D, nx)
        in_row = (y[..., None, :] == self.rows).to(weights.dtype)  # (N, w, ny, D)
        pixel_maps = in_row @ (in_column * weights[..., None])  # (N, w, ny, nx)
        pixels = context[:, :, row].transpose(0, 1).flatten(1)  # (C, N * w)
        return pixels @ pixel_maps.flatten(0, 1).flatten(1)
