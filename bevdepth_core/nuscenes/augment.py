"""Random augmentation for training: changes the images of each camera and the bird's-eye view
of a sample.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from bevdepth_core.config import ImageSpec
from bevdepth_core.nuscenes.rig_augment import RigAugmentation
from bevdepth_core.preprocess import ImageTransform
from bevdepth_core.types import Boxes3D


@dataclass(frozen=True)
class BevTransform:
    """Change of a sample's ego frame: rotate, scale, then mirror ("bda" in the official code).

    Attributes:
        rotation_deg: counter-clockwise about z, degrees.
        scale: factor on all three axes.
        flip_x: mirror x to -x.
        flip_y: mirror y to -y.
    """

    rotation_deg: float = 0.0
    scale: float = 1.0
    flip_x: bool = False
    flip_y: bool = False

    def matrix(self) -> np.ndarray:
        """Return the (4, 4) float64 transform from ego to augmented ego, which scales and may
        mirror.
        """
        angle = np.deg2rad(self.rotation_deg)
        cos, sin = np.cos(angle), np.sin(angle)
        matrix = np.eye(4)
        matrix[:3, :3] = self.scale * np.array([(cos, -sin, 0), (sin, cos, 0), (0, 0, 1)])
        matrix[:2] *= np.where([self.flip_x, self.flip_y], -1, 1)[:, None]
        return matrix

    def apply(self, boxes: Boxes3D) -> Boxes3D:
        """Return the boxes in the augmented ego frame. Velocities are also rotated, scaled and
        mirrored.
        """
        linear = self.matrix()[:3, :3]
        yaw = boxes.yaw + np.deg2rad(self.rotation_deg)
        if self.flip_x:
            yaw = np.pi - yaw
        if self.flip_y:
            yaw = -yaw
        return Boxes3D(
            boxes.center @ linear.T,
            boxes.size * self.scale,
            yaw,
            boxes.velocity @ linear[:2, :2].T,
        )


def _require_probabilities(section: str, settings: object, *names: str) -> None:
    for name in names:
        if not 0 <= getattr(settings, name) <= 1:
            raise ValueError(f'{section}.{name} must be 0 to 1, got {getattr(settings, name)}')


@dataclass(frozen=True)
class ImageAugmentation:
    """Ranges from which the ImageTransform of each camera is sampled. The defaults are for source
    images of 1600x900 pixels and a network input of 256x704 (height x width).

    Attributes:
        scale: lowest and highest resize factor.
        relative: if True, ``scale`` is multiplied by the resize factor of inference, so the same
            range is valid for images of any size; if False, ``scale`` is the resize factor.
        bottom_cut: lowest and highest share of the resized height that is cut off at the bottom.
        rotation_deg: lowest and highest rotation, degrees.
        flip_probability: probability that an image is mirrored.
    """

    scale: tuple[float, float] = (0.386, 0.55)
    relative: bool = False
    bottom_cut: tuple[float, float] = (0.0, 0.0)
    rotation_deg: tuple[float, float] = (-5.4, 5.4)
    flip_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in ('scale', 'bottom_cut', 'rotation_deg'):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(
                    f'augmentation.image.{name} must be [lowest, highest], got [{low}, {high}]'
                )
        if self.scale[0] <= 0:
            raise ValueError(
                f'augmentation.image.scale must be positive factors, got {list(self.scale)}'
            )
        _require_probabilities('augmentation.image', self, 'flip_probability')

    def draw(
        self, rng: np.random.Generator, source_size: tuple[int, int], spec: ImageSpec
    ) -> ImageTransform:
        """Return a random transform for images of ``source_size`` (width, height). Five random
        numbers are drawn from ``rng`` in the order of the official code.
        """
        reference = (
            ImageTransform.for_inference(*source_size, spec).scale if self.relative else 1.0
        )
        scale = reference * rng.uniform(*self.scale)
        width, height = (int(side * scale) for side in source_size)
        crop_y = int((1 - rng.uniform(*self.bottom_cut)) * height) - spec.height
        crop_x = int(rng.uniform(0, max(0, width - spec.width)))
        flip = bool(rng.random() < self.flip_probability)
        return ImageTransform(
            scale, crop_x, crop_y, spec.width, spec.height, flip, rng.uniform(*self.rotation_deg)
        )


@dataclass(frozen=True)
class BevAugmentation:
    """Ranges from which the BevTransform of a sample is sampled.

    Attributes:
        rotation_deg: lowest and highest rotation, degrees.
        scale: lowest and highest factor.
        flip_x_probability: probability that x is mirrored.
        flip_y_probability: probability that y is mirrored.
    """

    rotation_deg: tuple[float, float] = (-22.5, 22.5)
    scale: tuple[float, float] = (0.95, 1.05)
    flip_x_probability: float = 0.5
    flip_y_probability: float = 0.5

    def __post_init__(self) -> None:
        for name in ('rotation_deg', 'scale'):
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(
                    f'augmentation.bev.{name} must be [lowest, highest], got [{low}, {high}]'
                )
        if self.scale[0] <= 0:
            raise ValueError(
                f'augmentation.bev.scale must be positive factors, got {list(self.scale)}'
            )
        _require_probabilities(
            'augmentation.bev', self, 'flip_x_probability', 'flip_y_probability'
        )

    def draw(self, rng: np.random.Generator) -> BevTransform:
        """Return a random transform. Four random numbers are drawn from ``rng`` in the order of
        the official code.
        """
        rotation_deg, scale = rng.uniform(*self.rotation_deg), rng.uniform(*self.scale)
        flip_x, flip_y = (
            rng.random() < self.flip_x_probability,
            rng.random() < self.flip_y_probability,
        )
        return BevTransform(rotation_deg, scale, bool(flip_x), bool(flip_y))


@dataclass(frozen=True)
class Augmentation:
    """Ranges of all random changes of a training sample.

    Attributes:
        image: changes of the images of each camera.
        bev: changes of the bird's-eye view.
        rig: changes of the rig; null: the rig is not changed, as in the official code.
    """

    image: ImageAugmentation = field(default_factory=ImageAugmentation)
    bev: BevAugmentation = field(default_factory=BevAugmentation)
    rig: RigAugmentation | None = None
