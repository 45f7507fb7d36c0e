"""Detects boxes frame by frame and stores features of past frames for temporal fusion."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from bevdepth_core.checkpoint import load_checkpoint
from bevdepth_core.config import ModelConfig
from bevdepth_core.engine.calibration import Calibration
from bevdepth_core.engine.eager import EagerNetwork
from bevdepth_core.engine.exported_inference import ExportedInference
from bevdepth_core.engine.graphs import GraphedNetwork
from bevdepth_core.engine.network import InferenceNetwork
from bevdepth_core.geometry import invert_rigid
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.view_transform import ImageFeatures
from bevdepth_core.ops import kernels_in_use
from bevdepth_core.types import Detections3D, Frame
from bevdepth_core.uncertainty import BoxCovariance, UncertaintyModel, covariance_of

PAST_FRAME_AGE_NS = 500_000_000
"""Age of the past frames with which the network was trained. nuScenes has two key frames per
second, and the past frame is the previous key frame."""
PAST_FRAME_TOLERANCE_NS = 100_000_000
"""The age of a past frame is valid if it differs from ``PAST_FRAME_AGE_NS`` by at most this time.
If no stored frame has a valid age, the current frame is used as past frame."""
PAST_FRAME_SPACING_NS = 50_000_000
"""Smallest time between two stored frames. It limits the memory. Without this limit, 36 frames
would be stored at 60 Hz."""
MAX_PAST_FRAME_SPACING_NS = 2 * PAST_FRAME_TOLERANCE_NS
"""Largest allowed spacing. With a larger spacing, sometimes no stored frame would have a valid
age."""
STEREO_BASELINE_M = 0.1
"""Smallest camera motion between two frames from which stereo can estimate depth. At 256x704
(focal length 557 pixels), this motion moves a point at 14 m by 4 pixels, which is the stride of
the features that stereo models compare. More distant points move less."""

PRECISIONS = {'fp32': torch.float32, 'fp16': torch.float16, 'bf16': torch.bfloat16}


logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _PastFrame:
    """A stored frame that is fused with later frames. Its features are on the device."""

    stamp_ns: int
    calibration: Calibration
    features: ImageFeatures
    world_from_ego: np.ndarray


class Detector:
    """Detects boxes frame by frame.

    The images of a frame are encoded once, and their depth and context are stored. When the frame
    is about half a second old, depth and context are splatted again with the relative pose of the
    two frames. As long as the calibration stays the same, the result equals the result of the
    official two-frame forward. A stereo model also stores the features that it compares. It
    computes the depth of the past frame again, because this depth depends on the current frame.

    The depth network reads a camera vector, which contains intrinsics and mounting pose. The
    Detector computes the features of a past frame with the camera vector of this past frame. The
    official forward encodes both frames with the camera vector of the key frame. The
    results differ only in the first half second after a change of the calibration.

    Args:
        model: network in evaluation mode.
        device: device that runs the network, such as ``'cpu'`` or ``'cuda:0'``.
        precision: ``'fp32'``, ``'fp16'`` or ``'bf16'``. With CUDA graphs, the whole network runs
            in this precision, otherwise only the image branch. Geometry is always float32. With
            ``'fp32'``, no operation uses TF32.
        cuda_graphs: on a GPU, replay CUDA graphs, which also resize the images, decode the boxes
            and apply NMS on the device. If ``cuda_graphs`` is False, the network runs step by
            step, which takes ten times as long.
        cpu_threads: number of threads of PyTorch on the CPU, set in each thread that calls the
            detector; None for ``default_cpu_threads()``. This argument has no effect on a GPU.
        past_frame_spacing_ns: smallest time between two stored frames, nanoseconds. Increase it if
            memory is short and the model is a stereo model, whose past frames take 78 MB each
            (docs/STEREO.md).
        onnx_folder: folder of an exported network, which runs on the CPU in ONNX Runtime or as
            compiled packages (docs/EXPORT.md). It must be exported from the weights of ``model``.
            Packages contain machine code: load only folders from a trusted source.

    Attributes:
        score_threshold: only boxes with a higher score are returned. The initial value comes from
            the config of the model. The attribute may be changed at any time.
        keep_depth: whether ``depth`` is stored; it may be changed at any time.
        past_frame_spacing_ns: see the argument; it may be changed at any time.
        cpu_threads: threads of PyTorch on the CPU; None on a GPU.
        uncertainty: fitted uncertainty model of the checkpoint; None if the checkpoint has none.
        depth: (N, D, h, w) float32 depth distribution of the last frame's cameras, on the device;
            None unless ``keep_depth`` is set.
        baseline_m: distance between the camera positions of the two frames that a stereo model
            compared in the last call, in meters, averaged over the cameras. None if there was no
            past frame, or if the model is not a stereo model. If the distance is less than
            STEREO_BASELINE_M, the comparison gives no information about depth.

    Raises:
        ExportError: ``onnx_folder`` contains no exported network of these weights.
        ValueError: unknown precision, a precision that the device does not support, a device that
            this machine does not have, ``onnx_folder`` on a GPU, fewer than one thread, a spacing
            outside 0 to MAX_PAST_FRAME_SPACING_NS, or a damaged uncertainty model in the
            metadata of ``model``.
    """

    def __init__(
        self,
        model: BEVDepth,
        device: str | torch.device = 'cpu',
        precision: str = 'fp32',
        cuda_graphs: bool = True,
        cpu_threads: int | None = None,
        past_frame_spacing_ns: int = PAST_FRAME_SPACING_NS,
        onnx_folder: str | Path | None = None,
    ) -> None:
        if not 0 <= past_frame_spacing_ns <= MAX_PAST_FRAME_SPACING_NS:
            raise ValueError(
                f'past_frame_spacing_ns must be 0 to {MAX_PAST_FRAME_SPACING_NS}, got '
                f'{past_frame_spacing_ns}'
            )
        self.past_frame_spacing_ns = past_frame_spacing_ns
        self.device = usable_device(device, precision)
        self.precision = precision
        self.cpu_threads = _thread_count(cpu_threads) if self.device.type == 'cpu' else None
        self.model = model.eval()
        self._network = self._make_network(cuda_graphs, onnx_folder)
        self.score_threshold = model.config.decode.score_threshold
        self.keep_depth = False
        self.depth: torch.Tensor | None = None
        self.baseline_m: float | None = None
        self._memory: list[_PastFrame] = []
        self._last_stamp_ns: int | None = None
        self._calibration: Calibration | None = None
        self.uncertainty = UncertaintyModel.from_metadata(model.metadata, self.class_names)

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        device: str | torch.device = 'cpu',
        precision: str = 'fp32',
        cuda_graphs: bool = True,
        cpu_threads: int | None = None,
        onnx_folder: str | Path | None = None,
    ) -> Detector:
        """Return a detector with the weights of ``path``. The class describes the other arguments.

        Raises:
            CheckpointError: see ``load_checkpoint``.
            ExportError, ValueError: see the class.
        """
        model = load_checkpoint(path)
        return cls(model, device, precision, cuda_graphs, cpu_threads, onnx_folder=onnx_folder)

    @property
    def config(self) -> ModelConfig:
        return self.model.config

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.model.config.class_names

    def covariance(self, detections: Detections3D) -> BoxCovariance:
        """Return the covariance of boxes that this detector returned. ``uncertainty`` computes it;
        if ``uncertainty`` is None, ``default_covariance`` computes it.
        """
        return covariance_of(detections, self.uncertainty)

    def reset(self) -> None:
        """Drop all past frames."""
        self._memory.clear()
        self._last_stamp_ns = None

    def prepare(self, cameras: int) -> None:
        """Prepare for frames with up to ``cameras`` cameras. On a GPU, this selects kernels and
        captures graphs, which takes seconds. Without this call, the first frame takes seconds
        longer.
        """
        try:
            self._network.prepare(cameras)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self.config.stereo is None or not isinstance(self._network, GraphedNetwork):
                raise
            logger.warning(
                'The stereo network could not be captured as CUDA graphs and runs step by step, '
                'which is slow: %s',
                error,
            )
            self._network = EagerNetwork(self.model, self.device, PRECISIONS[self.precision])
            self.reset()  # the stored features have the layout of the previous network

    def __call__(self, frame: Frame) -> Detections3D:
        """Return the boxes of ``frame`` in its ego frame at ``frame.stamp_ns``.

        If there is no usable past frame (at the start, after a gap or a backward stamp, or without
        a known pose), the current frame is also used as past frame.
        """
        self._limit_threads()
        self._drop_old_frames(frame.stamp_ns)
        self.prepare(len(frame.images))
        self._network.set_images(frame.images)
        calibration = self._calibrated(frame)
        features = self._network.encode(calibration.cameras)
        past = self._past_frame(frame)
        # The frame is stored before ``detect``, in which the CPU waits for the GPU.
        self._store_past_frame(frame, calibration, features)
        frames = self._network.match(self._frames(frame, calibration, features, past))
        scored = self._network.detect(frames, self.score_threshold)
        self.depth = frames[0][0].depth[0].float().clone() if self.keep_depth else None
        return Detections3D(
            scored.boxes,
            scored.scores,
            scored.labels,
            self.class_names,
            frame.stamp_ns,
            None if past is None else past.stamp_ns,
            self._network.stage_seconds,
        )

    def _limit_threads(self) -> None:
        """Set the number of PyTorch threads to ``cpu_threads``. PyTorch stores this number per
        calling thread, so it is set in every call.
        """
        if self.cpu_threads is not None and torch.get_num_threads() != self.cpu_threads:
            torch.set_num_threads(self.cpu_threads)

    def _make_network(self, cuda_graphs: bool, onnx_folder: str | Path | None) -> InferenceNetwork:
        dtype = PRECISIONS[self.precision]
        if onnx_folder is not None:
            if self.cpu_threads is None:
                raise ValueError('an exported network runs on the CPU: use device cpu')
            return ExportedInference(self.model, onnx_folder, self.cpu_threads)
        if cuda_graphs and self.device.type == 'cuda' and kernels_in_use():
            return GraphedNetwork(self.model, self.device, dtype)
        if self.device.type == 'cuda' and not kernels_in_use():
            logger.warning(
                'The compiled CUDA kernels are missing: the network runs step by step, which is '
                'slow. Install nvcc and build the kernels (docs/INSTALL.md).'
            )
        return EagerNetwork(self.model, self.device, dtype)

    def _calibrated(self, frame: Frame) -> Calibration:
        """Return the calibration of the frame. It is computed only if the matrices of the rig or
        the image sizes have changed since the last frame.
        """
        calibration = self._calibration
        if calibration is None or not calibration.holds_for(frame.rig, frame.images):
            calibration = Calibration.of(frame.rig, frame.images, self.config.image)
        elif calibration.rig.names != frame.rig.names:
            calibration = replace(calibration, rig=frame.rig)
        self._calibration = calibration
        return calibration

    def _frames(
        self,
        frame: Frame,
        calibration: Calibration,
        features: ImageFeatures,
        past: _PastFrame | None,
    ) -> list[tuple[ImageFeatures, torch.Tensor]]:
        """Return features and ``ego_from_frustum`` of the frames that are splatted into the
        current ego frame: the current frame and, for a two-frame model, the past frame if there is
        one.
        """
        own_pose = calibration.ego_from_frustum(frame.rig.ego_from_camera, torch.float64)
        frames = [(features, own_pose)]
        self.baseline_m = None
        if self.config.key_frames == 2 and past is not None:
            moved = _key_ego_from_past_camera(frame, past)
            if self.config.stereo is not None:  # both frames have the same cameras
                motion_m = moved[:, :3, 3] - frame.rig.ego_from_camera[:, :3, 3]
                self.baseline_m = float(np.linalg.norm(motion_m, axis=1).mean())
            pose = past.calibration.ego_from_frustum(moved, torch.float64)
            frames.append((past.features, pose))
        return frames

    def _past_frame(self, frame: Frame) -> _PastFrame | None:
        """Return the stored frame whose age is nearest to ``PAST_FRAME_AGE_NS``; None if no stored
        frame has a valid age, or if the ego poses of ``frame`` are unknown.
        """
        memory = [past for past in self._memory if self._is_usable(past, frame)]
        if frame.world_from_ego is None or not memory:
            return None
        # The network was trained with past frames of about this age. With a much younger or much
        # older past frame, the network would estimate wrong velocities.
        wanted_ns = frame.stamp_ns - PAST_FRAME_AGE_NS
        nearest = min(memory, key=lambda past: abs(past.stamp_ns - wanted_ns))
        return nearest if abs(nearest.stamp_ns - wanted_ns) <= PAST_FRAME_TOLERANCE_NS else None

    def _is_usable(self, past: _PastFrame, frame: Frame) -> bool:
        """Return True if the model can fuse the frames. A stereo model compares the two images of
        each camera, so both frames must have the same cameras. Models without stereo can fuse all
        frames.
        """
        return self.config.stereo is None or past.calibration.rig.names == frame.rig.names

    def _drop_old_frames(self, stamp_ns: int) -> None:
        """Drop frames that are too old to be fused, and all frames if time went backward."""
        if self._last_stamp_ns is not None and stamp_ns < self._last_stamp_ns:
            self._memory.clear()
        self._last_stamp_ns = stamp_ns
        # Later frames have larger stamps, so a frame that is too old now cannot be fused with
        # them.
        oldest_ns = stamp_ns - PAST_FRAME_AGE_NS - PAST_FRAME_TOLERANCE_NS
        self._memory = [past for past in self._memory if past.stamp_ns >= oldest_ns]

    def _store_past_frame(
        self, frame: Frame, calibration: Calibration, features: ImageFeatures
    ) -> None:
        spacing_ns = self.past_frame_spacing_ns
        too_close = self._memory and frame.stamp_ns - self._memory[-1].stamp_ns < spacing_ns
        if self.config.key_frames == 1 or frame.world_from_ego is None or too_close:
            return
        self._memory.append(
            _PastFrame(
                frame.stamp_ns, calibration, self._network.snapshot(features), frame.world_from_ego
            )
        )


def _key_ego_from_past_camera(frame: Frame, past: _PastFrame) -> np.ndarray:
    """Return the (N, 4, 4) poses of the past cameras in the current ego frame.

    For each camera, the current ego frame is the ego frame at the current stamp of this camera. If
    the current frame does not have the camera, the ego frame at the camera stamp nearest to
    ``frame.stamp_ns`` is used.
    """
    assert frame.world_from_ego is not None  # true whenever there is a past frame
    middle = int(np.abs(frame.stamps_ns - frame.stamp_ns).argmin())
    rig = past.calibration.rig
    partners = [
        frame.rig.names.index(name) if name in frame.rig.names else middle for name in rig.names
    ]
    # The official code uses the ego pose of each camera's own exposure, not one pose per frame.
    key_ego_from_world = invert_rigid(frame.world_from_ego[partners])
    return key_ego_from_world @ past.world_from_ego @ rig.ego_from_camera


def default_cpu_threads() -> int:
    """Return half of the CPU cores that this process may use, at least one.

    The threads of OpenMP wait for each other in a busy loop. If there are as many threads as
    cores, a single busy process makes all threads wait, and a frame takes several times as long.
    With ``OMP_WAIT_POLICY=PASSIVE``, which ``bevdepth_ros`` sets, the threads sleep instead. In
    this case, the result is at least two if there are two or more cores. If the environment sets
    ``OMP_NUM_THREADS``, the result is the number of threads that PyTorch already uses.
    """
    if os.environ.get('OMP_NUM_THREADS'):
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0))
    threads_sleep = os.environ.get('OMP_WAIT_POLICY', '').upper() == 'PASSIVE'
    return max(cores // 2, min(cores, 2 if threads_sleep else 1))


def _thread_count(requested: int | None) -> int:
    if requested is None:
        return default_cpu_threads()
    if requested < 1:
        raise ValueError(f'cpu_threads must be at least 1, got {requested}')
    return requested


def usable_device(device: str | torch.device, precision: str = 'fp32') -> torch.device:
    """Check that the device can be used with the precision, and return the device. Programs call
    this function before they read or generate data.

    Raises:
        ValueError: this machine does not have the device, or the device does not support the
            precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f'precision must be one of {", ".join(PRECISIONS)}, got {precision!r}')
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
            f'device {device} is not available: PyTorch finds {torch.cuda.device_count()} GPUs; '
            'use device cpu or install a driver'
        )
    if device.type == 'cpu' and precision != 'fp32':
        raise ValueError(f'precision {precision} needs a GPU: use precision fp32 on the CPU')
    return device
