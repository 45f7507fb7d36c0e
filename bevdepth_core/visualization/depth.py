"""The network's depth, which BEVDepth is about, as colours over an image and as points in
space.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from bevdepth_core.config import DepthBins, ImageSpec
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.preprocess import ImageTransform
from bevdepth_core.types import Frame
from bevdepth_core.visualization.cameras import camera_from_mean_ego
from bevdepth_core.visualization.colors import depth_colors

_LIKELY_BINS = 2
"""Bins on each side of the likeliest one that count for the likely depth."""


@dataclass(frozen=True)
class DepthMaps:
    """The depth of a frame's cameras.

    Attributes:
        metres: (N, h, w) float32, one value per cell of the feature map.
        bins: the network's depth bins, for the range of colours.
        spec: the network's input, which the map lies on.
    """

    metres: np.ndarray
    bins: DepthBins
    spec: ImageSpec


def expected_depth(distribution: torch.Tensor, bins: DepthBins) -> np.ndarray:
    """Return the (N, h, w) float32 mean depth, metres, of a (N, D, h, w) distribution.

    A bin counts with its middle: the labels say that the depth lies between a bin's lower and
        upper edge.
    """
    return (
        torch.einsum('ndhw,d->nhw', distribution.float(), _middles(bins, distribution))
        .cpu()
        .numpy()
    )


def likely_depth(distribution: torch.Tensor, bins: DepthBins) -> np.ndarray:
    """Return the (N, h, w) float32 mean depth, metres, around the likeliest bin.

    Where near and far meet in one cell, the mean of all lies in the void between them; this one
    stays with the likelier.
    """
    indices = torch.arange(bins.count, device=distribution.device).view(1, -1, 1, 1)
    near = (indices - distribution.argmax(dim=1, keepdim=True)).abs() <= _LIKELY_BINS
    shares = distribution.float() * near
    return expected_depth(shares / shares.sum(dim=1, keepdim=True), bins)


def _middles(bins: DepthBins, like: torch.Tensor) -> torch.Tensor:
    return bins.start + bins.step * (torch.arange(bins.count, device=like.device) + 0.5)


def draw_depth_on_image(
    image: np.ndarray,
    depth: DepthMaps,
    index: int,
    source_size: tuple[int, int],
    alpha: float = 0.62,
) -> np.ndarray:
    """Return ``image`` under the colours of one camera's depth; what the network does not look at
    stays clear.

    Args:
        image: (height, width, 3) uint8 RGB, the source image or a smaller version of it.
        depth: of all cameras.
        index: of the camera.
        source_size: width and height of the image that the detector read, pixels.
        alpha: how much the colours cover.
    """
    height, width = image.shape[:2]
    input_from_source = ImageTransform.for_inference(*source_size, depth.spec).matrix()
    input_from_image = input_from_source @ np.diag(
        (source_size[0] / width, source_size[1] / height, 1, 1)
    )
    cell_from_image = (_cell_from_input(depth) @ input_from_image)[:2, (0, 1, 3)]
    cell_from_image[:, 2] = (_cell_from_input(depth) @ input_from_image)[:2, 3]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    metres = cv2.warpAffine(
        depth.metres[index],
        cell_from_image,
        (width, height),
        flags=flags,
        borderMode=cv2.BORDER_REPLICATE,
    )
    rows, columns = np.mgrid[:height, :width]
    u, v = (
        input_from_image[axis, 0] * columns
        + input_from_image[axis, 1] * rows
        + input_from_image[axis, 3]
        for axis in (0, 1)
    )
    seen = (u >= 0) & (u <= depth.spec.width - 1) & (v >= 0) & (v <= depth.spec.height - 1)
    colors = depth_colors(metres, depth.bins.start, depth.bins.stop)
    covered = cv2.addWeighted(colors, alpha, image, 1 - alpha, 0)
    return np.where(seen[..., None], covered, image)


def _cell_from_input(depth: DepthMaps) -> np.ndarray:
    """Return the (4, 4) scaling from network-input pixels to cells of the map: its outer cells lie
    on the outer pixels.
    """
    rows, columns = depth.metres.shape[1:]
    return np.diag(
        ((columns - 1) / (depth.spec.width - 1), (rows - 1) / (depth.spec.height - 1), 1, 1)
    )


def depth_points(frame: Frame, depth: DepthMaps) -> tuple[np.ndarray, np.ndarray]:
    """Return one point per cell of the depth maps that lies in a picture.

    Args:
        frame: the images that were looked at.
        depth: of the same cameras.

    Returns:
        (m, 3) float32 points in the frame of the detections, metres, and their (m, 3) uint8 RGB
        colours in the images.
    """
    parts = [_camera_points(frame, depth, index) for index in range(len(frame.rig))]
    points, colors = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return points, colors


def _camera_points(frame: Frame, depth: DepthMaps, index: int) -> tuple[np.ndarray, np.ndarray]:
    image = frame.images[index]
    image = image if isinstance(image, np.ndarray) else image.cpu().numpy()
    height, width = image.shape[:2]
    rows, columns = depth.metres.shape[1:]
    cells = np.stack(
        (
            *np.meshgrid(np.arange(columns), np.arange(rows)),
            np.zeros((rows, columns)),
            np.ones((rows, columns)),
        ),
        axis=-1,
    )
    source_from_cell = np.linalg.inv(
        _cell_from_input(depth) @ ImageTransform.for_inference(width, height, depth.spec).matrix()
    )
    pixels = (cells @ source_from_cell.T)[..., :2].reshape(-1, 2)
    inside = ((pixels >= -0.5) & (pixels < (width - 0.5, height - 0.5))).all(axis=1)
    pixels, metres = pixels[inside], depth.metres[index].reshape(-1)[inside]
    rays = (
        np.column_stack((pixels, np.ones(len(pixels))))
        @ np.linalg.inv(frame.rig.intrinsics[index]).T
    )
    ego_from_camera = invert_rigid(camera_from_mean_ego(frame, index))
    points = (rays * metres[:, None]) @ ego_from_camera[:3, :3].T + ego_from_camera[:3, 3]
    nearest = np.rint(pixels).astype(int)
    return points.astype(np.float32), image[nearest[:, 1], nearest[:, 0]]
