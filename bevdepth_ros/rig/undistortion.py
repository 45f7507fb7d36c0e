"""Lens distortion out of images: one pair of lookup maps per calibration, made once."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn.functional import grid_sample

_COEFFICIENTS = {'plumb_bob': (4, 5), 'rational_polynomial': (8, 12, 14), 'equidistant': (4,)}
"""Distortion models of sensor_msgs/CameraInfo, and how many coefficients each may have."""
LEAST_SHARE = 0.25
"""Coefficients that fill less than this share of the undistorted image are of no lens."""


@dataclass(frozen=True)
class Distortion:
    """How a lens bends the image.

    Attributes:
        model: one of plumb_bob, rational_polynomial, equidistant; an empty one with up to 5
            coefficients means plumb_bob.
        coefficients: in the order of OpenCV.

    Raises:
        ValueError: another model or number of coefficients, or a coefficient that is not finite;
            worded to follow the camera's name.
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.model and len(self.coefficients) <= 5:
            object.__setattr__(self, 'model', 'plumb_bob')
        if self.model not in _COEFFICIENTS:
            raise ValueError(
                f'has the distortion model {self.model!r}, not one of {", ".join(_COEFFICIENTS)}; '
                'rectify the images before'
            )
        if (
            len(self.coefficients) not in _COEFFICIENTS[self.model]
            or not np.isfinite(self.coefficients).all()
        ):
            raise ValueError(
                f'has the unusable {self.model} coefficients {list(self.coefficients)}'
            )


def undistortion_maps(
    matrix: np.ndarray, distortion: Distortion, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of the undistorted image is found in the distorted one.

    Args:
        matrix: (3, 3), of the camera; the undistorted image has the same.
        distortion: of its lens.
        width: pixels.
        height: pixels.

    Returns:
        (height, width) float32 columns and rows, in pixels.
    """
    coefficients, size = np.array(distortion.coefficients), (width, height)
    if distortion.model == 'equidistant':
        return cv2.fisheye.initUndistortRectifyMap(
            matrix, coefficients, np.eye(3), matrix, size, cv2.CV_32FC1
        )
    return cv2.initUndistortRectifyMap(matrix, coefficients, None, matrix, size, cv2.CV_32FC1)


class Undistorter:
    """Undistorts the images of several cameras; maps are made anew when a calibration changes."""

    def __init__(self):
        self._maps: dict[str, tuple] = {}

    def __call__(
        self,
        camera: str,
        image: np.ndarray | torch.Tensor,
        matrix: np.ndarray,
        distortion: Distortion,
    ) -> np.ndarray | torch.Tensor:
        """Return the (H, W, 3) uint8 ``image`` of ``camera`` as a pinhole camera with the same
        ``matrix`` sees it, black outside.

        A tensor stays on its device, where the maps are kept, too.

        Raises:
            ValueError: next to nothing of the image is left; worded to follow the camera's name.
        """
        height, width = image.shape[:2]
        device = image.device if isinstance(image, torch.Tensor) else None
        calibration = (matrix.tobytes(), distortion, width, height, device)
        known, maps = self._maps.get(camera, (None, None))
        if known != calibration:
            maps = undistortion_maps(matrix, distortion, width, height)
            _require_enough(*maps, distortion)
            maps = maps if device is None else _sampling_grid(*maps).to(device)
            self._maps[camera] = (calibration, maps)
        return (
            cv2.remap(image, *maps, cv2.INTER_LINEAR) if device is None else _sampled(image, maps)
        )


def _require_enough(columns: np.ndarray, rows: np.ndarray, distortion: Distortion) -> None:
    height, width = columns.shape
    share = ((columns > -1) & (columns < width) & (rows > -1) & (rows < height)).mean()
    if share < LEAST_SHARE:
        lens = f'{distortion.model} coefficients {list(distortion.coefficients)}'
        raise ValueError(
            f'has the {lens}, which leave {share:.0%} of its image: calibrate it again'
        )


def _sampling_grid(columns: np.ndarray, rows: np.ndarray) -> torch.Tensor:
    """Return the (1, H, W, 2) grid of ``grid_sample``, -1 at the first and 1 at the last pixel
    centre.
    """
    height, width = columns.shape
    return torch.from_numpy(
        np.stack((2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1), axis=-1)
    )[None]


def _sampled(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    channels_first = image.permute(2, 0, 1)[None].float()
    sampled = grid_sample(
        channels_first, grid, mode='bilinear', padding_mode='zeros', align_corners=True
    )
    return sampled[0].round().to(torch.uint8).permute(1, 2, 0).contiguous()
