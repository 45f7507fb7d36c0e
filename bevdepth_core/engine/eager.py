"""Runs the network step by step: on the CPU, and on a GPU if the compiled kernels are missing
or ``cuda_graphs`` is off.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from bevdepth_core.decode import BoxDecoder, ScoredBoxes, stack_maps
from bevdepth_core.engine.flags import convolution_flags
from bevdepth_core.engine.fused import folded_model
from bevdepth_core.engine.image_preparation import ImagePreparation
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures


class EagerNetwork:
    """An ``InferenceNetwork`` that runs PyTorch's operations one after the other.

    Args:
        model: network in evaluation mode. A GPU runs this model, and the CPU runs a copy with
            folded batch norms.
        device: device that runs the network.
        dtype: data type of the image branch; the other steps are float32.

    Attributes:
        stage_seconds: wall time of each stage of the current frame that has ended, see
            ``InferenceNetwork``, seconds.
    """

    def __init__(self, model: BEVDepth, device: torch.device, dtype: torch.dtype) -> None:
        network = folded_model(model, dtype) if device.type == 'cpu' else model
        self.model = network.to(device)
        self.stage_seconds: dict[str, float] = {}
        self._decoder = BoxDecoder(model.config).to(device)
        self._device, self._dtype = device, dtype
        self._inputs = torch.zeros(0)
        self._prepare_images = ImagePreparation(model.config.image, device)

    def prepare(self, cameras: int) -> None:
        """Do nothing: there are no graphs to capture and no buffers to allocate."""

    def set_images(self, images: Sequence[np.ndarray | torch.Tensor]) -> None:
        self.stage_seconds = {}
        with self._stage('preprocess'):
            self._inputs = self._prepare_images(images)

    def encode(self, camera_vectors: torch.Tensor) -> ImageFeatures:
        half = self._dtype != torch.float32
        with (
            self._stage('image_branch'),
            torch.autocast(self._device.type, self._dtype if half else torch.bfloat16, half),
        ):
            return self.model.encode_images(self._inputs, camera_vectors.to(self._device))

    def match(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]]
    ) -> Sequence[tuple[ImageFeatures, torch.Tensor]]:
        if self.model.stereo is None:
            return frames
        with self._stage('stereo'):
            matrices = [matrix.to(self._device) for _, matrix in frames]
            features = [features for features, _ in frames]
            matched, _ = self.model.match(list(zip(features, matrices, strict=True)))
            return list(zip(matched, matrices, strict=True))

    def detect(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]], threshold: float
    ) -> ScoredBoxes:
        with self._stage('view_transform'):
            maps = [
                self.model.splat(features, matrix.to(self._device)) for features, matrix in frames
            ]
        with self._stage('bev_head'):
            missing = self.model.config.key_frames - len(maps)
            tasks = self.model.head_maps(maps + maps[:1] * missing)
        with self._stage('decode'):
            table = self._decoder(stack_maps(tasks))[0].cpu().numpy()
            return self._decoder.boxes(table, threshold)

    def snapshot(self, features: ImageFeatures) -> ImageFeatures:
        return features

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Run the ``with`` block without gradients and measure its wall time as stage ``name``."""
        start = time.perf_counter()
        with torch.inference_mode(), convolution_flags(self._dtype):
            yield
        if self._device.type == 'cuda':
            torch.cuda.synchronize(self._device)
        self.stage_seconds[name] = time.perf_counter() - start
