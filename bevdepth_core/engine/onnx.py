"""Runs the graphs of ``bevdepth_core.export`` in ONNX Runtime on the CPU."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bevdepth_core.decode import BoxDecoder, ScoredBoxes
from bevdepth_core.engine.exported import ExportedNetwork, ExportError
from bevdepth_core.engine.image_preparation import ImagePreparation
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures

MISSING = "ONNX Runtime is not installed; run `pip install 'onnxruntime>=1.23'`"


class OnnxNetwork:
    """An ``InferenceNetwork`` of exported graphs.

    If the splat was exported with the node ``bevdepth.VoxelPooling``, it runs in PyTorch, because
    ONNX Runtime does not have this node.

    Args:
        model: the network that was exported; its weights must be those of the export.
        folder: folder of the exported network.
        threads: number of threads of ONNX Runtime.

    Attributes:
        config: config of the model.
        stage_seconds: wall time per step of the current frame, in order.

    Raises:
        ExportError: the folder contains no exported network, the network has other weights, or
        ONNX Runtime is missing.
    """

    def __init__(self, model: BEVDepth, folder: str | Path, threads: int) -> None:
        exported = ExportedNetwork.read(folder)
        exported.require(model)
        self.stage_seconds: dict[str, float] = {}
        self.config = model.config
        self._image_branch, self._detection = (
            open_session(exported.graph(name), threads) for name in ('image_branch', 'detection')
        )
        self._splat = None
        if not exported.has_own_node:
            self._splat = open_session(exported.graph('splat'), threads)
        self._view_transform = model.view_transform
        self._decoder = BoxDecoder(model.config)
        self._prepare_images = ImagePreparation(model.config.image, torch.device('cpu'))
        self._inputs = np.zeros(0, np.float32)

    def prepare(self, cameras: int) -> None:
        """Do nothing: the first run of a step is as fast as later ones."""

    def set_images(self, images: Sequence[np.ndarray | torch.Tensor]) -> None:
        self.stage_seconds = {}
        with self._stage('preprocess'):
            self._inputs = self._prepare_images(images)[0].numpy()

    def encode(self, camera_vectors: torch.Tensor) -> ImageFeatures:
        with self._stage('image_branch'):
            inputs = {'images': self._inputs, 'cameras': camera_vectors[0].numpy()}
            depth, context = self._image_branch.run(None, inputs)
            return ImageFeatures(torch.from_numpy(depth)[None], torch.from_numpy(context)[None])

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
            candidates = self._detected('candidates', maps)
        with self._stage('decode'):
            table = self._decoder.suppress(candidates, 1)[0].numpy()
            return self._decoder.boxes(table, threshold)

    def snapshot(self, features: ImageFeatures) -> ImageFeatures:
        return features

    def head_maps(self, bev_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the head's maps, as ``decode.stack_maps`` stacks them, from the BEV maps."""
        return self._detected('maps', bev_maps)

    def _detected(self, output: str, bev_maps: Sequence[torch.Tensor]) -> torch.Tensor:
        names = [value.name for value in self._detection.get_inputs()]
        inputs = {name: bev.numpy() for name, bev in zip(names, bev_maps, strict=True)}
        return torch.from_numpy(self._detection.run([output], inputs)[0])

    def splat(self, features: ImageFeatures, matrix: torch.Tensor) -> torch.Tensor:
        """Return the (1, C, ny, nx) BEV map of one frame, see ``BEVDepth.splat``."""
        if self._splat is None:
            refined = self._view_transform.refine(features.depth, features.context)
            return self._view_transform(refined, matrix)
        inputs = {
            'depth': features.depth[0].numpy(),
            'context': features.context[0].numpy(),
            'ego_from_frustum': matrix[0].float().numpy(),
        }
        return torch.from_numpy(self._splat.run(None, inputs)[0])

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        with torch.inference_mode():
            yield
        self.stage_seconds[name] = time.perf_counter() - start


def open_session(path: Path, threads: int) -> Any:
    """Return an ONNX Runtime session on the CPU; its threads do not wait in a busy loop.

    Raises:
        ExportError: ONNX Runtime is missing, or it cannot load the graph.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ExportError(MISSING) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry('session.intra_op.allow_spinning', '0')
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=['CPUExecutionProvider'])
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise ExportError(f'{path}: ONNX Runtime cannot load it ({error})') from error
