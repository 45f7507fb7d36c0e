"""Defines the steps that the ``Detector`` calls for each frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from bevdepth_core.decode import ScoredBoxes
from bevdepth_core.model.view_transform import ImageFeatures


class InferenceNetwork(Protocol):
    """A network for streaming inference. Call for each frame ``set_images``, ``encode``, ``match``
    and ``detect``, in this order.

    Attributes:
        stage_seconds: time of each stage of the last frame, seconds. The stages are, in this
            order, ``preprocess``, ``image_branch``, ``stereo`` (only in stereo models),
            ``view_transform``, ``bev_head`` and ``decode``.
    """

    stage_seconds: dict[str, float]

    def prepare(self, cameras: int) -> None:
        """Initialize for up to ``cameras`` cameras; without this call, the first frame takes
        longer.
        """

    def set_images(self, images: Sequence[np.ndarray | torch.Tensor]) -> None:
        """Set the N images (H, W, 3) uint8 RGB of a new frame; sizes may differ."""

    def encode(self, camera_vectors: torch.Tensor) -> ImageFeatures:
        """Return the features of the images.

        Later calls of ``encode`` and ``match`` may overwrite these features. ``snapshot`` returns
        features that are not overwritten.

        Args:
            camera_vectors: (1, N, 27) float32, see ``model.depth_net.camera_vector``.
        """

    def match(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]]
    ) -> Sequence[tuple[ImageFeatures, torch.Tensor]]:
        """Return ``frames``. A stereo model compares the frames, and returns them with the depth
        that it estimates from this comparison.

        Args:
            frames: see ``detect``; a single frame is compared with itself.
        """

    def detect(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]], threshold: float
    ) -> ScoredBoxes:
        """Return the boxes that score more than ``threshold``.

        Args:
            frames: features of the current frame, then of past frames, each with its
                (1, N, 3, 4) float64 ``ego_from_frustum``. The current frame replaces missing
                past frames.
            threshold: a score.
        """

    def snapshot(self, features: ImageFeatures) -> ImageFeatures:
        """Return features that stay valid during later frames: ``features`` or a copy of them."""
