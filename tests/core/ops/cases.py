"""Inputs of voxel pooling and their expected results, for the CPU and the GPU tests."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

OFFICIAL_GRID = ((-51.2, -51.2, -5.0), (0.8, 0.8, 8.0), (128, 128, 1))
DATA = Path(__file__).resolve().parents[2] / 'data'


@dataclass
class Case:
    """Arguments of voxel pooling.

    Attributes:
        depth: (batch, cameras, bins, height, width).
        context: (batch, cameras, channels, height, width).
        geometry: ego_from_frustum, frustum_u, frustum_v, frustum_d, lower and cell.
        shape: cells along x, y and z.
    """

    depth: Tensor
    context: Tensor
    geometry: tuple
    shape: tuple[int, int, int]

    @property
    def arguments(self) -> tuple:
        """Arguments of ``voxel_pooling``."""
        return self.depth, self.context, *self.geometry, self.shape

    def to(self, device: str, dtype: torch.dtype) -> Case:
        geometry = tuple(
            item.to(device) if isinstance(item, Tensor) else item for item in self.geometry
        )
        return Case(
            self.depth.to(device, dtype), self.context.to(device, dtype), geometry, self.shape
        )

    def sample(self, index: int) -> Case:
        row = slice(index, index + 1)
        return Case(
            self.depth[row],
            self.context[row],
            (self.geometry[0][row], *self.geometry[1:]),
            self.shape,
        )


def random_case(
    seed: int,
    batch=2,
    cameras=2,
    bins=5,
    channels=7,
    height=3,
    width=4,
    shape=(6, 5, 1),
    dtype=torch.float32,
) -> Case:
    """Return random features and a random geometry with points inside and outside the grid."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size):
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    nx, ny, _ = shape
    geometry = (
        normal(batch, cameras, 3, 4).float(),
        normal(width).float(),
        normal(height).float(),
        torch.linspace(0.5, 4, bins),
        (-0.8 * nx, -0.8 * ny, -5.0),
        (1.6, 1.6, 8.0),
    )
    depth = normal(batch, cameras, bins, height, width)
    context = normal(batch, cameras, channels, height, width)
    return Case(depth.to(dtype), context.to(dtype), geometry, shape)


def slow_voxel_index(ego_from_frustum, frustum_u, frustum_v, frustum_d, lower, cell) -> np.ndarray:
    """Return the voxel index of every frustum point, computed point by point in numpy float32 with
    the documented order of operations.
    """
    matrices, us, vs, ds = (
        tensor.cpu().numpy() for tensor in (ego_from_frustum, frustum_u, frustum_v, frustum_d)
    )
    lower, cell = np.float32(lower), np.float32(cell)
    size = (*matrices.shape[:2], len(ds), len(vs), len(us))
    index = np.empty((*size, 3), np.int32)
    for b, n, d, h, w in itertools.product(*map(range, size)):
        ud, vd = us[w] * ds[d], vs[h] * ds[d]
        for axis, (m0, m1, m2, m3) in enumerate(matrices[b, n]):
            point = ((m0 * ud + m1 * vd) + m2 * ds[d]) + m3
            index[b, n, d, h, w, axis] = np.trunc((point - lower[axis]) / cell[axis])
    return index


def slow_voxel_pooling(
    depth: Tensor, context: Tensor, index: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Return the float64 BEV map, summed point by point."""
    nx, ny, nz = shape
    depth, context = depth.double().cpu().numpy(), context.double().cpu().numpy()
    bev = np.zeros((depth.shape[0], context.shape[2], ny, nx))
    for b, n, d, h, w in itertools.product(*map(range, depth.shape)):
        x, y, z = index[b, n, d, h, w]
        if 0 <= x < nx and 0 <= y < ny and 0 <= z < nz:
            bev[b, :, y, x] += depth[b, n, d, h, w] * context[b, n, :, h, w]
    return bev


def surround_view_geometry() -> tuple:
    """Return the field ``Case.geometry`` with the (2, 6, 3, 4) matrices of six nuScenes cameras in
    two frames, and with the official frustum and grid.
    """
    with np.load(DATA / 'synth_2key.npz') as inputs:
        matrices = {
            name: inputs[f'in/{name}'].astype(np.float64)
            for name in ('sensor2ego_mats', 'intrin_mats', 'ida_mats', 'bda_mat')
        }
    # For a point with depth d at pixel (u, v) of the network image and at pixel (u', v') of the
    # source image, this matrix maps (u d, v d, d, 1) to (u' d, v' d, d, 1).
    source_from_input = np.zeros((2, 6, 4, 4))
    inverse = np.linalg.inv(matrices['ida_mats'][0])
    source_from_input[..., :2, :2] = inverse[..., :2, :2]
    source_from_input[..., :2, 2] = inverse[..., :2, 3]
    source_from_input[..., 2, 2] = source_from_input[..., 3, 3] = 1
    ego_from_source = matrices['sensor2ego_mats'][0] @ np.linalg.inv(matrices['intrin_mats'][0])
    ego_from_frustum = matrices['bda_mat'][0] @ ego_from_source @ source_from_input
    axes = torch.linspace(0, 703, 44), torch.linspace(0, 255, 16), torch.arange(2, 58, 0.5)
    return torch.from_numpy(ego_from_frustum[..., :3, :]).float(), *axes, *OFFICIAL_GRID[:2]


def surround_view_case(dtype=torch.float32) -> Case:
    """Return a case of batch size 2 with full-size random features and
    ``surround_view_geometry``.
    """
    generator = torch.Generator().manual_seed(0)
    depth = torch.randn(2, 6, 112, 16, 44, generator=generator).softmax(2)
    context = torch.randn(2, 6, 80, 16, 44, generator=generator)
    return Case(depth.to(dtype), context.to(dtype), surround_view_geometry(), OFFICIAL_GRID[2])


def relative_error(value: Tensor, expected) -> float:
    """Return the L2 norm of ``value - expected`` divided by the L2 norm of ``expected``. Both are
    calculated in float64.
    """
    value, expected = (
        value.detach().double().cpu(),
        torch.as_tensor(expected).detach().double().cpu(),
    )
    return (torch.linalg.vector_norm(value - expected) / torch.linalg.vector_norm(expected)).item()
