"""Converts source images to network input: resize, crop, flip, rotate, normalize. Also returns the
same transform as a matrix, for the projection of points.

Resizing has six implementations, which tests compare with each other:

* ``ImageTransform.apply`` (Pillow) is the definition, as in the official code. Inference on a CPU
  and validation use it.
* ``ops.image_resize.resize_reference`` (torch, integers) computes the same pixels and specifies
  the kernel.
* ``csrc/detection`` (CUDA) computes the same pixels on a GPU.
* ``csrc/examples/images.h`` (C++) computes the same pixels in the example of an exported network.
* ``nuscenes.images.read_crop_fast`` (OpenCV) is for training. It decodes images at a reduced size,
  which saves most of the time. Its pixels differ slightly from the definition.
* ``nuscenes.images.read_warped`` (OpenCV) is for training with changed cameras. If a camera is not
  changed, the pixels differ slightly from the pixels of ``read_crop_fast``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from bevdepth_core.config import ImageSpec

MAX_RESIZED_PIXELS = 100_000_000
"""Largest number of pixels of a resized image. This limit rejects extreme aspect ratios. For
example, if the network input has 256 rows, an image that is one pixel high would be enlarged by
the factor 256 in width, too."""


@dataclass(frozen=True)
class ImageTransform:
    """Resize, crop, flip and rotation of one image, in this order; ``apply`` and ``matrix`` use
    the same numbers.

    Attributes:
        scale: resize factor; the resized image is (int(width * scale), int(height * scale)).
        crop_x: left edge of the crop in the resized image, pixels. Pixels of the crop outside of
            the image are black.
        crop_y: top edge of the crop in the resized image, pixels.
        width: width of the crop, pixels.
        height: height of the crop, pixels.
        flip: mirror left to right.
        rotation_deg: counter-clockwise rotation about the center of the crop, degrees. The crop is
            resampled with nearest neighbor, and its new corners are black.

    Source: the official image pipeline, which resizes with Pillow's antialiased bicubic filter.
    """

    scale: float
    crop_x: int
    crop_y: int
    width: int
    height: int
    flip: bool = False
    rotation_deg: float = 0.0

    @classmethod
    def for_inference(
        cls, source_width: int, source_height: int, spec: ImageSpec
    ) -> ImageTransform:
        """Return the transform for inference. It scales an image until the image covers the
        network input. Then it crops the image at the top, or by the same amount at the left and at
        the right.

        Raises:
            ValueError: the aspect ratio is so extreme that the resized image would have more than
                ``MAX_RESIZED_PIXELS`` pixels.
        """
        scale = max(spec.height / source_height, spec.width / source_width)
        width, height = int(source_width * scale), int(source_height * scale)
        if width * height > MAX_RESIZED_PIXELS:
            raise ValueError(
                f'the aspect ratio of an image of {source_width}x{source_height} pixels is too '
                f'extreme for a network input of {spec.width}x{spec.height}: check the image size'
            )
        return cls(
            scale,
            crop_x=int(max(0, width - spec.width) / 2),
            crop_y=height - spec.height,
            width=spec.width,
            height=spec.height,
        )

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Return the (height, width, 3) uint8 crop of an (H, W, 3) uint8 image."""
        height, width = image.shape[:2]
        size = (int(width * self.scale), int(height * self.scale))
        right, bottom = self.crop_x + self.width, self.crop_y + self.height
        crop = Image.fromarray(image).resize(size).crop((self.crop_x, self.crop_y, right, bottom))
        if self.flip:
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.rotation_deg:
            crop = crop.rotate(self.rotation_deg)
        return np.asarray(crop)

    def matrix(self) -> np.ndarray:
        """Return the (4, 4) float64 matrix that converts (u, v, depth, 1) from source pixels to
        network-input pixels.
        """
        linear = np.eye(2) * self.scale
        offset = -np.array([self.crop_x, self.crop_y], np.float64)
        if self.flip:
            mirror = np.diag([-1.0, 1.0])
            linear, offset = mirror @ linear, mirror @ offset + (self.width, 0)
        angle = np.deg2rad(self.rotation_deg)
        rotation = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        center = np.array([self.width, self.height]) / 2
        matrix = np.eye(4)
        matrix[:2, :2] = rotation @ linear
        matrix[:2, 3] = rotation @ (offset - center) + center
        return matrix


def normalize(images: torch.Tensor, spec: ImageSpec) -> torch.Tensor:
    """Return (..., 3, H, W) float32 network input from (..., H, W, 3) uint8 RGB images, on the
    same device.

    The channels of the result have the order B G R, but the statistics have the order R G B. The
    official weights were trained with this combination.
    """
    channels_first = images.movedim(-1, -3).flip(-3).float()
    mean = torch.tensor(spec.mean, device=images.device).view(3, 1, 1)
    std = torch.tensor(spec.std, device=images.device).view(3, 1, 1)
    return (channels_first - mean) / std


def image_matrices(images: Sequence[np.ndarray | torch.Tensor], spec: ImageSpec) -> np.ndarray:
    """Return the (N, 4, 4) float64 transforms from source pixels to network-input pixels of N
    images (H_i, W_i, 3) for inference.
    """
    return np.stack([_inference_matrix(image.shape[1], image.shape[0], spec) for image in images])


@functools.lru_cache(maxsize=64)
def _inference_matrix(source_width: int, source_height: int, spec: ImageSpec) -> np.ndarray:
    return ImageTransform.for_inference(source_width, source_height, spec).matrix()


def preprocess(
    images: Sequence[np.ndarray], spec: ImageSpec, pool: Executor | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Resize and crop the images of one frame for inference.

    Args:
        images: N arrays (H_i, W_i, 3) uint8 RGB of any sizes.
        spec: the network's input.
        pool: threads that resize one image each; Pillow releases the GIL during this.

    Returns:
        (N, height, width, 3) uint8 crops and (N, 4, 4) float64 transforms from source pixels to
        network-input pixels.
    """
    transforms = [
        ImageTransform.for_inference(image.shape[1], image.shape[0], spec) for image in images
    ]
    apply = map if pool is None else pool.map
    crops = np.stack([*apply(ImageTransform.apply, transforms, images)])
    return crops, image_matrices(images, spec)
