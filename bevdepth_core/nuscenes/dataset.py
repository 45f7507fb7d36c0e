"""Loads samples for training and validation: images, matrices, boxes and lidar depth of a key
frame and its past frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bevdepth_core.config import ImageSpec
from bevdepth_core.geometry import invert_rigid, rigid_from_quaternion, to_4x4
from bevdepth_core.nuscenes.augment import Augmentation, BevTransform
from bevdepth_core.nuscenes.depth_targets import depth_maps, read_points
from bevdepth_core.nuscenes.images import (
    covered_mask,
    read_crop,
    read_crop_fast,
    read_image,
    read_warped,
)
from bevdepth_core.nuscenes.index import SampleIndex
from bevdepth_core.nuscenes.records import Pose, SampleRecord
from bevdepth_core.nuscenes.rig_augment import RigChange
from bevdepth_core.preprocess import ImageTransform
from bevdepth_core.types import Boxes3D, CameraMatrices, CameraRig, Frame

ReadCrop = Callable[[Path, ImageTransform], np.ndarray]


@dataclass(frozen=True)
class Sample:
    """One item of the dataset: S frames of N cameras, on the CPU. Frame 0 is the key frame, and
    earlier frames follow.

    Attributes:
        name: the key frame's sample token.
        images: (S, N, H, W, 3) uint8, RGB, network size.
        matrices: matrices of the S frames and N cameras.
        boxes: (n, 9) float32 in the augmented ego frame: center x y z, length, width, height in
            meters, yaw in radians, velocity x y in m/s. Boxes with too few sensor points and boxes
            that no camera sees are excluded, see ``Annotations.seen``.
        labels: (n,) int64, class of each box, index into ``SampleIndex.class_names``.
        depth: (N, H, W) float32 lidar depth of the key frame, meters, 0 = unknown.
        scores: (n,) float32 in (0, 1], certainty of each box; 1 for annotations by people.
        camera_count: number of cameras that the batch of this sample should have; less than N
            only if augmentation varies the set of cameras.
    """

    name: str
    images: Tensor
    matrices: CameraMatrices
    boxes: Tensor
    labels: Tensor
    depth: Tensor
    scores: Tensor
    camera_count: int


class NuScenesDataset(Dataset[Sample]):
    """Key frames with their past frames. ``dataset[place]`` returns a sample without augmentation,
    and ``dataset.sample(place, rng)`` returns a sample with augmentation.

    Args:
        index: the samples.
        dataroot: folder that file names are relative to.
        spec: the network's input image.
        key_frames: number of frames S of a sample: the key frame and S - 1 past frames.
        augmentation: ranges of random changes.
        positions: the samples of an epoch, as positions in ``index``. A position may occur several
            times. None for all samples.

    Attributes:
        index: see the argument.
    """

    def __init__(
        self,
        index: SampleIndex,
        dataroot: str | Path,
        spec: ImageSpec,
        key_frames: int,
        augmentation: Augmentation | None = None,
        positions: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        self.index = index
        self._dataroot, self._spec, self._key_frames = Path(dataroot), spec, key_frames
        self._augmentation = augmentation or Augmentation()
        self._positions = np.arange(len(index)) if positions is None else np.asarray(positions)

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, place: int) -> Sample:
        """Return a sample without augmentation. Its images equal the images of inference on a CPU.

        Raises:
            OSError, ValueError: an image or lidar file cannot be read.
        """
        transforms = [
            ImageTransform.for_inference(*camera.image_size, self._spec)
            for camera in self._frames(place)[0].cameras
        ]
        return self.load(place, transforms, BevTransform(), read_crop)

    def sample(self, place: int, rng: np.random.Generator) -> Sample:
        """Return a sample with random augmentation. Its images are read with ``read_crop_fast``,
        or with ``read_warped`` if the rig is changed.

        The random numbers of ``rng`` are used first for the images of each camera, then for the
        bird's-eye view, and then for the rig. All frames of a camera have the same transform.

        Raises:
            OSError, ValueError: an image or lidar file cannot be read.
        """
        augmentation = self._augmentation
        transforms = [
            augmentation.image.draw(rng, camera.image_size, self._spec)
            for camera in self._frames(place)[0].cameras
        ]
        bev = augmentation.bev.draw(rng)
        rig = augmentation.rig.draw(rng, len(transforms)) if augmentation.rig else None
        return self.load(place, transforms, bev, read_crop_fast, rig)

    def load(
        self,
        place: int,
        transforms: Sequence[ImageTransform],
        bev: BevTransform,
        read: ReadCrop,
        rig: RigChange | None = None,
    ) -> Sample:
        """Return a sample with the given changes.

        Args:
            place: index into ``positions``.
            transforms: image transform of each camera, for all frames of the camera.
            bev: change of the bird's-eye view.
            read: reads an image file and applies a transform.
            rig: change of the rig; None for no change. Images of a changed rig are read with
                ``read_warped`` instead of ``read``.

        Raises:
            OSError, ValueError: an image or lidar file cannot be read.
        """
        frames = self._frames(place)
        boxes, labels = ground_truth(frames[0])
        annotations, count = frames[0].annotations, len(transforms)
        if rig is None:
            images = [self._images(frame, transforms, read) for frame in frames]
            depth = self._depth(frames[0], transforms)
        else:
            transforms, count = rig.ordered(transforms), rig.camera_count
            images = [self._changed_images(frame, transforms, rig) for frame in frames]
            depth = self._changed_depth(frames[0], transforms, rig)
            frames = [rig.applied(frame) for frame in frames]
        key = frames[0]
        image_aug = np.stack([transform.matrix() for transform in transforms]).astype(np.float32)
        return Sample(
            key.token,
            torch.from_numpy(np.stack(images)),
            CameraMatrices(
                torch.stack([key_ego_from_camera(key, frame) for frame in frames]),
                torch.stack([_intrinsics(frame) for frame in frames]),
                torch.from_numpy(image_aug).repeat(len(frames), 1, 1, 1),
                torch.from_numpy(bev.matrix().astype(np.float32)),
            ),
            _box_rows(bev.apply(boxes)),
            torch.from_numpy(labels),
            torch.from_numpy(depth),
            torch.from_numpy(annotations.score[annotations.seen].astype(np.float32)),
            count,
        )

    def _depth(self, key: SampleRecord, transforms: Sequence[ImageTransform]) -> np.ndarray:
        if key.lidar is None:
            return np.zeros((len(transforms), self._spec.height, self._spec.width), np.float32)
        points = read_points(self._dataroot / key.lidar.filename)
        return depth_maps(points, key.lidar, key.cameras, transforms)

    def _changed_depth(
        self, key: SampleRecord, transforms: Sequence[ImageTransform], rig: RigChange
    ) -> np.ndarray:
        """Return the depth maps of the changed cameras. The depth is 0 at those pixels of the
        warped image that lie outside of the source image.
        """
        depth = self._depth(rig.applied(key), transforms)
        sizes = rig.ordered([camera.image_size for camera in key.cameras])
        parts = zip(sizes, transforms, rig.homographies(key), strict=True)
        return depth * np.stack([covered_mask(*part) for part in parts])

    def _changed_images(
        self, frame: SampleRecord, transforms: Sequence[ImageTransform], rig: RigChange
    ) -> np.ndarray:
        cameras = zip(rig.ordered(frame.cameras), transforms, rig.homographies(frame), strict=True)
        return np.stack(
            [
                read_warped(self._dataroot / camera.filename, transform, homography)
                for camera, transform, homography in cameras
            ]
        )

    def _frames(self, place: int) -> list[SampleRecord]:
        position = int(self._positions[place])
        return [
            self.index[self.index.position_in_past(position, steps)]
            for steps in range(self._key_frames)
        ]

    def _images(
        self, frame: SampleRecord, transforms: Sequence[ImageTransform], read: ReadCrop
    ) -> np.ndarray:
        cameras = zip(frame.cameras, transforms, strict=True)
        return np.stack(
            [read(self._dataroot / camera.filename, transform) for camera, transform in cameras]
        )


def load_frame(record: SampleRecord, dataroot: str | Path) -> Frame:
    """Return a key frame as input of the Detector.

    Raises:
        OSError: an image cannot be read.
    """
    cameras = record.cameras
    rig = CameraRig(
        tuple(camera.channel for camera in cameras),
        np.stack([camera.intrinsics for camera in cameras]),
        np.stack([camera.ego_from_sensor.matrix() for camera in cameras]),
    )
    images = tuple(read_image(Path(dataroot) / camera.filename) for camera in cameras)
    stamps_ns = np.array([camera.stamp_ns for camera in cameras])
    return Frame(
        images, rig, stamps_ns, np.stack([camera.world_from_ego.matrix() for camera in cameras])
    )


def key_ego_from_camera(key: SampleRecord, frame: SampleRecord) -> Tensor:
    """Return (N, 4, 4) float32: for each camera, its pose in ``frame``, relative to the ego frame
    at the exposure of the same camera in ``key``.

    The transforms are multiplied in float32 as in the official training pipeline, so that training
    inputs equal the official inputs. In float32, world coordinates of about one kilometer
    are rounded to 0.1 mm. The Detector uses float64.
    """
    cameras = list(zip(key.cameras, frame.cameras, strict=True))
    world_from_key_ego = _matrices([key_camera.world_from_ego for key_camera, _ in cameras])
    world_from_ego = _matrices([camera.world_from_ego for _, camera in cameras])
    return (
        torch.linalg.inv(world_from_key_ego)
        @ world_from_ego
        @ _matrices([camera.ego_from_sensor for _, camera in cameras])
    )


def _matrices(poses: Sequence[Pose]) -> Tensor:
    return torch.from_numpy(np.stack([pose.matrix() for pose in poses]).astype(np.float32))


def _intrinsics(frame: SampleRecord) -> Tensor:
    """Return the (N, 4, 4) float32 intrinsics of all cameras."""
    intrinsics = np.stack([camera.intrinsics for camera in frame.cameras])
    return torch.from_numpy(to_4x4(intrinsics)).float()


def ground_truth(record: SampleRecord) -> tuple[Boxes3D, np.ndarray]:
    """Return the boxes that are ground truth, in the ego frame of ``SampleRecord.world_from_ego``,
    and their (n,) int64 labels.

    As in the official code, the orientation is split into rotations about the x axis, the new y
    axis and the new z axis, in this order, and the yaw is the angle of the last rotation. For a
    vehicle on a slope, the yaw differs from the heading of the box by about 1e-4 rad. An unknown
    velocity is 0, as in the official code.
    """
    annotations = record.annotations
    seen = annotations.seen
    ego_from_world = invert_rigid(record.world_from_ego().matrix())
    turn = ego_from_world[:3, :3]
    rotations = turn @ np.array(
        [rigid_from_quaternion(q, 0)[:3, :3] for q in annotations.quaternion[seen]]
    ).reshape(-1, 3, 3)
    velocity = np.nan_to_num(annotations.velocity[seen])
    boxes = Boxes3D(
        center=annotations.center[seen] @ turn.T + ego_from_world[:3, 3],
        size=annotations.size[seen][:, [1, 0, 2]],
        yaw=np.arctan2(-rotations[:, 0, 1], rotations[:, 0, 0]),
        velocity=(velocity @ turn.T)[:, :2],
    )
    return boxes, annotations.label[seen]


def _box_rows(boxes: Boxes3D) -> Tensor:
    return torch.from_numpy(
        np.concatenate([boxes.center, boxes.size, boxes.yaw[:, None], boxes.velocity], axis=1)
    )
