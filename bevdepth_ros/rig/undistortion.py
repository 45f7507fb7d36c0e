"""Removes lens distortion from images, with one pair of lookup maps per calibration."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch.nn.functional import grid_sample

MODELS = {
    '': 'plumb_bob',
    'plumb_bob': 'plumb_bob',
    'radtan': 'plumb_bob',
    'brown_conrady': 'plumb_bob',
    'rational_polynomial': 'rational_polynomial',
    'thin_prism': 'rational_polynomial',
    'equidistant': 'equidistant',
    'fisheye': 'equidistant',
    'kannala_brandt': 'equidistant',
    'kannala_brandt4': 'equidistant',
}
"""Maps the name of a distortion model in CameraInfo, converted to lower case, to one of three
models. ``radtan`` is the name in Kalibr and ``fisheye`` the name in OpenCV; some drivers name a
model after its authors. OpenCV computes plumb_bob and rational_polynomial as one polynomial model
with 4 to 14 coefficients."""
_COUNTS = {'equidistant': (4,)}
_POLYNOMIAL_COUNTS = (4, 5, 8, 12, 14)
"""Numbers of coefficients that OpenCV accepts."""
MIN_SHARE = 0.25
"""If less than this fraction of the undistorted image is valid, the distortion is rejected."""


@dataclass(frozen=True)
class Distortion:
    """Distortion of a lens.

    Attributes:
        model: plumb_bob, rational_polynomial or equidistant; other names of ``MODELS`` are
            replaced by these.
        coefficients: in the order of OpenCV. Trailing zeros are removed or added to reach a
            number of coefficients that OpenCV accepts.

    Raises:
        ValueError: the model is not in ``MODELS``, the number of coefficients is wrong, or a
            coefficient is not finite. In a report, the text of the exception follows the camera's
            name.
    """

    model: str
    coefficients: tuple[float, ...]

    def __post_init__(self) -> None:
        name = self.model.strip().lower().replace(' ', '_')
        if name not in MODELS:
            raise ValueError(
                f'has the distortion model {self.model!r}, which is not one of '
                f'{", ".join(filter(None, MODELS))}; publish rectified images instead'
            )
        model = MODELS[name]
        counts = _COUNTS.get(model, _POLYNOMIAL_COUNTS)
        used = max((i + 1 for i, value in enumerate(self.coefficients) if value), default=0)
        count = next((count for count in counts if count >= used), 0)
        if (
            len(self.coefficients) < counts[0]
            or not count
            or not np.isfinite(self.coefficients).all()
        ):
            raise ValueError(
                f'has invalid {model} coefficients {list(self.coefficients)}; CameraInfo must '
                f'contain {" or ".join(map(str, counts))} finite numbers'
            )
        padded = (*self.coefficients, *(0.0,) * count)[:count]
        object.__setattr__(self, 'model', model)
        object.__setattr__(self, 'coefficients', padded)


def undistortion_maps(
    matrix: np.ndarray, distortion: Distortion, width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for each pixel of the undistorted image, its position in the distorted image.

    Args:
        matrix: (3, 3) camera matrix of both images.
        distortion: distortion of the lens.
        width: width of both images, pixels.
        height: height of both images, pixels.

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
    """Undistorts the images of several cameras; computes maps again if a calibration changes."""

    def __init__(self) -> None:
        self._maps: dict[str, tuple] = {}

    def __call__(
        self,
        camera: str,
        image: np.ndarray | torch.Tensor,
        matrix: np.ndarray,
        distortion: Distortion,
    ) -> np.ndarray | torch.Tensor:
        """Return the (H, W, 3) uint8 ``image`` of ``camera`` without lens distortion.

        The result is the image of a pinhole camera with the same ``matrix``. Pixels whose
        position lies outside ``image`` are black. If ``image`` is a tensor, the result is a tensor
        on the same device.

        Raises:
            ValueError: less than ``MIN_SHARE`` of the result would be valid. In a report, the text
                of the exception follows the camera's name.
        """
        height, width = image.shape[:2]
        device = None if isinstance(image, np.ndarray) else image.device
        calibration = (matrix.tobytes(), distortion, width, height, device)
        cached = self._maps.get(camera)
        if cached is None or cached[0] != calibration:
            maps = undistortion_maps(matrix, distortion, width, height)
            _require_enough(*maps, distortion)
            cached = (
                calibration,
                *maps,
                None if device is None else _sampling_grid(*maps, device),
            )
            self._maps[camera] = cached
        _, columns, rows, grid = cached
        if isinstance(image, np.ndarray):
            return cv2.remap(image, columns, rows, cv2.INTER_LINEAR)
        return _sampled(image, grid)


def _require_enough(columns: np.ndarray, rows: np.ndarray, distortion: Distortion) -> None:
    height, width = columns.shape
    share = ((columns > -1) & (columns < width) & (rows > -1) & (rows < height)).mean()
    if share < MIN_SHARE:
        lens = f'{distortion.model} coefficients {list(distortion.coefficients)}'
        raise ValueError(
            f'has the {lens}, which leave {share:.0%} of its image valid; calibrate the camera '
            'again'
        )


def _sampling_grid(columns: np.ndarray, rows: np.ndarray, device: torch.device) -> torch.Tensor:
    """Return the (1, H, W, 2) grid for ``grid_sample``, in which -1 is the center of the first
    pixel and 1 the center of the last pixel of a row or column.
    """
    height, width = columns.shape
    places = np.stack((2 * columns / (width - 1) - 1, 2 * rows / (height - 1) - 1), axis=-1)
    return torch.from_numpy(places)[None].to(device)


def _sampled(image: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    channels_first = image.permute(2, 0, 1)[None].float()
    sampled = grid_sample(
        channels_first, grid, mode='bilinear', padding_mode='zeros', align_corners=True
    )
    return sampled[0].round().to(torch.uint8).permute(1, 2, 0).contiguous()
