"""Renders images with lens distortion: renders a larger pinhole image, then resamples it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from bevdepth_core.synthetic.sensors.render import render_camera
from bevdepth_core.synthetic.world.scene import SyntheticScene

MAX_ENLARGEMENT = 3.0
"""Largest ratio of the width or height of the pinhole image to the width or height of the
distorted image. A lens that needs a larger ratio is rejected."""
_ITERATIONS = (cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 50, 0.005)
"""OpenCV inverts the distortion in at most 50 iterations, until the error is below 0.005
pixels."""
_CHECKED_POINTS = 33
"""A lens is checked at this number of rows and columns of pixels, evenly spaced in the image."""
_TOLERANCE_PX = 0.1


@dataclass(frozen=True, eq=False)
class Lens:
    """One camera with its lens.

    Attributes:
        intrinsics: (3, 3), pixels.
        width, height: width and height of the image, pixels.
        distortion: coefficients in the order of OpenCV; empty for a pinhole camera.
    """

    intrinsics: np.ndarray
    width: int
    height: int
    distortion: tuple[float, ...] = ()

    def render(
        self, scene: SyntheticScene, world_from_camera: np.ndarray, time_s: float
    ) -> np.ndarray:
        """Return the (height, width, 3) uint8 RGB image, with distortion."""
        if not any(self.distortion):
            return render_camera(
                scene, self.intrinsics, world_from_camera, time_s,
                width=self.width, height=self.height,
            )  # fmt: skip
        columns, rows = self._pinhole_pixels()
        left, top = np.floor(columns.min()), np.floor(rows.min())
        shifted = self.intrinsics - np.array(((0, 0, left), (0, 0, top), (0, 0, 0)))
        width, height = int(columns.max() - left) + 2, int(rows.max() - top) + 2
        image = render_camera(
            scene, shifted, world_from_camera, time_s, width=width, height=height
        )
        return cv2.remap(image, columns - left, rows - top, cv2.INTER_LINEAR)

    def undistorted(self, image: np.ndarray) -> np.ndarray:
        """Remove the distortion from an image of this camera; the intrinsics stay the same."""
        if not any(self.distortion):
            return image
        return cv2.undistort(image, self.intrinsics, np.array(self.distortion))

    def require_invertible(self) -> None:
        """Raise ValueError if several directions are projected to the same pixel, or if the
        pinhole image would be too large; see ``MAX_ENLARGEMENT``.
        """
        places = (np.linspace(0, side - 1, _CHECKED_POINTS) for side in (self.width, self.height))
        pixels = np.stack(np.meshgrid(*places), axis=-1).reshape(-1, 2)
        seen = _without_distortion(pixels, self.intrinsics, self.distortion)
        rays = (seen - self.intrinsics[:2, 2]) / self.intrinsics[[0, 1], [0, 1]]
        back, _ = cv2.projectPoints(
            np.column_stack((rays, np.ones(len(rays)))),
            np.zeros(3),
            np.zeros(3),
            self.intrinsics,
            np.array(self.distortion),
        )
        error = np.abs(back.reshape(-1, 2) - pixels).max()
        reach = (np.ptp(seen, axis=0) / (self.width, self.height)).max()
        if not (error < _TOLERANCE_PX and reach < MAX_ENLARGEMENT):
            raise ValueError(
                'the lens does not map each pixel to one direction, or its field of view is too '
                'wide: use smaller coefficients'
            )

    def _pinhole_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (height, width) float32 columns and rows: the position of each pixel in the
        image of a pinhole camera with the same intrinsics.
        """
        return _pinhole_pixels(
            tuple(self.intrinsics.ravel().tolist()), self.width, self.height, self.distortion
        )


def _without_distortion(
    pixels: np.ndarray, intrinsics: np.ndarray, distortion: tuple[float, ...]
) -> np.ndarray:
    """Return the (n, 2) positions that the (n, 2) ``pixels`` of a distorted image have in the
    image of a pinhole camera with the same intrinsics.
    """
    points = np.ascontiguousarray(pixels, np.float64)[:, None]
    coefficients = np.array(distortion)
    # OpenCV 5 has no undistortPointsIter; there, undistortPoints has the argument ``criteria``.
    undistort: Any = getattr(cv2, 'undistortPointsIter', cv2.undistortPoints)
    return undistort(points, intrinsics, coefficients, R=None, P=intrinsics, criteria=_ITERATIONS)[
        :, 0
    ]


@lru_cache(maxsize=16)
def _pinhole_pixels(
    intrinsics: tuple[float, ...], width: int, height: int, distortion: tuple[float, ...]
) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    matrix = np.array(intrinsics).reshape(3, 3)
    seen = _without_distortion(pixels, matrix, distortion).reshape(height, width, 2)
    columns, rows = seen.astype(np.float32).transpose(2, 0, 1)
    return np.ascontiguousarray(columns), np.ascontiguousarray(rows)
