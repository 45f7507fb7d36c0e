"""Builds the batch of a training step: images, matrices and targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bevdepth_core.config import ImageSpec, ModelConfig
from bevdepth_core.nuscenes.dataset import Sample
from bevdepth_core.preprocess import normalize
from bevdepth_core.training.targets import TaskTargets, center_targets, depth_targets, join
from bevdepth_core.types import CameraMatrices, ModelInputs


@dataclass(frozen=True)
class Batch:
    """B samples with their targets, created by the loader; images stay uint8 until they are on the
    device.

    Attributes:
        names: B sample tokens.
        images: (B, S, N, H, W, 3) uint8, RGB.
        matrices: matrices of the B samples, S frames and N cameras.
        tasks: targets of each head task.
        depth_bins: (B, N, h, w) int64, index of the depth bin of each feature pixel.
    """

    names: tuple[str, ...]
    images: Tensor
    matrices: CameraMatrices
    tasks: tuple[TaskTargets, ...]
    depth_bins: Tensor

    def __len__(self) -> int:
        return len(self.names)

    def inputs(self, spec: ImageSpec) -> ModelInputs:
        """Return the input of the network, with normalized images."""
        return ModelInputs(normalize(self.images, spec), self.matrices)

    def to(self, device: torch.device) -> Batch:
        """Return the batch on ``device``; Lightning calls this."""
        return Batch(
            self.names,
            self.images.to(device, non_blocking=True),
            self.matrices.to(device),
            tuple(task.to(device) for task in self.tasks),
            self.depth_bins.to(device, non_blocking=True),
        )

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; torch's loader calls this."""
        return Batch(
            self.names,
            self.images.pin_memory(),
            self.matrices.pin_memory(),
            tuple(task.pin_memory() for task in self.tasks),
            self.depth_bins.pin_memory(),
        )


def collate(samples: Sequence[Sample], config: ModelConfig) -> Batch:
    """Return samples of one size as a batch.

    All samples are reduced to the ``camera_count`` of the first sample, because the images of a
    batch must have one shape. A box is then excluded if its center lies outside the images of all
    remaining cameras.
    """
    count = samples[0].camera_count
    if count < samples[0].images.shape[1]:
        samples = [with_cameras(sample, count) for sample in samples]
    return Batch(
        names=tuple(sample.name for sample in samples),
        images=torch.stack([sample.images for sample in samples]),
        matrices=CameraMatrices.stack([sample.matrices for sample in samples]),
        tasks=join(
            [
                center_targets(sample.boxes, sample.labels, config, sample.scores)
                for sample in samples
            ]
        ),
        depth_bins=torch.stack(
            [
                depth_targets(sample.depth, config.depth_bins, config.image_encoder.stride)
                for sample in samples
            ]
        ),
    )


def with_cameras(sample: Sample, count: int) -> Sample:
    """Return a sample with the first ``count`` cameras, and with the boxes whose center is in an
    image of these cameras.
    """
    all_cameras = sample.matrices
    matrices = CameraMatrices(
        all_cameras.key_ego_from_camera[:, :count],
        all_cameras.intrinsics[:, :count],
        all_cameras.image_aug[:, :count],
        all_cameras.bev_aug,
    )
    seen = seen_by_cameras(sample.boxes[:, :3], matrices, sample.images.shape[2:4])
    return replace(
        sample,
        images=sample.images[:, :count],
        matrices=matrices,
        boxes=sample.boxes[seen],
        labels=sample.labels[seen],
        scores=sample.scores[seen],
        depth=sample.depth[:count],
    )


def seen_by_cameras(
    centers: Tensor, matrices: CameraMatrices, size: tuple[int, int] | torch.Size
) -> Tensor:
    """Return a (n,) mask that is True for the points inside the network image of at least one
    camera of the key frame.

    Args:
        centers: (n, 3) in the augmented ego frame, meters.
        matrices: matrices of one sample, S frames and N cameras.
        size: height and width of the network image, pixels.
    """
    points = F.pad(centers, (0, 1), value=1.0).to(torch.float64)
    from_ego = matrices.intrinsics[0].double() @ torch.linalg.inv(
        matrices.bev_aug.double() @ matrices.key_ego_from_camera[0].double()
    )
    projected = torch.einsum('cij,nj->cni', from_ego, points)
    depth = projected[..., 2]
    pixels = projected.clone()
    pixels[..., :2] /= depth.clamp(min=1e-6)[..., None]
    columns, rows = torch.einsum('cij,cnj->icn', matrices.image_aug[0, :, :2].double(), pixels)
    inside = (columns >= 0) & (columns < size[1]) & (rows >= 0) & (rows < size[0])
    return ((depth > 0) & inside).any(dim=0)
