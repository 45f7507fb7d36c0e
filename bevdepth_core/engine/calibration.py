"""Computes camera vectors and back-projection matrices of a rig. They are computed once for all
frames with the same camera matrices and image sizes.

A camera vector contains the calibration of a camera as input of the depth net. A back-projection
matrix converts a frustum point (pixel and depth) to a point in the camera frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bevdepth_core.config import ImageSpec
from bevdepth_core.geometry import to_4x4
from bevdepth_core.model.depth_net import camera_vector
from bevdepth_core.model.view_transform import camera_from_frustum
from bevdepth_core.preprocess import image_matrices
from bevdepth_core.types import CameraMatrices, CameraRig


@dataclass(frozen=True)
class Calibration:
    """Camera vectors and back-projection matrices for N cameras with images of certain sizes.

    Attributes:
        rig: the cameras.
        sizes: height and width of the images of each camera.
        cameras: (1, N, 27) float32, the camera vectors.
        camera_from_frustum: (1, N, 4, 4) float64, the back-projection matrices, see
            ``view_transform``.
    """

    rig: CameraRig
    sizes: tuple[tuple[int, int], ...]
    cameras: torch.Tensor
    camera_from_frustum: torch.Tensor

    @classmethod
    def of(
        cls, rig: CameraRig, images: Sequence[np.ndarray | torch.Tensor], spec: ImageSpec
    ) -> Calibration:
        """Return the calibration for (H, W, 3) images that are resized to ``spec``."""
        poses, intrinsics, image_aug = (
            torch.from_numpy(matrix)[None]
            for matrix in (
                rig.ego_from_camera,
                to_4x4(rig.intrinsics),
                image_matrices(images, spec),
            )
        )
        matrices = CameraMatrices(
            poses.float(), intrinsics.float(), image_aug.float(), torch.eye(4)[None]
        )
        exact = camera_from_frustum(intrinsics, image_aug)
        return cls(rig, _sizes(images), camera_vector(matrices), exact)

    def holds_for(self, rig: CameraRig, images: Sequence[np.ndarray | torch.Tensor]) -> bool:
        """Return True if this calibration was computed for the matrices of ``rig`` and for the
        sizes of ``images``. The names of the cameras may differ.
        """
        return self.sizes == _sizes(images) and (
            self.rig is rig
            or (
                np.array_equal(self.rig.intrinsics, rig.intrinsics)
                and np.array_equal(self.rig.ego_from_camera, rig.ego_from_camera)
            )
        )

    def ego_from_frustum(
        self, key_ego_from_camera: np.ndarray, dtype: torch.dtype = torch.float32
    ) -> torch.Tensor:
        """Return the (1, N, 3, 4) matrices that ``view_transform.ego_from_frustum`` describes.

        Args:
            key_ego_from_camera: (N, 4, 4) float64, poses of the cameras in the ego frame of the
                key frame.
            dtype: data type of the result.
        """
        return (torch.from_numpy(key_ego_from_camera)[None] @ self.camera_from_frustum)[
            ..., :3, :
        ].to(dtype)


def _sizes(images: Sequence[np.ndarray | torch.Tensor]) -> tuple[tuple[int, int], ...]:
    return tuple((image.shape[0], image.shape[1]) for image in images)
