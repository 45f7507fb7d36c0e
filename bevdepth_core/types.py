"""Data types that the parts of the library exchange. Each type validates the content of a new
object.

A transform is always named ``target_from_source``: it transforms homogeneous points from the
source frame to the target frame.

Frames: ``world`` is any fixed frame (nuScenes ``global``, ROS ``map`` or ``odom``); ``ego`` is the
vehicle frame on the ground below the rear axle, x forward, y left, z up (ROS ``base_link``);
``camera`` is the optical frame, z forward, x right, y down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike

from bevdepth_core.geometry import require_rigid


def _checked(
    name: str, value: ArrayLike, shape: tuple[int | None, ...], dtype: type
) -> np.ndarray:
    """Return ``value`` as an array of ``dtype``; raise an error that contains ``name`` if
    the shape or the content of ``value`` is wrong.
    """
    array = np.asarray(value)
    if array.ndim != len(shape) or any(
        want not in (None, got) for want, got in zip(shape, array.shape, strict=True)
    ):
        expected = '(' + ', '.join('n' if size is None else str(size) for size in shape) + ')'
        raise ValueError(f'{name} must have shape {expected}, got {array.shape}')
    if array.dtype != dtype and (
        array.dtype == object or not np.can_cast(array.dtype, dtype, casting='same_kind')
    ):
        raise TypeError(f'{name} must be convertible to {np.dtype(dtype).name}, got {array.dtype}')
    if array.dtype.kind == 'f' and not np.isfinite(array).all():
        raise ValueError(f'{name} must be finite, got NaN or infinity')
    return np.ascontiguousarray(array, dtype=dtype)


@dataclass(frozen=True)
class CameraRig:
    """The cameras of a vehicle: names, intrinsics and mounting poses.

    Attributes:
        names: one unique name per camera, N >= 1. The arrays have the order of the names.
        intrinsics: (N, 3, 3) float64, pixels of the source image, undistorted pinhole.
        ego_from_camera: (N, 4, 4) float64, rigid, meters.
    """

    names: tuple[str, ...]
    intrinsics: np.ndarray
    ego_from_camera: np.ndarray

    def __post_init__(self) -> None:
        names = tuple(self.names)
        if not names:
            raise ValueError('names must contain at least one camera')
        if len(set(names)) != len(names):
            raise ValueError(f'names must be unique, got {names}')
        count = len(names)
        intrinsics = _checked('intrinsics', self.intrinsics, (count, 3, 3), np.float64)
        for name, matrix in zip(names, intrinsics, strict=True):
            if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or not np.array_equal(matrix[2], (0, 0, 1)):
                raise ValueError(
                    f'intrinsics of {name} must have positive focal lengths and last row 0 0 1, '
                    f'got {matrix.tolist()}'
                )
        ego_from_camera = _checked(
            'ego_from_camera', self.ego_from_camera, (count, 4, 4), np.float64
        )
        require_rigid('ego_from_camera', ego_from_camera)
        object.__setattr__(self, 'names', names)
        object.__setattr__(self, 'intrinsics', intrinsics)
        object.__setattr__(self, 'ego_from_camera', ego_from_camera)

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Frame:
    """One image set: an image per camera, each with its own stamp and ego pose.

    Attributes:
        images: N arrays or tensors (H_i, W_i, 3) uint8, RGB; sizes may differ between cameras.
            Tensors may be on a GPU and have any strides.
        rig: the N cameras.
        stamps_ns: (N,) int64, exposure times in nanoseconds.
        world_from_ego: (N, 4, 4) float64, rigid, the ego pose at each camera's own stamp. If it is
            None, no pose is known, and this frame is not fused with a past frame.
    """

    images: tuple[np.ndarray | torch.Tensor, ...]
    rig: CameraRig
    stamps_ns: np.ndarray
    world_from_ego: np.ndarray | None = None

    def __post_init__(self) -> None:
        images = tuple(self.images)
        count = len(self.rig)
        if len(images) != count:
            raise ValueError(
                f'images must contain one image per camera ({count}), got {len(images)}'
            )
        for name, image in zip(self.rig.names, images, strict=True):
            if (
                not isinstance(image, (np.ndarray, torch.Tensor))
                or image.ndim != 3
                or image.shape[2] != 3
                or 0 in image.shape
            ):
                raise ValueError(
                    f'images of {name} must be an array of shape (height, width, 3), got '
                    f'{getattr(image, "shape", type(image))}'
                )
            if image.dtype not in (np.uint8, torch.uint8):
                raise TypeError(f'images of {name} must be uint8, got {image.dtype}')
        object.__setattr__(self, 'images', images)
        object.__setattr__(
            self, 'stamps_ns', _checked('stamps_ns', self.stamps_ns, (count,), np.int64)
        )
        if self.world_from_ego is not None:
            world_from_ego = _checked(
                'world_from_ego', self.world_from_ego, (count, 4, 4), np.float64
            )
            require_rigid('world_from_ego', world_from_ego)
            object.__setattr__(self, 'world_from_ego', world_from_ego)

    @cached_property
    def stamp_ns(self) -> int:
        """Mean exposure time, at which the detections are valid."""
        first = int(self.stamps_ns[0])
        return first + round(float((self.stamps_ns - first).mean()))


@dataclass(frozen=True)
class CameraMatrices:
    """Poses and projections of cameras, and the augmentation of images and ego frame.

    The leading dimensions ``...`` are (S, N) for one sample of S frames of N cameras, (B, S, N)
    for a batch of samples, and (B, N) for one frame of a batch. Frame 0 is the key frame; earlier
    frames follow. ``bev_aug`` has neither S nor N.

    Attributes:
        key_ego_from_camera: (..., 4, 4) float32, meters, poses of the cameras of all frames in the
            ego frame of the key frame.
        intrinsics: (..., 4, 4) float32, pixels of the source image, see ``geometry.to_4x4``.
        image_aug: (..., 4, 4) float32, transform of vectors (u, v, depth, 1) from pixels of the
            source image to pixels of the network input ("ida" in the official code).
        bev_aug: (4, 4) or (B, 4, 4) float32, transform from the ego frame to the augmented ego
            frame ("bda" in the official code); identity except in training.
    """

    key_ego_from_camera: torch.Tensor
    intrinsics: torch.Tensor
    image_aug: torch.Tensor
    bev_aug: torch.Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.key_ego_from_camera.shape)
        samples = shape[: max(self.bev_aug.ndim - 2, 0)]
        expected = {
            'key_ego_from_camera': (*shape[:-2], 4, 4),
            'intrinsics': shape,
            'image_aug': shape,
            'bev_aug': (*samples, 4, 4),
        }
        for name, wanted in expected.items():
            matrix = getattr(self, name)
            if tuple(matrix.shape) != wanted or matrix.dtype != torch.float32:
                raise ValueError(
                    f'{name} must be float32 {wanted}, got {matrix.dtype} {tuple(matrix.shape)}'
                )

    @classmethod
    def stack(cls, samples: Sequence[CameraMatrices]) -> CameraMatrices:
        """Return the matrices of several samples of one size as a batch."""
        return cls(*map(torch.stack, zip(*(sample._tensors() for sample in samples), strict=True)))

    def frame(self, index: int) -> CameraMatrices:
        """Return the matrices of one frame of a batch: (B, N, 4, 4) from (B, S, N, 4, 4)."""
        return CameraMatrices(
            self.key_ego_from_camera[:, index],
            self.intrinsics[:, index],
            self.image_aug[:, index],
            self.bev_aug,
        )

    def to(self, device: torch.device | str) -> CameraMatrices:
        """Return a copy on ``device``; copies from page-locked memory are asynchronous."""
        return CameraMatrices(
            *(tensor.to(device, non_blocking=True) for tensor in self._tensors())
        )

    def pin_memory(self) -> CameraMatrices:
        """Return a copy in page-locked memory."""
        return CameraMatrices(*(tensor.pin_memory() for tensor in self._tensors()))

    def _tensors(self) -> tuple[torch.Tensor, ...]:
        return self.key_ego_from_camera, self.intrinsics, self.image_aug, self.bev_aug


@dataclass(frozen=True)
class ModelInputs:
    """Input of the network: B samples of S frames of N cameras. Frame 0 is the key frame; earlier
    frames follow.

    Attributes:
        images: (B, S, N, 3, H, W) float, normalized, channels B G R.
        matrices: matrices of the same samples, frames and cameras.
    """

    images: torch.Tensor
    matrices: CameraMatrices

    def __post_init__(self) -> None:
        if (
            self.images.ndim != 6
            or self.images.shape[3] != 3
            or not self.images.is_floating_point()
        ):
            raise ValueError(
                'images must have a floating-point type and the shape (B, S, N, 3, H, W), got '
                f'{self.images.dtype} {tuple(self.images.shape)}'
            )
        batch, frames, cameras = self.images.shape[:3]
        expected = {
            'key_ego_from_camera': (batch, frames, cameras, 4, 4),
            'bev_aug': (batch, 4, 4),
        }
        for name, shape in expected.items():
            found = tuple(getattr(self.matrices, name).shape)
            if found != shape:
                raise ValueError(f'matrices.{name} must have shape {shape}, got {found}')


BOX_MAPS = {'reg': 2, 'height': 1, 'dim': 3, 'rot': 2, 'vel': 2}
"""The box maps of ``TaskMaps`` and their numbers of channels, in the order of the ten box values.
The head, the training targets and the decoder use this order."""
BOX_VALUES = sum(BOX_MAPS.values())


def join_box_values(maps: Mapping[str, torch.Tensor], dim: int) -> torch.Tensor:
    """Concatenate the box maps, which ``maps`` contains by name, along ``dim`` to BOX_VALUES
    channels.
    """
    return torch.cat([maps[name] for name in BOX_MAPS], dim=dim)


def split_box_values(values: torch.Tensor, dim: int) -> dict[str, torch.Tensor]:
    """Split BOX_VALUES channels into the box maps, by name; the inverse of ``join_box_values``."""
    parts = values.split(list(BOX_MAPS.values()), dim=dim)
    return dict(zip(BOX_MAPS, parts, strict=True))


@dataclass(frozen=True)
class TaskMaps:
    """Raw head output of one task on the BEV grid, every map (B, channels, Y, X).

    Attributes:
        reg: 2 channels, offset of the box center from the cell's lower corner, cells.
        height: 1 channel, z of the box center, meters.
        dim: 3 channels, log of length, width, height in meters.
        rot: 2 channels, sine and cosine of yaw.
        vel: 2 channels, velocity x and y, m/s, ego axes.
        heatmap: one channel per class of the task, before the sigmoid.
    """

    reg: torch.Tensor
    height: torch.Tensor
    dim: torch.Tensor
    rot: torch.Tensor
    vel: torch.Tensor
    heatmap: torch.Tensor

    def box_values(self) -> torch.Tensor:
        """Return all maps except the heatmap, concatenated to (B, BOX_VALUES, Y, X)."""
        return join_box_values(vars(self), dim=1)


@dataclass(frozen=True)
class ModelOutputs:
    """Output of the network.

    Attributes:
        tasks: one TaskMaps per head task.
        depth: (B, N, D, h, w) depth distribution of each feature pixel of the key frame; the sum
            over D is 1.
    """

    tasks: tuple[TaskMaps, ...]
    depth: torch.Tensor


@dataclass(frozen=True)
class Boxes3D:
    """Boxes in one coordinate frame.

    Attributes:
        center: (n, 3) float32, geometric center, meters.
        size: (n, 3) float32, full length, width, height, meters.
        yaw: (n,) float32, radians about +z, 0 along +x.
        velocity: (n, 2) float32, x and y, m/s, over ground.
    """

    center: np.ndarray
    size: np.ndarray
    yaw: np.ndarray
    velocity: np.ndarray

    CENTER_TYPE: ClassVar[type] = np.float32

    def __post_init__(self) -> None:
        count = len(np.atleast_1d(self.yaw))
        for name, shape, dtype in (
            ('center', (count, 3), self.CENTER_TYPE),
            ('size', (count, 3), np.float32),
            ('yaw', (count,), np.float32),
            ('velocity', (count, 2), np.float32),
        ):
            object.__setattr__(self, name, _checked(name, getattr(self, name), shape, dtype))
        if (self.size <= 0).any():
            raise ValueError('size must be positive')

    def __len__(self) -> int:
        return len(self.yaw)

    def __getitem__(self, index: slice | np.ndarray) -> Boxes3D:
        """Return the selected boxes; ``index`` is a slice, a mask or an index array."""
        return type(self)(
            self.center[index], self.size[index], self.yaw[index], self.velocity[index]
        )

    def corners(self) -> np.ndarray:
        """Return (n, 8, 3) corners: first the four corners of the front face, then the four
        corners of the rear face, each in order around the face.
        """
        signs = (
            np.array(
                [(x, y, z) for x in (1, -1) for y, z in ((1, 1), (-1, 1), (-1, -1), (1, -1))],
                np.float32,
            )
            / 2
        )
        local = signs * self.size[:, None]
        cos, sin = np.cos(self.yaw)[:, None], np.sin(self.yaw)[:, None]
        x, y, z = local[..., 0], local[..., 1], local[..., 2]
        return np.stack((cos * x - sin * y, sin * x + cos * y, z), axis=-1) + self.center[:, None]


@dataclass(frozen=True)
class Detections3D:
    """Scored boxes of one frame, in the ego frame at ``stamp_ns``, best score first.

    Attributes:
        boxes: n boxes.
        scores: (n,) float32 in [0, 1].
        labels: (n,) int64, index into ``class_names``.
        class_names: classes of the detector.
        stamp_ns: mean exposure time of the images.
        past_stamp_ns: mean stamp of the past frame that was fused. If it is None, the current
            frame was used as past frame, or the model has one key frame; the velocities are then
            not valid.
        stage_seconds: duration of each stage of the detector in seconds, in order of the stages;
            on a GPU, CUDA events measure the durations.
        track_ids: (n,) int64, id of the track of each box, 0 for a box without a track; None if
            the boxes are not tracked.
    """

    boxes: Boxes3D
    scores: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    stamp_ns: int
    past_stamp_ns: int | None = None
    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    track_ids: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        object.__setattr__(self, 'scores', _checked('scores', self.scores, (count,), np.float32))
        object.__setattr__(self, 'labels', _checked('labels', self.labels, (count,), np.int64))
        object.__setattr__(self, 'class_names', tuple(self.class_names))
        object.__setattr__(self, 'stage_seconds', MappingProxyType(dict(self.stage_seconds)))
        if self.track_ids is not None:
            ids = _checked('track_ids', self.track_ids, (count,), np.int64)
            object.__setattr__(self, 'track_ids', ids)
        if ((self.labels < 0) | (self.labels >= len(self.class_names))).any():
            raise ValueError(f'labels must lie in [0, {len(self.class_names)})')

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: slice | np.ndarray) -> Detections3D:
        """Return the selected detections; ``index`` is a slice, a mask or an index array."""
        return replace(
            self,
            boxes=self.boxes[index],
            scores=self.scores[index],
            labels=self.labels[index],
            track_ids=None if self.track_ids is None else self.track_ids[index],
        )

    def above(self, score: float) -> Detections3D:
        """Return the detections with a score of at least ``score``."""
        return self[self.scores >= score]
