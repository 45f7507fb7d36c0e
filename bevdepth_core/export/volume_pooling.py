"""Depth refinement and voxel pooling of the refined volume, from standard operators.

``PlainPooling`` computes voxel pooling with matrix products, which need a volume that is a product
of depth and context. A refined volume is no such product, so matrix products would need one
multiplication for each pair of a volume value and a cell. Here, the points of one row of the
feature map are sorted by their cells. log2(points) shifted additions compute running sums over the
points of each cell. The running sum at the last point of a cell is the sum of the cell, and a
scatter without addition writes this sum to the map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bevdepth_core.export.pooling import FrustumCells
from bevdepth_core.model.view_transform import LiftSplat

MOST_SORTED = 3840
"""Largest number of points that are sorted together. The points are sorted with the operator TopK,
which does not accept more points in TensorRT."""


class VolumePooling(nn.Module):
    """Computes the result of ``LiftSplat`` for one sample of a model with depth refinement.

    Args:
        view: view transform of the model, which has the frustum axes, the grid and the refinement.

    Attributes:
        group: number of columns of the feature map whose points are sorted together.
        points: number of points that are sorted together.
    """

    def __init__(self, view: LiftSplat) -> None:
        super().__init__()
        assert view.refinement is not None
        self.refinement = view.refinement
        self.cells = FrustumCells(view)
        width, bins = len(view.frustum_u), len(view.frustum_d)
        sizes = [size for size in range(1, width + 1) if width % size == 0]
        self.group = max(size for size in sizes if size == 1 or size * bins <= MOST_SORTED)
        self.points = self.group * bins

    def forward(self, depth: Tensor, context: Tensor, ego_from_frustum: Tensor) -> Tensor:
        """Return the map (1, C, ny, nx). ``PlainPooling.forward`` describes the arguments."""
        volume = self.refinement(depth[None], context[None])[0]  # (N, C, D, h, w)
        bev = self._of_row(volume, ego_from_frustum, 0)
        for row in range(1, len(self.cells.frustum_v)):
            bev = bev + self._of_row(volume, ego_from_frustum, row)
        return bev.unflatten(1, (self.cells.rows, self.cells.columns))[None]

    def _of_row(self, volume: Tensor, matrices: Tensor, row: int) -> Tensor:
        """Return the (C, ny * nx) map that the points of one row of the feature map give. The
        points are sorted in G groups of P points. All points of a group belong to one camera.
        """
        channels = volume.shape[1]
        cells = self.cells.flat(matrices, row).unflatten(1, (-1, self.group))
        cells = cells.flatten(0, 1).flatten(1)
        # ONNX export would convert a sort to a TopK that computes its number of values at run
        # time, but TensorRT accepts only a constant number.
        cells, order = cells.topk(self.points, dim=1, largest=False)  # (G, P)
        values = volume[:, :, :, row].transpose(2, 3).unflatten(2, (-1, self.group))
        values = values.transpose(1, 2).reshape(-1, channels, self.points)  # (G, C, P)
        values = values.gather(2, order[:, None].expand(-1, channels, -1))
        return self._scattered(cells, _running_sums(cells, values)).sum(dim=0)

    def _scattered(self, cells: Tensor, sums: Tensor) -> Tensor:
        """Return the (G, C, ny * nx) maps of the groups. The value of a cell is the running sum at
        the last point of the cell, and 0 for a cell without points.
        """
        outside = self.cells.outside
        is_last = pad(cells[:, 1:] - cells[:, :-1], (0, 1), value=1.0) > 0
        place = torch.where(is_last, cells, outside).long()[:, None].expand(-1, sums.shape[1], -1)
        maps = sums.new_zeros(sums.shape[0], sums.shape[1], outside + 1)
        return maps.scatter(2, place, sums)[:, :, :outside]


def _running_sums(cells: Tensor, values: Tensor) -> Tensor:
    """Return (G, C, P): for each point, the sum of its value and of the values of all earlier
    points in the same cell.

    Args:
        cells: (G, P), sorted.
        values: (G, C, P).
    """
    shift = 1
    while shift < cells.shape[1]:
        same = (cells[:, shift:] == cells[:, :-shift])[:, None]
        values = values + pad(torch.where(same, values[:, :, :-shift], 0.0), (shift, 0))
        shift *= 2
    return values
