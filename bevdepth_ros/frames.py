"""From a set of image messages to the core's Frame: pixels, calibration, extrinsics and ego poses."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo

from bevdepth_core.jpeg import JpegDecoder
from bevdepth_core.types import CameraRig, Frame
from bevdepth_ros.conversions import Intrinsics, image_from_message, intrinsics_from_file, intrinsics_from_info, is_colour_jpeg
from bevdepth_ros.parameters import CameraSource, Settings
from bevdepth_ros.synchronizer import ImageSet
from bevdepth_ros.transforms import TransformMissingError, Transforms

POLL_S = 0.005
"""Pause between two looks for geometry that is still on its way."""
POSE_PATIENCE_S = 1.0
"""After a wait for ego poses in vain, sets go on without waiting for this time."""


class FrameRefusedError(Exception):
    """A set cannot become a frame.

    Attributes:
        reason: one of ``diagnostics.DROP_REASONS``.
    """

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


FRAME_WARNINGS = ('ego_pose', 'distortion')
"""What can be less than perfect about a frame: no ego poses, lens distortion still in the images."""


class FrameBuilder:
    """Builds frames in the worker thread; CameraInfo comes from the executor's thread."""

    def __init__(self, settings: Callable[[], Settings], transforms: Transforms, device: torch.device | None = None):
        """Read the calibration files.

        Args:
            settings: returns the present settings.
            transforms: where extrinsics and ego poses are looked up.
            device: a GPU decodes JPEG files itself; None and a CPU leave images to threads.

        Raises:
            ValueError: a calibration file is unusable.
            OSError: or cannot be read.
        """
        self._settings, self._transforms = settings, transforms
        self._infos: dict[str, CameraInfo] = {}
        self._from_files = {
            source.name: intrinsics_from_file(source.info_file, settings().images_rectified)
            for source in settings().camera_sources
            if source.info_file
        }
        self._poses_awaited_from = 0.0
        self._gpu_decoder = JpegDecoder(device) if device is not None and device.type == 'cuda' else None
        self._decoders = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix='images')

    def take_info(self, camera: str, message: CameraInfo) -> None:
        """Remember the newest CameraInfo of ``camera``."""
        self._infos[camera] = message

    def build(self, images: ImageSet, stopping: threading.Event) -> tuple[Frame, dict[str, str]]:
        """Return the frame, and a sentence for each of FRAME_WARNINGS that holds.

        Args:
            images: one message per camera.
            stopping: ends a wait early.

        Raises:
            FrameRefusedError: an image, a calibration or an extrinsic is unusable; says which and what to do.
        """
        settings = self._settings()
        sources = settings.camera_sources
        pictures = self._pictures(sources, images.messages, settings)
        frames = [source.frame or message.header.frame_id for source, message in zip(sources, images.messages, strict=True)]
        self._await_geometry(settings, frames, images.stamps_ns, stopping)
        intrinsics = [self._intrinsics(source, picture, settings) for source, picture in zip(sources, pictures, strict=True)]
        extrinsics = [self._extrinsic(source, frame, settings) for source, frame in zip(sources, frames, strict=True)]
        rig = CameraRig(settings.cameras, np.stack([found.matrix for found in intrinsics]), np.stack(extrinsics))
        poses, warnings = self._poses(settings, images.stamps_ns)
        distorted = [name for name, found in zip(settings.cameras, intrinsics, strict=True) if found.distorted]
        if distorted:
            warnings['distortion'] = f'images of {", ".join(distorted)} have lens distortion, which is not removed: use rectified topics'
        return Frame(pictures, rig, images.stamps_ns, poses), warnings

    def _pictures(self, sources: tuple[CameraSource, ...], messages: tuple, settings: Settings) -> tuple[np.ndarray | torch.Tensor, ...]:
        """Return the images of a set, decoded side by side: on the GPU where all are JPEG files that it takes."""
        max_pixels = round(settings.max_image_megapixels * 1e6)
        if self._gpu_decoder is not None and all(is_colour_jpeg(message, max_pixels) for message in messages):
            try:
                return tuple(self._gpu_decoder([message.data for message in messages]))
            except ValueError:  # a broken file: below, the refusal names its camera
                pass
        return tuple(self._decoders.map(lambda source, message: self._picture(source, message, settings), sources, messages))

    def _picture(self, source: CameraSource, message, settings: Settings) -> np.ndarray:
        try:
            return image_from_message(message, round(settings.max_image_megapixels * 1e6))
        except ValueError as error:
            raise FrameRefusedError('bad_image', f'image of {source.name} on {source.image_topic} {error}') from error

    def _await_geometry(self, settings: Settings, frames: list[str], stamps_ns: np.ndarray, stopping: threading.Event) -> None:
        """Wait, no longer than allowed, until what the set needs has come."""
        deadline = time.monotonic() + settings.geometry_timeout_s
        with_poses = time.monotonic() >= self._poses_awaited_from
        while not self._has_geometry(settings, frames, stamps_ns, with_poses):
            if time.monotonic() >= deadline or stopping.wait(POLL_S):
                break

    def _has_geometry(self, settings: Settings, frames: list[str], stamps_ns: np.ndarray, with_poses: bool) -> bool:
        has_infos = all(name in self._infos or name in self._from_files for name in settings.cameras)
        has_extrinsics = has_infos and all(self._transforms.knows(settings.base_frame, frame) for frame in frames)
        if not has_extrinsics or not with_poses:
            return has_extrinsics
        return all(self._transforms.knows(settings.fixed_frame, settings.base_frame, int(stamp)) for stamp in stamps_ns)

    def _intrinsics(self, source: CameraSource, picture: np.ndarray, settings: Settings) -> Intrinsics:
        try:
            intrinsics = self._from_files.get(source.name) or self._from_info(source, settings)
            intrinsics.require_size(picture)
        except ValueError as error:
            raise FrameRefusedError('no_camera_info', f'camera {source.name} {error}') from error
        return intrinsics

    def _from_info(self, source: CameraSource, settings: Settings) -> Intrinsics:
        if source.name not in self._infos:
            remedy = 'publish it, or set camera_info_topics or camera_info_files'
            raise ValueError(f'has no CameraInfo: nothing came on {source.info_topic}; {remedy}')
        return intrinsics_from_info(self._infos[source.name], settings.images_rectified)

    def _extrinsic(self, source: CameraSource, frame: str, settings: Settings) -> np.ndarray:
        if not frame:
            raise FrameRefusedError('no_extrinsics', f'images on {source.image_topic} have no frame_id; set camera_frames')
        try:
            return self._transforms.latest(settings.base_frame, frame)
        except TransformMissingError as error:
            remedy = f'publish where {source.name} is mounted (tf2_ros static_transform_publisher), or set base_frame or camera_frames'
            raise FrameRefusedError('no_extrinsics', f'{error}; {remedy}') from error

    def _poses(self, settings: Settings, stamps_ns: np.ndarray) -> tuple[np.ndarray | None, dict[str, str]]:
        """Return (N, 4, 4) ego poses, one per image stamp, or None and why."""
        fixed, base, clamp_s = settings.fixed_frame, settings.base_frame, settings.pose_clamp_s
        try:
            poses = [self._transforms.at(fixed, base, int(stamp), clamp_s) for stamp in stamps_ns]
        except TransformMissingError as error:
            self._poses_awaited_from = time.monotonic() + POSE_PATIENCE_S
            return None, {'ego_pose': f'{error}; without ego motion there are no velocities: publish it or set fixed_frame'}
        return np.stack(poses), {}
