"""Intrinsics of one camera from sensor_msgs/CameraInfo, and checks of its values."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from sensor_msgs.msg import CameraInfo

from bevdepth_ros.rig.undistortion import Distortion

FOCAL_PX = (1.0, 1e6)
"""Lowest and highest plausible focal length, pixels. A calibration with a focal length outside of
this range is rejected."""
MAX_ASPECT = 2.0
"""Largest ratio of the two focal lengths. In interlaced video the ratio is two."""
MAX_SKEW = 0.02
"""Largest skew, as a share of the focal length."""
SCALE_RANGE = (0.6, 1.4)
"""Allowed range of 2 * principal point / image size, on each axis. If this value is outside of the
range on both axes, the matrix belongs to another image size. On a single axis, the value may be
outside, because a crop usually moves the principal point along only one axis."""
OUTSIDE_SHARE = 0.25
"""The principal point may lie outside of the image by at most this share of the image size,
because some drivers crop images and do not set a region of interest."""
ROTATION_TOLERANCE = 0.01
"""Largest deviation of R R^T from the identity."""
MAX_BASELINE_M = 10.0
"""Largest shift of a camera by Tx and Ty of P, meters."""
LARGE_RECTIFICATION_DEG = 10.0
"""A rectification that rotates the image by more than this is reported, because stereo
rectification rotates images less."""


@dataclass(frozen=True)
class Intrinsics:
    """Projection of one camera.

    Attributes:
        matrix: (3, 3) float64, pixels of the image as it is published.
        width: width of that image, pixels; 0 if CameraInfo does not give it.
        height: height of that image, pixels; 0 if CameraInfo does not give it.
        distortion: lens distortion that the image still has; None if it has none.
        frame_from_camera: (4, 4) pose, in the optical frame, of the camera that ``matrix``
            describes. It is the identity, except for rectified images with R, Tx or Ty.
        warnings: texts about suspicious values of the calibration. In a message, each text follows
            the camera's name.
    """

    matrix: np.ndarray
    width: int
    height: int
    distortion: Distortion | None
    frame_from_camera: np.ndarray = field(default_factory=lambda: np.eye(4))
    warnings: tuple[str, ...] = ()

    def require_size(self, image: np.ndarray) -> None:
        """Raise ValueError if the (H, W, 3) ``image`` does not have the size of the
        calibration.
        """
        self.require_image_size(image.shape[1], image.shape[0])

    def require_image_size(self, width: int, height: int) -> None:
        """Raise ValueError if images of this size, in pixels, do not fit the calibration."""
        if not (self.width and self.height):
            # The calibration contains no size, so the principal point must fit the image.
            _require_plausible(self.matrix, width, height, 'K')
        elif (width, height) != (self.width, self.height):
            raise ValueError(
                f'is {width}x{height}, but its calibration is for {self.width}x{self.height}; '
                'if images are resized or cropped on the way, use the CameraInfo of the resized '
                'images, or fill in the region of interest and binning of CameraInfo'
            )

    def scaled(self, columns: float, rows: float) -> Intrinsics:
        """Return the intrinsics of the image resized by these factors."""
        if columns == rows == 1:
            return self
        return replace(
            self,
            matrix=np.diag((columns, rows, 1.0)) @ self.matrix,
            width=round(self.width * columns),
            height=round(self.height * rows),
        )


@dataclass(frozen=True)
class Region:
    """The part of the full image that a driver publishes, after region of interest and binning.

    Attributes:
        offset: (x, y) of the region in the full image, pixels.
        size: (width, height) of the region in the full image, pixels; 0 if not known.
        binning: (x, y) number of pixels of the full image per published pixel.
    """

    offset: np.ndarray
    size: np.ndarray
    binning: np.ndarray

    @classmethod
    def from_info(cls, message: CameraInfo) -> Region:
        """Return the region of a CameraInfo.

        Raises:
            ValueError: the region exceeds the full image.
        """
        roi = message.roi
        full = np.array((message.width, message.height))
        offset = np.array((roi.x_offset, roi.y_offset))
        size = np.array((roi.width, roi.height))
        if ((full > 0) & (offset + size > full)).any():
            raise ValueError(
                f'has a CameraInfo whose region of interest ({roi.width}x{roi.height} at '
                f'{roi.x_offset}, {roi.y_offset}) exceeds its image of '
                f'{message.width}x{message.height}; width, height, K and P must describe the '
                'full image'
            )
        size = np.where(size > 0, size, np.maximum(full - offset, 0) * (full > 0))
        binning = np.maximum((message.binning_x, message.binning_y), 1)
        return cls(offset, size, binning)

    def applied_to(self, matrix: np.ndarray) -> np.ndarray:
        """Return the (3, 3) camera matrix of the published image; ``matrix`` is the camera matrix
        of the full image.
        """
        shifted = matrix.copy()
        shifted[:2, 2] -= self.offset
        return np.diag((*(1 / self.binning), 1.0)) @ shifted

    @property
    def published_size(self) -> tuple[int, int]:
        """Width and height of the published image, pixels; 0 if not known."""
        width, height = (self.size // self.binning).tolist()
        return width, height


def intrinsics_from_info(message: CameraInfo, rectified: bool) -> Intrinsics:
    """Return the intrinsics of the image that ``message`` describes.

    Args:
        message: calibration. Its K, P and D must be for the full image. The region of interest and
            the binning are applied as sensor_msgs/CameraInfo defines them.
        rectified: True if the images are rectified. In this case, P, R, Tx and Ty are used, or K
            if all values of P are zero. If False, K and D are used.

    Raises:
        ValueError: the calibration is invalid. In a report, the text of the exception follows the
            camera's name.
    """
    k, p = np.asarray(message.k, np.float64), np.asarray(message.p, np.float64)
    k, p = k.reshape(3, 3), p.reshape(3, 4)
    region = Region.from_info(message)
    has_p = rectified and bool(np.isfinite(p).all()) and p[0, 0] != 0
    matrix, name = (p[:, :3], 'P') if has_p else (k, 'K')
    _require_plausible(matrix, message.width, message.height, name)
    pose = _frame_from_camera(p, message.r) if has_p else np.eye(4)
    width, height = region.published_size
    distortion = None if rectified else _distortion(message)
    return Intrinsics(
        region.applied_to(matrix),
        width,
        height,
        distortion,
        pose,
        _warnings(message, rectified, matrix, pose),
    )


def _require_plausible(matrix: np.ndarray, width: int, height: int, name: str) -> None:
    """Raise ValueError if the (3, 3) ``matrix`` is not plausible; ``name`` is K or P.

    Width and height are 0 if the size of the image is unknown.
    """
    shortest, longest = FOCAL_PX
    focal, principal = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not (
        (np.abs(matrix) <= longest).all()
        and (focal >= shortest).all()
        and np.array_equal(matrix[2], (0, 0, 1))
        and principal.any()
    ):
        raise ValueError(
            f'is not calibrated: its camera matrix {name} is {matrix.tolist()}; calibrate the '
            'camera, or set camera_info_files'
        )
    fault = _shape_fault(matrix) or _size_fault(principal, width, height)
    if fault:
        raise ValueError(
            f'is not calibrated correctly: {name} has {fault}; use the CameraInfo of these '
            'images, or calibrate the camera again'
        )


def _shape_fault(matrix: np.ndarray) -> str | None:
    fx, fy, skew = matrix[0, 0], matrix[1, 1], max(abs(matrix[0, 1]), abs(matrix[1, 0]))
    if skew > MAX_SKEW * fx:
        return f'a skew of {skew:.0f} px'
    if not 1 / MAX_ASPECT <= fy / fx <= MAX_ASPECT:
        return f'fx = {fx:.0f} px and fy = {fy:.0f} px, which differ too much'
    return None


def _size_fault(principal: np.ndarray, width: int, height: int) -> str | None:
    if not (width and height):
        return None
    relative = principal / (width, height)
    if ((relative < -OUTSIDE_SHARE) | (relative > 1 + OUTSIDE_SHARE)).any():
        x, y = principal
        return f'its principal point ({x:.0f}, {y:.0f}) outside of the {width}x{height} image'
    lowest, highest = SCALE_RANGE
    if (2 * relative < lowest).all() or (2 * relative > highest).all():
        factor = float(2 * relative.mean())
        return f'values for an image {factor:.1f} times the size of {width}x{height}'
    return None


def _frame_from_camera(p: np.ndarray, r: object) -> np.ndarray:
    """Return the (4, 4) pose of the rectified camera in the optical frame.

    A point x of the optical frame is at R x + (Tx / fx, Ty / fy, 0) in the rectified camera.
    image_geometry and RViz use Tx in the same way.
    """
    rotation = np.asarray(r, np.float64).reshape(3, 3)
    shift = np.array((p[0, 3] / p[0, 0], p[1, 3] / p[1, 1], 0.0))
    if np.linalg.norm(shift) > MAX_BASELINE_M:
        raise ValueError(
            f'is not calibrated correctly: Tx and Ty of P shift it by '
            f'{np.linalg.norm(shift):.1f} m; calibrate the camera again'
        )
    if not np.isfinite(rotation).all():
        raise ValueError(
            'is not calibrated correctly: R of its CameraInfo is not finite; calibrate the camera '
            'again'
        )
    determinant = np.linalg.det(rotation)
    # If R is not filled in, it is singular: zero or, in bags of nuScenes, another singular matrix.
    if abs(determinant) < 1e-6:
        rotation = np.eye(3)
    elif determinant < 0 or np.abs(rotation @ rotation.T - np.eye(3)).max() > ROTATION_TOLERANCE:
        raise ValueError(
            f'is not calibrated correctly: R of its CameraInfo is not a rotation matrix: '
            f'{rotation.tolist()}; calibrate the camera again'
        )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation.T, -rotation.T @ shift
    return pose


def _distortion(message: CameraInfo) -> Distortion | None:
    coefficients = tuple(np.asarray(message.d, np.float64).ravel().tolist())
    return Distortion(message.distortion_model, coefficients) if any(coefficients) else None


def _warnings(
    message: CameraInfo, rectified: bool, projection: np.ndarray, pose: np.ndarray
) -> tuple[str, ...]:
    """Return warnings about the calibration. ``projection`` is K or P, whichever is used; ``pose``
    is ``Intrinsics.frame_from_camera``.
    """
    warnings = []
    k = np.asarray(message.k, np.float64).reshape(3, 3)
    if rectified and any(message.d) and np.allclose(projection, k, rtol=1e-6):
        warnings.append(
            'may have lens distortion: images_rectified is true, but CameraInfo has distortion '
            'coefficients and P equals K; if its images are not rectified, set images_rectified '
            'to false'
        )
    turn = np.degrees(np.arccos(np.clip((np.trace(pose[:3, :3]) - 1) / 2, -1, 1)))
    if turn > LARGE_RECTIFICATION_DEG:
        warnings.append(
            f'is turned by {turn:.0f} degrees by R of its CameraInfo, unlike a rectified camera; '
            'check its calibration'
        )
    return tuple(warnings)
