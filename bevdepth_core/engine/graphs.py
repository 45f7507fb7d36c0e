"""Runs the network on a GPU with folded batch norms, fixed buffers and CUDA graphs. The CPU waits
for the GPU only once per frame, for the boxes.

A step is a part of the computation of a frame that reads and writes only buffers with fixed
addresses. It is captured once as a CUDA graph, and the graph is replayed for each frame. The CPU
writes camera vectors and matrices to page-locked buffers, and the steps that need them copy them
to the device first. The images are resized before the first step. This is not a CUDA graph,
because the sizes of the source images can be different in each frame.

Frame 0 is the current frame; frames 1, 2, ... are past frames. Features that were computed for
earlier images are copied to the buffers of the past frames.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import numpy as np
import torch

from bevdepth_core.config import ModelConfig
from bevdepth_core.decode import BoxDecoder, ScoredBoxes
from bevdepth_core.engine.flags import convolution_flags
from bevdepth_core.engine.frame_buffers import FrameBuffers
from bevdepth_core.engine.fused import FusedNetwork, fused
from bevdepth_core.engine.timing import StageTimer
from bevdepth_core.engine.upload import ImageUploader
from bevdepth_core.model import BEVDepth
from bevdepth_core.model.depth_net import CAMERA_VECTOR_SIZE
from bevdepth_core.model.image_encoder import ImageEncoder
from bevdepth_core.model.view_transform import ImageFeatures, StereoFeatures
from bevdepth_core.ops.image_resize import resize_images
from bevdepth_core.ops.warping import source_from_reference

INPUT_CHANNELS = 4
"""Channels of the network's input. The fourth channel is 0; it aligns pixels in memory, which
makes the first convolution faster."""
WARM_UPS = 2
"""Number of runs of a step before it is captured. In these runs, libraries select kernels and
allocate memory."""


Method = TypeVar('Method', bound=Callable[..., Any])


def _on_device(method: Method) -> Method:
    """Decorate a method of ``GraphedNetwork``, so that it runs without gradients and the device of
    the network is the current CUDA device.
    """

    @functools.wraps(method)
    def guarded(self: GraphedNetwork, *arguments: Any) -> Any:
        device = torch.cuda.device(self._device) if self._device.type == 'cuda' else nullcontext()
        with torch.inference_mode(), device:
            return method(self, *arguments)

    return cast(Method, guarded)


class GraphedNetwork:
    """An ``InferenceNetwork`` with fixed buffers for up to ``capacity`` cameras.

    A frame with fewer cameras uses the same graphs. The buffers of unused cameras keep old images,
    and the matrices of unused cameras project these images outside the grid. For a frame with more
    cameras, the graphs are captured again. On the CPU, the same steps run without graphs; tests
    use this.

    Args:
        model: network to run; its weights are copied.
        device: device that runs the network.
        dtype: data type of network and features; geometry is always float32.

    Attributes:
        stage_seconds: time of each stage of the last frame, see ``InferenceNetwork``, seconds. On
            a GPU, the times are measured with CUDA events; on the CPU, they are 0. The stage
            ``image_branch`` includes the step ``refinement`` if there is this step. Every other
            stage after ``preprocess`` is the step with the same name.
        capacity: largest number of cameras so far.
    """

    def __init__(self, model: BEVDepth, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.capacity = model.config, 0
        self.stage_seconds: dict[str, float] = {}
        self._device, self._dtype = device, dtype
        self._network = fused(model, device, dtype)
        _add_input_channels(self._network.image_encoder)
        self._decoder = BoxDecoder(model.config).to(device)
        self._uploader = ImageUploader(model.config, device)
        self._steps: _Steps | None = None
        self._timer = StageTimer(device)

    @_on_device
    def prepare(self, cameras: int) -> None:
        self._steps_for(cameras)

    @_on_device
    def set_images(self, images: Sequence[np.ndarray | torch.Tensor]) -> None:
        """Upload the images and start to resize them, without waiting for the GPU to finish."""
        inputs = self._steps_for(len(images)).images[: len(images)]
        self._timer.start()
        spec = self.config.image
        on_device, plans = self._uploader.upload(images)
        resize_images(on_device, plans, spec.mean, spec.std, inputs)
        self._timer.stage_done('preprocess')

    @_on_device
    def encode(self, camera_vectors: torch.Tensor) -> ImageFeatures:
        count = camera_vectors.shape[1]
        steps = self._steps_for(count)
        steps.cameras_host[:count] = camera_vectors[0]
        for name in steps.of_images:
            steps.run(name)
        self._timer.stage_done('image_branch')
        features = steps.buffers.features(0, count)
        # A stereo model refines the depth in ``match``, so the volume in the buffers still belongs
        # to an earlier frame.
        return features if self._network.stereo is None else replace(features, volume=None)

    @_on_device
    def match(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]]
    ) -> Sequence[tuple[ImageFeatures, torch.Tensor]]:
        if self._network.stereo is None:
            return frames
        (_, matrix), (past, past_matrix) = frames[0], frames[-1]
        count = matrix.shape[1]
        steps = self._steps_for(count)
        steps.buffers.set(1, past)
        steps.set_motion(matrix[0], past_matrix[0])
        steps.run('stereo')
        self._timer.stage_done('stereo')
        return [
            (replace(steps.buffers.features(frame, count), stereo=None), pose)
            for frame, (_, pose) in enumerate(frames)
        ]

    @_on_device
    def detect(
        self, frames: Sequence[tuple[ImageFeatures, torch.Tensor]], threshold: float
    ) -> ScoredBoxes:
        steps = self._steps_for(frames[0][1].shape[1])
        for frame in range(self.config.key_frames):
            features, matrix = frames[frame] if frame < len(frames) else frames[0]
            steps.set_matrices(frame, matrix[0])
            if frame > 0:
                steps.buffers.set(frame, features)
        for name in ('view_transform', 'bev_head', 'decode'):
            steps.run(name)
            self._timer.stage_done(name)
        self.stage_seconds = self._timer.wait()
        return self._decoder.boxes(steps.boxes_host.numpy(), threshold)

    @_on_device
    def snapshot(self, features: ImageFeatures) -> ImageFeatures:
        return features.mapped(torch.clone)

    def _steps_for(self, cameras: int) -> _Steps:
        """Return buffers and steps for at least ``cameras`` cameras. If they do not exist, create
        them: this selects kernels and captures graphs.
        """
        if self._steps is None or cameras > self.capacity:
            self._steps = None  # frees the buffers before larger buffers are allocated
            self.capacity = 0
            with convolution_flags(self._dtype, search=True):
                self._steps = _Steps(
                    self._network, self._decoder, self.config, cameras, self._device, self._dtype
                )
            self.capacity = cameras
        return self._steps


class _Steps:
    """Fixed buffers for a number of cameras, and the steps that read and write the buffers.

    Attributes:
        buffers: features of all frames.
        images: (cameras, INPUT_CHANNELS, H, W) resized images of the current frame.
        of_images: names of the steps that depend only on the images and camera vectors of the
            current frame. ``encode`` runs these steps.
        cameras_host: camera vectors of the current frame.
        matrices_host: ``ego_from_frustum`` of all frames.
        motion_host: motion of the cameras between two frames, see ``set_motion``.
        maps: head maps of the current frame.
        boxes_host: boxes of the current frame.
    """

    def __init__(
        self,
        network: FusedNetwork,
        decoder: BoxDecoder,
        config: ModelConfig,
        cameras: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._network, self._decoder = network, decoder
        self._second_stream = torch.cuda.Stream() if device.type == 'cuda' else None
        self._outside = torch.tensor([0, 0, config.grid.z[0] - 1e6])
        self.buffers = FrameBuffers(config, cameras, device, dtype)
        self._allocate_on_device(config, cameras, partial(torch.zeros, device=device, dtype=dtype))
        self._allocate_on_host(config, cameras, device)
        of_images: dict[str, Callable[[], None]] = {'image_branch': self._encode_images}
        is_stereo, has_refinement = config.stereo is not None, config.depth_net.refinement
        if has_refinement and not is_stereo:
            of_images['refinement'] = partial(self._refine, 1)
        self.of_images = tuple(of_images)
        self._runs = {
            **of_images,
            **({'stereo': self._match} if is_stereo else {}),
            'view_transform': self._splat,
            'bev_head': self._head,
            'decode': self._decode,
        }
        for frame in range(config.key_frames):
            self.set_matrices(frame, torch.zeros(0, 3, 4))
        no_cameras = torch.zeros(0, 3, 4, dtype=torch.float64)
        self.set_motion(no_cameras, no_cameras)
        if device.type == 'cuda':
            self._runs = _captured(self._runs)

    def _allocate_on_device(
        self, config: ModelConfig, cameras: int, new: Callable[..., torch.Tensor]
    ) -> None:
        """Allocate the buffers of images and BEV maps in the layout channels_last."""
        frames, channels = config.key_frames, config.depth_net.context_channels
        images = new(cameras, config.image.height, config.image.width, INPUT_CHANNELS)
        self.images = images.permute(0, 3, 1, 2)
        nx, ny, _ = config.grid.shape
        self._bev = new(1, ny, nx, frames * channels).permute(0, 3, 1, 2)
        self.maps = torch.zeros(0)  # replaced by the output of the head when the head runs

    def _allocate_on_host(self, config: ModelConfig, cameras: int, device: torch.device) -> None:
        """Allocate page-locked memory for camera vectors, matrices and boxes, and copies of camera
        vectors and matrices on the device.
        """
        new = partial(torch.zeros, pin_memory=device.type == 'cuda')
        self.cameras_host = new(cameras, CAMERA_VECTOR_SIZE)
        self.matrices_host = new(config.key_frames, cameras, 3, 4)
        self._cameras = self.cameras_host.to(device)
        self._matrices = self.matrices_host.to(device)
        self.motion_host = new(config.key_frames, cameras, 3, 4, dtype=torch.float64)
        self._motion = self.motion_host.to(device)
        self.boxes_host = new(len(config.head.tasks) * config.decode.boxes_per_task, 11)

    def run(self, name: str) -> None:
        """Run one step."""
        self._runs[name]()

    def set_matrices(self, frame: int, matrices: torch.Tensor) -> None:
        """Set the (N, 3, 4) ``ego_from_frustum`` matrices of a frame. The matrices of unused
        cameras are set to matrices that project all points outside the grid.
        """
        target = self.matrices_host[frame]
        target[: len(matrices)] = matrices
        target[len(matrices) :, :, :3] = 0
        target[len(matrices) :, :, 3] = self._outside

    def set_motion(self, current: torch.Tensor, past: torch.Tensor) -> None:
        """Set the motion of the cameras between the two frames that a stereo model compares. For
        each of the two frames, it is the result of ``source_from_reference`` with this frame as
        the reference. The motion of unused cameras is the identity.

        Args:
            current: (N, 3, 4) float64 ``ego_from_frustum`` of the current frame.
            past: (N, 3, 4) float64 ``ego_from_frustum`` of the past frame.
        """
        self.motion_host.copy_(torch.eye(4, dtype=torch.float64)[:3])
        for target, pair in zip(
            self.motion_host, ((current, past), (past, current)), strict=False
        ):
            target[: len(current)] = source_from_reference(*pair)

    def _encode_images(self) -> None:
        """Compute the features of the current frame. The gates depend only on the camera vectors,
        so they are computed in parallel with the image encoder.
        """
        with self._in_parallel():
            self._cameras.copy_(self.cameras_host, non_blocking=True)
            gates = self._network.depth_net.gates(self._cameras)
        encoded, first_stage = self._network.image_encoder.with_first_stage(self.images)
        self._join()
        self.buffers.set(0, self._network.features(encoded, first_stage, gates))

    def _refine(self, frames: int) -> None:
        """Refine the lifted features of the first ``frames`` frames. A model without stereo
        refines only the current frame. For the past frame it uses the stored volume, because
        another refinement would take as long as for the current frame.
        """
        for frame in range(frames):
            features = self.buffers.features(frame, len(self.images))
            refined = self._network.view_transform.refine(features.depth, features.context)
            assert features.volume is not None and refined.volume is not None
            features.volume.copy_(refined.volume)

    def _match(self) -> None:
        """Compare each of the two frames with the other frame; both comparisons are one batch."""
        assert self._network.stereo is not None and self.buffers.frames.stereo is not None
        self._motion.copy_(self.motion_host, non_blocking=True)
        frames = self.buffers.frames.stereo
        others = StereoFeatures(*(tensor.flip(0) for tensor in frames.tensors()))
        self.buffers.frames.depth.copy_(self._network.stereo(frames, others, self._motion).masked)
        if self.buffers.frames.volume is not None:
            self._refine(len(self._motion))

    def _in_parallel(self) -> AbstractContextManager:
        """Launch the work of the ``with`` block on a second stream, in parallel with the work that
        follows the block, until ``_join``.
        """
        if self._second_stream is None:
            return nullcontext()
        self._second_stream.wait_stream(torch.cuda.current_stream())
        return torch.cuda.stream(self._second_stream)

    def _join(self) -> None:
        """Let the following work wait for the work on the second stream."""
        if self._second_stream is not None:
            torch.cuda.current_stream().wait_stream(self._second_stream)

    def _splat(self) -> None:
        self._matrices.copy_(self.matrices_host, non_blocking=True)
        view = self._network.view_transform
        maps = view(self.buffers.frames, self._matrices)  # the frames are the batch dimension
        self._bev.unflatten(1, maps.shape[:2]).copy_(maps[None])

    def _head(self) -> None:
        self.maps = self._network.head(self._network.bev_encoder(self._bev))

    def _decode(self) -> None:
        self.boxes_host.copy_(self._decoder(self.maps)[0], non_blocking=True)


def _captured(runs: dict[str, Callable[[], None]]) -> dict[str, Callable[[], None]]:
    """Capture each function of ``runs`` as a CUDA graph, and return functions that replay the
    graphs. The graphs are captured in the order of ``runs`` and share one memory pool.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(WARM_UPS):
            for run in runs.values():
                run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    pool = torch.cuda.graph_pool_handle()
    replays = {}
    for name, run in runs.items():
        graph = torch.cuda.CUDAGraph()
        # With this mode, other threads may use the device during the capture.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode='thread_local'):
            run()
        replays[name] = graph.replay
    return replays


def _add_input_channels(encoder: ImageEncoder) -> None:
    """Extend the first convolution to INPUT_CHANNELS channels; added weights are 0."""
    conv = encoder.backbone.conv1
    weight = conv.weight.new_zeros(len(conv.weight), INPUT_CHANNELS, *conv.weight.shape[2:])
    weight[:, :3] = conv.weight
    conv.weight = torch.nn.Parameter(
        weight.contiguous(memory_format=torch.channels_last), requires_grad=False
    )
