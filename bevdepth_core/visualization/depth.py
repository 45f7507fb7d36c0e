"""Renders the depth that the network predicts, as colors over an image and as 3D points."""

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
"""``likely_depth`` uses the most probable bin and this number of bins on each side of it."""


@dataclass(frozen=True)
class DepthMaps:
    """Depth maps of a frame's cameras.

    Attributes:
        meters: (N, h, w) float32, depth of each feature pixel, meters.
        bins: depth bins of the network; the color scale covers their range.
        spec: image size of the network input; the maps cover the whole input.
    """

    meters: np.ndarray
    bins: DepthBins
    spec: ImageSpec


def expected_depth(distribution: torch.Tensor, bins: DepthBins) -> np.ndarray:
    """Return the (N, h, w) float32 mean depth, meters, of a (N, D, h, w) distribution.

    The depth of a bin is the depth of its center, because a bin is the training label for all
    depths between its edges.
    """
    return (
        torch.einsum('ndhw,d->nhw', distribution.float(), _bin_centers(bins, distribution))
        .cpu()
        .numpy()
    )


def likely_depth(distribution: torch.Tensor, bins: DepthBins) -> np.ndarray:
    """Return the (N, h, w) float32 mean depth, meters, around the most probable bin.

    If a feature pixel contains a near and a far object, the mean of all bins would lie between the
    objects. The mean around the most probable bin lies at the more probable object.
    """
    indices = torch.arange(bins.count, device=distribution.device).view(1, -1, 1, 1)
    near = (indices - distribution.argmax(dim=1, keepdim=True)).abs() <= _LIKELY_BINS
    shares = distribution.float() * near
    return expected_depth(shares / shares.sum(dim=1, keepdim=True), bins)


def _bin_centers(bins: DepthBins, like: torch.Tensor) -> torch.Tensor:
    return bins.start + bins.step * (torch.arange(bins.count, device=like.device) + 0.5)


def draw_depth_on_image(
    image: np.ndarray,
    depth: DepthMaps,
    index: int,
    source_size: tuple[int, int],
    alpha: float = 0.62,
) -> np.ndarray:
    """Return ``image`` with the depth of one camera as colors. Pixels outside of the network's
    input do not change.

    Args:
        image: (height, width, 3) uint8 RGB; the image that the detector read, or a smaller version
            of that image.
        depth: depth of all cameras.
        index: index of the camera.
        source_size: width and height of the image that the detector read, pixels.
        alpha: opacity of the colors, 0 to 1.
    """
    height, width = image.shape[:2]
    input_from_source = ImageTransform.for_inference(*source_size, depth.spec).matrix()
    input_from_image = input_from_source @ np.diag(
        (source_size[0] / width, source_size[1] / height, 1, 1)
    )
    cell_from_image = (_cell_from_input(depth) @ input_from_image)[:2, (0, 1, 3)]
    cell_from_image[:, 2] = (_cell_from_input(depth) @ input_from_image)[:2, 3]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    meters = cv2.warpAffine(
        depth.meters[index],
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
    colors = depth_colors(meters, depth.bins.start, depth.bins.stop)
    covered = cv2.addWeighted(colors, alpha, image, 1 - alpha, 0)
    return np.where(seen[..., None], covered, image)


def _cell_from_input(depth: DepthMaps) -> np.ndarray:
    """Return the (4, 4) matrix that scales pixels of the network input to cells of the depth map.

    The centers of the outer cells lie on the outer pixels of the input.
    """
    rows, columns = depth.meters.shape[1:]
    return np.diag(
        ((columns - 1) / (depth.spec.width - 1), (rows - 1) / (depth.spec.height - 1), 1, 1)
    )


def depth_points(frame: Frame, depth: DepthMaps) -> tuple[np.ndarray, np.ndarray]:
    """Return a 3D point for each cell of the depth maps that lies in the image of its camera.

    Args:
        frame: frame that the detector processed.
        depth: depth of the cameras of ``frame``.

    Returns:
        (m, 3) float32 points in the frame of the detections, meters, and their (m, 3) uint8 RGB
        colors in the images.
    """
    parts = [_camera_points(frame, depth, index) for index in range(len(frame.rig))]
    points, colors = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    return points, colors


def _camera_points(frame: Frame, depth: DepthMaps, index: int) -> tuple[np.ndarray, np.ndarray]:
    image = frame.images[index]
    image = image if isinstance(image, np.ndarray) else image.cpu().numpy()
    height, width = image.shape[:2]
    rows, columns = depth.meters.shape[1:]
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
    pixels, meters = pixels[inside], depth.meters[index].reshape(-1)[inside]
    rays = (
        np.column_stack((pixels, np.ones(len(pixels))))
        @ np.linalg.inv(frame.rig.intrinsics[index]).T
    )
    ego_from_camera = invert_rigid(camera_from_mean_ego(frame, index))
    points = (rays * meters[:, None]) @ ego_from_camera[:3, :3].T + ego_from_camera[:3, 3]
    nearest = np.rint(pixels).astype(int)
    return points.astype(np.float32), image[nearest[:, 1], nearest[:, 0]]
