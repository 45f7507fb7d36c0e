"""Streaming detection: frames in, boxes out, past key frames remembered."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.config import ModelConfig
from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.engine.eager import EagerNetwork
from bevdepth_core.engine.graphs import GraphedNetwork
from bevdepth_core.engine.network import InferenceNetwork
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures
from bevdepth_core.ops import kernels_in_use
from bevdepth_core.types import Detections3D, Frame

PAST_FRAME_AGE_NS = 500_000_000
"""Age of the earlier key frame that the network was trained with: nuScenes key frames come at 2
Hz."""
PAST_FRAME_TOLERANCE_NS = 100_000_000
"""How far from that age a frame may be; otherwise the current frame stands in for it."""
LONGEST_GAP_NS = 1_000_000_000
"""A longer pause between frames forgets the past."""
MEMORY_SPACING_NS = 50_000_000
"""Frames closer than this to the last remembered one are not remembered, which bounds the
memory."""

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _PastFrame:
    """What is kept of a frame: features on the device, and where its cameras were."""

    stamp_ns: int
    calibration: Calibration
    features: ImageFeatures
    world_from_ego: np.ndarray


class Detector:
    """Detect boxes frame by frame.

    A frame's images are encoded once. Its depth and context are kept and splatted again, with the
    then known relative pose, when the frame is about half a second old; the result is that of the
    official two-frame forward.

    Args:
        model: in evaluation mode.
        device: where to run, such as ``'cpu'`` or ``'cuda:0'``.
        precision: ``'fp32'``, ``'fp16'`` or ``'bf16'`` for the network; geometry is float32
            always. With ``'fp32'`` nothing is rounded to TF32 either.
        cuda_graphs: on a GPU, replay CUDA graphs with images, decoding and suppression on the
            device instead of running step by step, which takes ten times as long.

    Attributes:
        score_threshold: boxes must score more than this; starts as the model's and may be changed
            at any time.
        keep_depth: whether ``depth`` is kept; may be changed at any time.
        depth: (N, D, h, w) float32 depth distribution of the last frame's cameras, on the device;
            None unless it is kept.

    Raises:
        ValueError: unknown precision, one that the device cannot do, or a device that this machine
            does not have.
    """

    def __init__(
        self,
        model: BEVDepth,
        device: str | torch.device = 'cpu',
        precision: str = 'fp32',
        cuda_graphs: bool = True,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(
                f'precision must be one of {", ".join(PRECISIONS)}, got {precision!r}'
            )
        self.device = _usable_device(device)
        if self.device.type == 'cpu' and precision != 'fp32':
            raise ValueError(f'precision {precision} needs a GPU: use precision fp32 on the CPU')
        self.precision = precision
        self.model = model.eval()
        self._network = self._make_network(cuda_graphs)
        self.score_threshold = model.config.decode.score_threshold
        self.keep_depth = False
        self.depth: torch.Tensor | None = None
        self._memory: list[_PastFrame] = []
        self._last_stamp_ns: int | None = None
        self._calibration: Calibration | None = None

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = 'cpu',
        precision: str = 'fp32',
        cuda_graphs: bool = True,
    ) -> Detector:
        """Return a detector with the weights of ``path``; raises ``CheckpointError`` when the file
        is refused.
        """
        return cls(load_checkpoint(path), device, precision, cuda_graphs)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.config.class_names

    def reset(self) -> None:
        """Forget all past frames."""
        self._memory.clear()
        self._last_stamp_ns = None

    def prepare(self, cameras: int) -> None:
        """Do on a GPU what frames of up to ``cameras`` cameras need once, which takes seconds; the
        first frame does it otherwise.
        """
        self._network.prepare(cameras)

    def __call__(self, frame: Frame) -> Detections3D:
        """Return the boxes of ``frame`` in its ego frame at ``frame.stamp_ns``.

        Without a usable past frame (start, gap, backward stamp, unknown pose) the current frame
        stands in for it.
        """
        self._forget_what_cannot_be_past(frame.stamp_ns)
        self._network.set_images(frame.images)
        calibration = self._calibrated(frame)
        features = self._network.encode(calibration.cameras)
        past = self._past_frame(frame)
        self._remember(frame, calibration, features)  # before waiting for a GPU
        found = self._network.detect(
            self._frames(frame, calibration, features, past), self.score_threshold
        )
        self.depth = features.depth[0].float().clone() if self.keep_depth else None
        past_stamp_ns = None if past is None else past.stamp_ns
        seconds = self._network.stage_seconds
        return Detections3D(
            found.boxes,
            found.scores,
            found.labels,
            self.class_names,
            frame.stamp_ns,
            past_stamp_ns,
            seconds,
        )

    def _make_network(self, cuda_graphs: bool) -> InferenceNetwork:
        dtype = PRECISIONS[self.precision]
        if cuda_graphs and self.device.type == 'cuda' and kernels_in_use():
            return GraphedNetwork(self.model, self.device, dtype)
        if self.device.type == 'cuda' and not kernels_in_use():
            logger.warning(
                'the compiled kernels are missing, so that the network runs step by step and '
                'slowly: install nvcc and run setup'
            )
        return EagerNetwork(self.model, self.device, dtype)

    def _calibrated(self, frame: Frame) -> Calibration:
        """Return the numbers of the frame's cameras, those of the frame before where nothing
        changed.
        """
        known = self._calibration
        if known is None or not known.holds_for(frame.rig, frame.images):
            known = Calibration.of(frame.rig, frame.images, self.config.image)
        elif known.rig.names != frame.rig.names:
            known = replace(known, rig=frame.rig)
        self._calibration = known
        return known

    def _frames(
        self,
        frame: Frame,
        calibration: Calibration,
        features: ImageFeatures,
        past: _PastFrame | None,
    ) -> list[tuple[ImageFeatures, torch.Tensor]]:
        """Return what is to be splatted into the current ego frame: the current and, in a
        two-frame model, the past frame.
        """
        frames = [(features, calibration.ego_from_frustum(frame.rig.ego_from_camera))]
        if self.config.key_frames == 2 and past is not None:
            frames.append(
                (
                    past.features,
                    past.calibration.ego_from_frustum(_key_ego_from_past_camera(frame, past)),
                )
            )
        return frames

    def _past_frame(self, frame: Frame) -> _PastFrame | None:
        """Return the remembered frame nearest the trained age, if one is near enough and poses are
        known.
        """
        if frame.world_from_ego is None or not self._memory:
            return None
        wanted_ns = frame.stamp_ns - PAST_FRAME_AGE_NS
        nearest = min(self._memory, key=lambda past: abs(past.stamp_ns - wanted_ns))
        return nearest if abs(nearest.stamp_ns - wanted_ns) <= PAST_FRAME_TOLERANCE_NS else None

    def _forget_what_cannot_be_past(self, stamp_ns: int) -> None:
        last, self._last_stamp_ns = self._last_stamp_ns, stamp_ns
        if last is not None and not 0 <= stamp_ns - last <= LONGEST_GAP_NS:
            self._memory.clear()
        oldest_ns = stamp_ns - PAST_FRAME_AGE_NS - PAST_FRAME_TOLERANCE_NS
        self._memory = [past for past in self._memory if past.stamp_ns >= oldest_ns]

    def _remember(self, frame: Frame, calibration: Calibration, features: ImageFeatures) -> None:
        too_close = self._memory and frame.stamp_ns - self._memory[-1].stamp_ns < MEMORY_SPACING_NS
        if self.config.key_frames == 1 or frame.world_from_ego is None or too_close:
            return
        self._memory.append(
            _PastFrame(
                frame.stamp_ns, calibration, self._network.snapshot(features), frame.world_from_ego
            )
        )


def _key_ego_from_past_camera(frame: Frame, past: _PastFrame) -> np.ndarray:
    """Return (N, 4, 4): each past camera in the current ego frame, at the current stamp of the
    same camera.

    A past camera that the current frame lacks takes the current frame's camera nearest the mean
    stamp.
    """
    middle = int(np.abs(frame.stamps_ns - frame.stamp_ns).argmin())
    rig = past.calibration.rig
    partners = [
        frame.rig.names.index(name) if name in frame.rig.names else middle for name in rig.names
    ]
    key_ego_from_world = invert_rigid(frame.world_from_ego[partners])
    return key_ego_from_world @ past.world_from_ego @ rig.ego_from_camera


def _usable_device(device: str | torch.device) -> torch.device:
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise ValueError(
            f"device must be 'cpu', 'cuda' or 'cuda:<index>', got {device!r}"
        ) from error
    if device.type == 'cuda' and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ValueError(
            f'device {device} is not available: torch sees {torch.cuda.device_count()} GPUs; use '
            'device cpu or install a driver'
        )
    return device
