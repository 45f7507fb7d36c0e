"""Runs exported graphs on the CPU: ONNX graphs in ONNX Runtime, compiled packages in PyTorch."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from bevdepth_core.decode import BoxDecoder, ScoredBoxes
from bevdepth_core.engine.exported import ExportedNetwork, Graph
from bevdepth_core.engine.image_preparation import ImagePreparation
from bevdepth_core.engine.onnx import onnx_graph
from bevdepth_core.engine.pt2 import pt2_graph
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures


class ExportedInference:
    """An ``InferenceNetwork`` that runs exported graphs.

    If the splat graph contains the node ``bevdepth.VoxelPooling``, the splat runs in PyTorch
    instead, because ONNX Runtime does not have this node.

    Args:
        model: the network that was exported, with the same weights.
        folder: folder of the exported network.
        threads: number of threads of ONNX Runtime. A splat with ScatterND always uses one thread,
            and compiled packages use the threads of PyTorch.

    Attributes:
        config: config of the model.
        stage_seconds: wall time of each stage of the current frame that has ended, see
            ``InferenceNetwork``, seconds.

    Raises:
        ExportError: the folder contains no exported network, the exported network has other
            weights than ``model``, or ONNX Runtime is missing.
    """

    def __init__(self, model: BEVDepth, folder: str | Path, threads: int) -> None:
        exported = ExportedNetwork.read(folder)
        exported.require(model)
        self.stage_seconds: dict[str, float] = {}
        self.config = model.config
        self._image_branch = _opened(exported, 'image_branch', threads)
        self._detection = _opened(exported, 'detection', threads)
        self._splat = None
        if not exported.has_own_node:
            # ONNX Runtime loses additions of ScatterND if several threads compute them.
            self._splat = _opened(exported, 'splat', 1 if exported.has_scatter else threads)
        self._view_transform = model.view_transform
        self._decoder = BoxDecoder(model.config)
        self._prepare_images = ImagePreparation(model.config.image, torch.device('cpu'))
        self._images = torch.zeros(0)

    def prepare(self, cameras: int) -> None:
        """Do nothing: there are no graphs to capture and no buffers to allocate."""

    def set_images(self, images: Sequence[np.ndarray | torch.Tensor]) -> None:
        self.stage_seconds = {}
        with self._stage('preprocess'):
            self._images = self._prepare_images(images)[0]

    def encode(self, camera_vectors: torch.Tensor) -> ImageFeatures:
        with self._stage('image_branch'):
            depth, context = self._image_branch(self._images, camera_vectors[0])
            return ImageFeatures(depth[None], context[None])

    def match(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]]
    ) -> Sequence[tuple[ImageFeatures, torch.Tensor]]:
        return frames

    def detect(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]], threshold: float
    ) -> ScoredBoxes:
        with self._stage('view_transform'):
            maps = [self.splat(features, matrix) for features, matrix in frames]
            maps += maps[:1] * (self.config.key_frames - len(maps))
        with self._stage('bev_head'):
            candidates = self._detection(*maps)[1]
        with self._stage('decode'):
            table = self._decoder.suppress(candidates, 1)[0].numpy()
            return self._decoder.boxes(table, threshold)

    def snapshot(self, features: ImageFeatures) -> ImageFeatures:
        return features

    def head_maps(self, bev_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the head maps of ``bev_maps``, in the layout of ``decode.stack_maps``."""
        with torch.inference_mode():
            return self._detection(*bev_maps)[0]

    def splat(self, features: ImageFeatures, matrix: torch.Tensor) -> torch.Tensor:
        """Return the (1, C, ny, nx) BEV map of one frame, see ``BEVDepth.splat``."""
        if self._splat is None:
            refined = self._view_transform.refine(features.depth, features.context)
            return self._view_transform(refined, matrix)
        return self._splat(features.depth[0], features.context[0], matrix[0].float())[0]

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Run the ``with`` block without gradients and measure its wall time as stage ``name``."""
        start = time.perf_counter()
        with torch.inference_mode():
            yield
        self.stage_seconds[name] = time.perf_counter() - start


def _opened(exported: ExportedNetwork, name: str, threads: int) -> Graph:
    """Return a function that runs the graph ``name``. ``threads`` is only for ONNX Runtime."""
    path = exported.graph(name)
    return onnx_graph(path, threads) if exported.format == 'onnx' else pt2_graph(path)
