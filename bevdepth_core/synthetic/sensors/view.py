"""Projects points of the world to pixels of one camera at one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

NEAR = 0.25
"""Depth of the near plane, meters; parts of objects with a smaller depth are cut off."""

SHIFT = 4
"""Fractional bits of OpenCV's fixed-point pixel coordinates."""
_SUBPIXELS = 1 << SHIFT


@dataclass(frozen=True)
class View:
    """A pinhole camera at one moment; matrices are float64.

    Attributes:
        intrinsics: (3, 3) pixels.
        world_from_camera: (4, 4) pose of the camera in the world.
        width, height: width and height of the image, pixels.
    """

    intrinsics: np.ndarray
    world_from_camera: np.ndarray
    width: int
    height: int

    @property
    def position(self) -> np.ndarray:
        """Return the (3,) world position of the camera."""
        return self.world_from_camera[:3, 3]

    @property
    def camera_from_world_rotation(self) -> np.ndarray:
        return self.world_from_camera[:3, :3].T

    @property
    def focal(self) -> float:
        return float(self.intrinsics[0, 0])

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Transform (..., 3) world points to the camera frame."""
        return (points - self.position) @ self.world_from_camera[:3, :3]

    def project(self, points: np.ndarray) -> np.ndarray:
        """Return the (n, 2) pixels of (n, 3) points in the camera frame. All points must be in
        front of the camera.
        """
        pixels = points @ self.intrinsics.T
        return pixels[:, :2] / pixels[:, 2:]

    def outline_pixels(self, outline: np.ndarray) -> np.ndarray | None:
        """Return a flat outline of (n, 3) points in the camera frame as OpenCV's fixed-point
        pixels, clipped at the near plane; None if the whole outline is nearer than this plane.
        """
        is_too_near = outline[:, 2] < NEAR
        if is_too_near.all():
            return None
        if is_too_near.any():
            outline = _cut_at_near_plane(outline)
        return fixed_point(self.project(outline))

    def world_rays(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the (rows, columns, 3) float32 rays through pixel centers, in world axes, with
        depth 1.
        """
        (fx, _, cx), (_, fy, cy), _ = self.intrinsics
        right, down, forward = self.world_from_camera[:3, :3].T.astype(np.float32)
        across = ((columns - cx) / fx).astype(np.float32)[:, None] * right
        return across + (((rows - cy) / fy).astype(np.float32)[:, None, None] * down + forward)

    def rise(self, columns: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return the (rows, columns) rise of the rays through pixel centers, meters per meter
        of depth.
        """
        return self.world_rays(columns, rows)[..., 2]

    def part(self, first_row: int) -> View:
        """Return the view of the lower part of the image, from ``first_row`` on."""
        shifted = self.intrinsics - np.array(((0, 0, 0), (0, 0, first_row), (0, 0, 0)))
        return View(shifted, self.world_from_camera, self.width, self.height - first_row)

    def resized(self, width: int) -> View:
        """Return the view of an image ``width`` pixels wide with the same field of view."""
        scale = width / self.width
        intrinsics = self.intrinsics * ((scale,), (scale,), (1,))
        intrinsics[:2, 2] += (scale - 1) / 2
        return View(intrinsics, self.world_from_camera, width, max(1, round(self.height * scale)))


def fixed_point(pixels: np.ndarray) -> np.ndarray:
    """Convert pixels to the fixed-point coordinates of OpenCV's polygon functions."""
    return np.rint(pixels * _SUBPIXELS).astype(np.int32)


def _cut_at_near_plane(outline: np.ndarray) -> np.ndarray:
    """Return the part of a closed outline that is beyond the near plane. A new point is inserted
    where an edge crosses the plane.
    """
    following = np.roll(outline, -1, axis=0)
    beyond = outline[:, 2] >= NEAR
    crosses = beyond != (following[:, 2] >= NEAR)
    rise = np.where(crosses, following[:, 2] - outline[:, 2], 1)
    crossing = outline + (following - outline) * ((NEAR - outline[:, 2]) / rise)[:, None]
    both = np.stack((outline, crossing), axis=1).reshape(-1, 3)
    return both[np.stack((beyond, crosses), axis=1).ravel()]


def fill(image: np.ndarray, outlines: list[np.ndarray], color: Sequence[float]) -> None:
    """Fill fixed-point outlines with antialiased edges."""
    cv2.fillPoly(image, outlines, color, lineType=cv2.LINE_AA, shift=SHIFT)


def plain_image(view: View, color: Sequence[float]) -> np.ndarray:
    """Return a (height, width, 3) uint8 image of one color."""
    image = np.empty((view.height, view.width, 3), np.uint8)
    cv2.rectangle(image, (0, 0), (view.width, view.height), color, cv2.FILLED)
    return image
