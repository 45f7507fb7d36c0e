"""The network step by step: the path of the CPU, and of a GPU without the compiled kernels."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from bevdepth_core.decode import ScoredBoxes, decode
from bevdepth_core.engine.flags import convolution_flags
from bevdepth_core.engine.fused import fused
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures
from bevdepth_core.preprocess import normalise, preprocess


class EagerNetwork:
    """One frame's steps after each other, in PyTorch's own order. On the CPU batch norms are
    folded into the convolutions.

    Args:
        model: in evaluation mode.
        device: where it is to run; a GPU takes the model itself there.
        dtype: of the image branch; other steps are float32.

    Attributes:
        seconds: wall time per step of the present frame, in order.
    """

    def __init__(self, model: BEVDepth, device: torch.device, dtype: torch.dtype) -> None:
        self.model, self.seconds = (
            fused(model, device, dtype, merge_head=False)
            if device.type == 'cpu'
            else model.to(device),
            {},
        )
        self._device, self._dtype = device, dtype
        self._inputs: torch.Tensor | None = None

    def prepare(self, cameras: int) -> None:
        """Nothing takes longer the first time."""

    def show(self, images: Sequence[np.ndarray | torch.Tensor]) -> None:
        """Take N images (H, W, 3) uint8 RGB of a new frame."""
        self.seconds = {}
        images = [
            image.cpu().numpy() if isinstance(image, torch.Tensor) else image for image in images
        ]
        with self._running('preprocess'):
            crops, _ = preprocess(images, self.model.config.image)
            self._inputs = normalise(
                torch.from_numpy(crops).to(self._device), self.model.config.image
            )[None]

    def encode(self, cameras: torch.Tensor) -> ImageFeatures:
        """Return what the images show; ``cameras`` (1, N, 27) float32 is their camera vector."""
        half = self._dtype != torch.float32
        with (
            self._running('image_branch'),
            torch.autocast(self._device.type, self._dtype if half else torch.bfloat16, half),
        ):
            return self.model.encode_images(self._inputs, cameras.to(self._device))

    def detect(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]], score_threshold: float
    ) -> ScoredBoxes:
        """Return the boxes seen in ``frames``, the one just encoded first, each with its (1, N, 3,
        4) ``ego_from_frustum``.

        The first stands in for frames that the network needs and that are not there.
        """
        config = self.model.config
        with self._running('view_transform'):
            maps = [
                self.model.splat(features, matrix.to(self._device)) for features, matrix in frames
            ]
        with self._running('bev_head'):
            tasks = self.model.detect(maps + maps[:1] * (config.key_frames - len(maps)))
        with self._running('decode'):
            return decode(
                tasks,
                replace(config, decode=replace(config.decode, score_threshold=score_threshold)),
            )[0]

    def kept(self, features: ImageFeatures) -> ImageFeatures:
        """Return ``features`` as they may be kept for later frames."""
        return features

    @contextmanager
    def _running(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        with torch.inference_mode(), convolution_flags(self._dtype):
            yield
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        self.seconds[stage] = time.perf_counter() - start
