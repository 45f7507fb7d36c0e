"""From a set of image messages to the core's Frame: pixels, calibration, extrinsics and ego
poses.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo

from bevdepth_core.types import CameraRig, Frame
from bevdepth_ros.rig.conversions import Intrinsics, intrinsics_from_file, intrinsics_from_info
from bevdepth_ros.rig.decoding import ImageDecoder
from bevdepth_ros.rig.settings import CameraSource, RigSettings
from bevdepth_ros.rig.synchronizer import ImageSet
from bevdepth_ros.rig.transforms import TransformMissingError, Transforms
from bevdepth_ros.rig.undistortion import Undistorter

POLL_S = 0.005
"""Pause between two looks for geometry that is still on its way."""
POSE_PATIENCE_S = 1.0
"""After a wait for ego poses in vain, sets go on without waiting for this time."""


class CameraFaultError(Exception):
    """One camera cannot be used in a set; the message says why and what to do.

    Attributes:
        reason: one of ``CAMERA_FAULTS``.
    """

    def __init__(self, reason: str, sentence: str):
        super().__init__(sentence)
        self.reason = reason


CAMERA_FAULTS = ('bad_image', 'no_camera_info', 'no_extrinsics')
"""What can make a camera unusable; among ``diagnostics.DROP_REASONS``."""


@dataclass(frozen=True)
class BuiltFrame:
    """What became of a set.

    Attributes:
        frame: of the usable cameras; None when they are too few.
        faults: why each other camera of the set was left out, by name.
        refusal: why there is no frame, as (one of ``diagnostics.DROP_REASONS``, sentence); None
            when there is one.
        no_poses: why the frame has no ego poses; None when it has.
    """

    frame: Frame | None
    faults: dict[str, CameraFaultError]
    refusal: tuple[str, str] | None = None
    no_poses: str | None = None


@dataclass
class _View:
    """One camera of a set on its way into a frame."""

    source: CameraSource
    stamp_ns: int
    frame_id: str
    picture: np.ndarray | torch.Tensor
    intrinsics: Intrinsics | None = None
    ego_from_camera: np.ndarray | None = None


class FrameBuilder:
    """Builds frames in the worker thread; CameraInfo comes from the executor's thread."""

    def __init__(
        self,
        settings: Callable[[], RigSettings],
        transforms: Transforms,
        begun: Callable[[], bool] = lambda: True,
        device: torch.device | None = None,
    ):
        """Read the calibration files.

        Args:
            settings: returns the present settings.
            transforms: where extrinsics and ego poses are looked up.
            begun: returns whether the time that cameras have to begin is over; before, sets wait
                for all calibrations.
            device: as ``ImageDecoder`` has it.

        Raises:
            ValueError: a calibration file is unusable.
            OSError: or cannot be read.
        """
        self._settings, self._transforms, self._begun = settings, transforms, begun
        self._infos: dict[str, CameraInfo] = {}
        self._undistorter = Undistorter()
        self._from_files = {
            source.name: intrinsics_from_file(source.info_file, settings().images_rectified)
            for source in settings().camera_sources
            if source.info_file
        }
        self._given_up: set[str] = set()
        self._poses_awaited_from = 0.0
        self._decoder = ImageDecoder(device)

    def close(self) -> None:
        """End the threads that decode images."""
        self._decoder.close()

    def take_info(self, camera: str, message: CameraInfo) -> None:
        """Remember the newest CameraInfo of ``camera``."""
        self._infos[camera] = message

    def build(self, images: ImageSet, stopping: threading.Event) -> BuiltFrame:
        """Return the frame of the cameras that can be used.

        Args:
            images: one message per camera.
            stopping: ends a wait early.
        """
        settings = self._settings()
        faults: dict[str, CameraFaultError] = {}
        views = self._each(self._pictures(images, settings), faults)
        self._await_geometry(settings, views, stopping)
        views = self._each(
            ((view.source.name, partial(self._calibrated, view, settings)) for view in views),
            faults,
        )
        refusal = self._refusal(settings, views, faults)
        if refusal:
            return BuiltFrame(None, faults, refusal)
        rig = CameraRig(
            tuple(view.source.name for view in views),
            np.stack([view.intrinsics.matrix for view in views]),
            np.stack([view.ego_from_camera for view in views]),
        )
        stamps_ns = np.array([view.stamp_ns for view in views], np.int64)
        poses, no_poses = self._poses(settings, stamps_ns)
        return BuiltFrame(
            Frame(tuple(view.picture for view in views), rig, stamps_ns, poses),
            faults,
            no_poses=no_poses,
        )

    @staticmethod
    def _each(steps, faults: dict[str, CameraFaultError]) -> list[_View]:
        """Return what the (camera, step) pairs yield; a camera whose step fails goes to
        ``faults``.
        """
        views = []
        for camera, step in steps:
            try:
                views.append(step())
            except CameraFaultError as fault:
                faults[camera] = fault
        return views

    def _pictures(self, images: ImageSet, settings: RigSettings):
        """Yield each camera with a step that returns its view."""
        sources = [settings.camera_sources[index] for index in images.cameras]
        decoded = self._decoder(images.messages, round(settings.max_image_megapixels * 1e6))
        for source, message, stamp_ns, picture in zip(
            sources, images.messages, images.stamps_ns.tolist(), decoded, strict=True
        ):
            frame_id = source.frame or message.header.frame_id
            yield source.name, partial(self._view, source, stamp_ns, frame_id, picture)

    @staticmethod
    def _view(
        source: CameraSource,
        stamp_ns: int,
        frame_id: str,
        picture: Callable[[], np.ndarray | torch.Tensor],
    ) -> _View:
        try:
            return _View(source, stamp_ns, frame_id, picture())
        except ValueError as error:
            raise CameraFaultError(
                'bad_image', f'image of {source.name} on {source.image_topic} {error}'
            ) from error

    def _calibrated(self, view: _View, settings: RigSettings) -> _View:
        """Fill in intrinsics and extrinsics, and take lens distortion out of the picture."""
        view.intrinsics = self._intrinsics(view, settings)
        view.ego_from_camera = self._extrinsic(view, settings)
        if view.intrinsics.distortion is not None:
            view.picture = self._undistorted(view)
        return view

    def _undistorted(self, view: _View) -> np.ndarray | torch.Tensor:
        name, intrinsics = view.source.name, view.intrinsics
        try:
            return self._undistorter(name, view.picture, intrinsics.matrix, intrinsics.distortion)
        except ValueError as error:
            raise CameraFaultError('no_camera_info', f'camera {name} {error}') from error

    def _refusal(
        self, settings: RigSettings, views: list[_View], faults: dict[str, CameraFaultError]
    ) -> tuple[str, str] | None:
        """Return why there can be no frame, as in ``BuiltFrame``."""
        uncalibrated = next(
            (fault for fault in faults.values() if fault.reason != 'bad_image'), None
        )
        if uncalibrated is not None and not self._begun():
            return uncalibrated.reason, f'waiting for all cameras to begin: {uncalibrated}'
        if len(views) >= settings.min_cameras:
            return None
        usable = ', '.join(view.source.name for view in views) or 'none'
        count, of = len(views), len(settings.cameras)
        sentence = (
            f'{count} of {of} cameras can be used ({usable}), min_cameras asks for '
            f'{settings.min_cameras}: nothing is published'
        )
        return next((fault.reason for fault in faults.values()), 'too_few_cameras'), sentence

    def _await_geometry(
        self, settings: RigSettings, views: list[_View], stopping: threading.Event
    ) -> None:
        """Wait, no longer than allowed, until what the set needs has come; not again for cameras
        that were waited for in vain.
        """
        deadline = time.monotonic() + settings.geometry_timeout_s
        with_poses = time.monotonic() >= self._poses_awaited_from
        missing = self._without_geometry(settings, views)
        while missing - self._given_up or (with_poses and not self._has_poses(settings, views)):
            if time.monotonic() >= deadline:
                self._given_up |= missing
                self._poses_awaited_from = time.monotonic() + POSE_PATIENCE_S
                break
            if stopping.wait(POLL_S):
                break
            missing = self._without_geometry(settings, views)
        self._given_up &= missing

    def _without_geometry(self, settings: RigSettings, views: list[_View]) -> set[str]:
        """Return the cameras whose calibration or extrinsics did not come yet."""
        return {
            view.source.name
            for view in views
            if not (view.source.name in self._infos or view.source.name in self._from_files)
            or not self._transforms.knows(settings.base_frame, view.frame_id)
        }

    def _has_poses(self, settings: RigSettings, views: list[_View]) -> bool:
        return all(
            self._transforms.knows(settings.fixed_frame, settings.base_frame, view.stamp_ns)
            for view in views
        )

    def _intrinsics(self, view: _View, settings: RigSettings) -> Intrinsics:
        try:
            intrinsics = self._from_files.get(view.source.name) or self._from_info(
                view.source, settings
            )
            intrinsics.require_size(view.picture)
        except ValueError as error:
            raise CameraFaultError(
                'no_camera_info', f'camera {view.source.name} {error}'
            ) from error
        return intrinsics

    def _from_info(self, source: CameraSource, settings: RigSettings) -> Intrinsics:
        if source.name not in self._infos:
            remedy = 'publish it, or set camera_info_topics or camera_info_files'
            raise ValueError(f'has no CameraInfo: nothing came on {source.info_topic}; {remedy}')
        return intrinsics_from_info(self._infos[source.name], settings.images_rectified)

    def _extrinsic(self, view: _View, settings: RigSettings) -> np.ndarray:
        source = view.source
        if not view.frame_id:
            raise CameraFaultError(
                'no_extrinsics',
                f'images on {source.image_topic} have no frame_id; set camera_frames',
            )
        try:
            return self._transforms.latest(settings.base_frame, view.frame_id)
        except TransformMissingError as error:
            remedy = (
                f'publish where {source.name} is mounted (tf2_ros static_transform_publisher), or '
                'set base_frame or camera_frames'
            )
            raise CameraFaultError('no_extrinsics', f'{error}; {remedy}') from error

    def _poses(
        self, settings: RigSettings, stamps_ns: np.ndarray
    ) -> tuple[np.ndarray | None, str | None]:
        """Return (N, 4, 4) ego poses, one per image stamp, or None and why."""
        fixed, base, clamp_s = settings.fixed_frame, settings.base_frame, settings.pose_clamp_s
        try:
            poses = [self._transforms.at(fixed, base, int(stamp), clamp_s) for stamp in stamps_ns]
        except TransformMissingError as error:
            return (
                None,
                f'{error}; without ego motion there are no velocities: publish it or set '
                'fixed_frame',
            )
        return np.stack(poses), None
