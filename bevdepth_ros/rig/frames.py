"""Builds the core's ``Frame`` (pixels, calibration, extrinsics, ego poses) from an image set.

The detector, the visualizer, the viewer and the renderer all use ``FrameBuilder``, so the boxes in
rendered images are projected with the same camera model as in the detector.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn, TypeVar

import numpy as np
import torch
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from bevdepth_core.types import CameraRig, Frame
from bevdepth_ros.rig import stamps
from bevdepth_ros.rig.calibrations import Calibrations
from bevdepth_ros.rig.compressed_images import DecodedImage
from bevdepth_ros.rig.decoding import ImageDecoder
from bevdepth_ros.rig.intrinsics import Intrinsics
from bevdepth_ros.rig.raw_images import ImageTooLargeError
from bevdepth_ros.rig.settings import CameraSource, RigSettings
from bevdepth_ros.rig.synchronizer import ImageSet
from bevdepth_ros.rig.transforms import TransformMissingError, Transforms
from bevdepth_ros.rig.undistortion import Undistorter

Result = TypeVar('Result')
POLL_S = 0.005
"""Period, in seconds, at which missing geometry is looked up again."""
NO_POSE_WAIT_S = 1.0
"""After an image set has waited for geometry (calibration, extrinsics or ego poses) until the
timeout, no image set waits for ego poses during this time, in seconds. Otherwise, missing ego
poses would delay every image set by the timeout."""


class CameraFaultError(Exception):
    """A camera cannot be used in a set; the message gives the reason and the remedy.

    Attributes:
        reason: one of ``CAMERA_FAULTS``.
    """

    def __init__(self, reason: str, sentence: str) -> None:
        super().__init__(sentence)
        self.reason = reason


CAMERA_FAULTS = ('bad_image', 'no_camera_info', 'no_extrinsics')
"""Reasons why a camera is unusable; they are also in ``diagnostics.DROP_REASONS``."""


@dataclass(frozen=True)
class BuiltFrame:
    """Result of building the frame of one image set.

    Attributes:
        frame: frame of the usable cameras; None if there are too few usable cameras.
        faults: reason why a camera of the set was excluded, by name of the excluded camera.
        rejection: why there is no frame, as (one of ``diagnostics.DROP_REASONS``, sentence); None
            if there is a frame.
        no_poses: why the frame has no ego poses; None if it has ego poses.
        warnings: warnings about the calibration and the image, by name of the camera.
        seconds: durations in seconds; empty if there is no frame. Images are decoded while
            calibration and tf are looked up. ``decoding`` is the time for which the builder waited
            for images after these look-ups, and ``geometry`` is the remaining time of the build.
    """

    frame: Frame | None
    faults: dict[str, CameraFaultError]
    rejection: tuple[str, str] | None = None
    no_poses: str | None = None
    warnings: dict[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _View:
    """One camera of a set. Its image is being decoded. The function ``image`` waits for the
    decoded image and returns this image.
    """

    source: CameraSource
    stamp_ns: int
    frame_id: str
    image: Callable[[], DecodedImage]


@dataclass(frozen=True)
class _Geometry:
    """Results of the look-ups for one camera. The look-ups are finished. Each function returns the
    result of its look-up, or raises the error of a look-up that failed.

    Attributes:
        intrinsics: returns the intrinsics of the full-size image.
        extrinsic: returns the (4, 4) pose of the image's tf frame in the base frame.
    """

    intrinsics: Callable[[], Intrinsics]
    extrinsic: Callable[[], np.ndarray]


@dataclass(frozen=True)
class _CalibratedView:
    """One camera of a frame. Its image is decoded and has no lens distortion. ``intrinsics`` fit
    the size of the decoded image.
    """

    name: str
    frame_id: str
    stamp_ns: int
    pixels: np.ndarray | torch.Tensor
    intrinsics: Intrinsics
    ego_from_camera: np.ndarray
    warnings: tuple[str, ...]


class FrameBuilder:
    """Builds frames from image sets. Only one thread may call ``build``. Another thread may call
    ``take_image`` and ``take_info``.
    """

    def __init__(
        self,
        settings: Callable[[], RigSettings],
        transforms: Transforms,
        startup_is_over: Callable[[], bool] = lambda: True,
        device: torch.device | None = None,
        min_width: int = 0,
        topic_name: Callable[[str], str] = str,
    ) -> None:
        """Read the calibration files.

        Args:
            settings: returns the current settings.
            transforms: looks up extrinsics and ego poses.
            startup_is_over: returns True when the start-up time of the cameras is over. During
                this time, image sets with an uncalibrated camera are rejected.
            device: see ``ImageDecoder``.
            min_width: without a GPU, JPEG files may be decoded at a reduced size of at least this
                width, pixels; 0 for full size. The intrinsics of a frame are scaled to the size of
                the decoded images.
            topic_name: returns the name of a topic after remappings, for messages to users.

        Raises:
            ValueError: a calibration file is invalid.
            OSError: a calibration file cannot be read.
        """
        self._settings, self._transforms = settings, transforms
        self._startup_is_over = startup_is_over
        self._undistorter = Undistorter()
        self._topic_name = topic_name
        self._calibrations = Calibrations(settings(), topic_name)
        self._given_up: set[str] = set()
        self._poses_awaited_from = 0.0
        self._decoder = ImageDecoder(device, min_width)
        self._last_rig: CameraRig | None = None
        self._info_topics = {
            source.name: topic_name(source.info_topic)
            for source in settings().camera_sources
            if not source.info_file
        }

    def close(self) -> None:
        """End the threads that decode images."""
        self._decoder.close()

    def take_image(self, camera: str, message: CompressedImage | Image) -> None:
        """With a GPU, start to decode an image that has just arrived, and look up its ego pose."""
        self._decoder.begin(camera, message, self._max_pixels())
        if self._decoder.on_arrival:
            settings = self._settings()
            self._transforms.lookup_early(
                settings.fixed_frame, settings.base_frame, stamps.stamp_ns(message)
            )

    def _max_pixels(self) -> int:
        return round(self._settings().max_image_megapixels * 1e6)

    def take_info(self, camera: str, message: CameraInfo) -> None:
        """Use this CameraInfo of ``camera`` from the next set on. If a calibration file of the
        camera is given, do nothing.
        """
        self._calibrations.take_info(camera, message)

    def build(self, images: ImageSet, stopping: threading.Event | None = None) -> BuiltFrame:
        """Return the frame of the cameras that can be used.

        Args:
            images: the image set.
            stopping: event that ends the wait for missing geometry.
        """
        settings, began = self._settings(), time.monotonic()
        views = self._views(images, settings)
        # Calibrations and tf are looked up while the last images are being decoded.
        self._await_geometry(settings, views, stopping or threading.Event())
        geometry = {view.source.name: self._geometry(view, settings) for view in views}
        poses, no_poses = self.poses(images.stamps_ns)
        looked_up = time.monotonic()
        faults: dict[str, CameraFaultError] = {}
        steps = ((view.source.name, partial(self._decoded, view)) for view in views)
        decoded: list[tuple[_View, DecodedImage]] = list(_each(steps, faults))
        waited_s = time.monotonic() - looked_up
        calibrations = (
            (name, partial(self._calibrated, view, image, geometry[name]))
            for view, image in decoded
            for name in (view.source.name,)
        )
        calibrated: list[_CalibratedView] = list(_each(calibrations, faults))
        warnings = self._warnings(calibrated)
        rejection = self._rejection(settings, [view.name for view in calibrated], faults)
        if rejection:
            return BuiltFrame(None, faults, rejection, warnings=warnings)
        stamps_ns = np.array([view.stamp_ns for view in calibrated], np.int64)
        if faults:
            poses, no_poses = self.poses(stamps_ns)
        frame = Frame(
            tuple(view.pixels for view in calibrated), self._rig(calibrated), stamps_ns, poses
        )
        geometry_s = time.monotonic() - began - waited_s
        seconds = {'decoding': waited_s, 'geometry': geometry_s}
        return BuiltFrame(frame, faults, no_poses=no_poses, warnings=warnings, seconds=seconds)

    def poses(self, stamps_ns: np.ndarray) -> tuple[np.ndarray | None, str | None]:
        """Return the (N, 4, 4) poses of the base frame in the fixed frame at these (N,) stamps; if
        a pose is missing, return None and the reason.
        """
        settings = self._settings()
        fixed, base, clamp_s = settings.fixed_frame, settings.base_frame, settings.pose_clamp_s
        try:
            poses = [
                self._transforms.lookup_at(fixed, base, int(stamp), clamp_s) for stamp in stamps_ns
            ]
        except TransformMissingError as error:
            remedy = (
                f'check the publisher of {self._topic_name(settings.odometry_topic)} or set '
                'fixed_frame'
                if settings.odometry_topic
                else 'publish this transform or set fixed_frame'
            )
            effect = 'without ego motion there are no velocities and no tracks'
            return None, f'{error}: {remedy}; {effect}'
        return np.stack(poses), None

    def pose_in(self, frame_id: str, stamp_ns: int) -> np.ndarray:
        """Return the (4, 4) pose of the base frame in ``frame_id``.

        Raises:
            TransformMissingError: tf does not have this pose at that stamp.
        """
        settings = self._settings()
        return self._transforms.lookup_at(
            frame_id, settings.base_frame, stamp_ns, settings.pose_clamp_s
        )

    def _views(self, images: ImageSet, settings: RigSettings) -> list[_View]:
        """Return one view per image. Start to decode the images that are not being decoded yet."""
        sources = [settings.camera_sources[index] for index in images.cameras]
        decoded = self._decoder(
            [source.name for source in sources],
            images.messages,
            self._max_pixels(),
            settings.decode_timeout_s,
        )
        return [
            _View(source, stamp_ns, source.frame or message.header.frame_id, image)
            for source, message, stamp_ns, image in zip(
                sources, images.messages, images.stamps_ns.tolist(), decoded, strict=True
            )
        ]

    def _decoded(self, view: _View) -> tuple[_View, DecodedImage]:
        """Wait for the image of a camera, and return the view and this image. Raise
        CameraFaultError if the image cannot be decoded.
        """
        try:
            return view, view.image()
        except ValueError as error:
            name, topic = view.source.name, self._topic_name(view.source.image_topic)
            is_large = isinstance(error, ImageTooLargeError)
            remedy = '; raise max_image_megapixels, or send smaller images' if is_large else ''
            raise CameraFaultError(
                'bad_image', f'image of {name} on {topic} {error}{remedy}'
            ) from error

    def _geometry(self, view: _View, settings: RigSettings) -> _Geometry:
        """Look up the intrinsics and the extrinsics of a camera now."""
        intrinsics = partial(self._calibrations.intrinsics, view.source, settings.images_rectified)
        return _Geometry(_tried(intrinsics), _tried(partial(self._extrinsic, view, settings)))

    def _calibrated(
        self, view: _View, image: DecodedImage, geometry: _Geometry
    ) -> _CalibratedView:
        """Return the calibrated view of a camera. Raise CameraFaultError if the intrinsics or the
        extrinsics are missing, or do not fit the image.
        """
        name = view.source.name
        try:
            intrinsics = geometry.intrinsics()
            intrinsics.require_image_size(image.width, image.height)
            rows, columns = image.pixels.shape[:2]
            intrinsics = intrinsics.scaled(columns / image.width, rows / image.height)
            extrinsic = geometry.extrinsic() @ intrinsics.frame_from_camera
            pixels = image.pixels
            if intrinsics.distortion is not None:
                pixels = self._undistorter(name, pixels, intrinsics.matrix, intrinsics.distortion)
        except ValueError as error:
            raise CameraFaultError('no_camera_info', f'camera {name} {error}') from error
        warnings = (*intrinsics.warnings, *filter(None, (image.warning,)))
        return _CalibratedView(
            name, view.frame_id, view.stamp_ns, pixels, intrinsics, extrinsic, warnings
        )

    def _rig(self, views: list[_CalibratedView]) -> CameraRig:
        """Return the rig of these cameras. If nothing has changed, return the last rig again,
        because the validation of a new rig takes as long as the look-ups in tf.
        """
        names = tuple(view.name for view in views)
        intrinsics = np.stack([view.intrinsics.matrix for view in views])
        extrinsics = np.stack([view.ego_from_camera for view in views])
        last = self._last_rig
        if (
            last is None
            or last.names != names
            or not np.array_equal(last.intrinsics, intrinsics)
            or not np.array_equal(last.ego_from_camera, extrinsics)
        ):
            last = self._last_rig = CameraRig(names, intrinsics, extrinsics)
        return last

    def _extrinsic(self, view: _View, settings: RigSettings) -> np.ndarray:
        """Return the (4, 4) pose of the image's tf frame in the base frame."""
        source = view.source
        if not view.frame_id:
            raise CameraFaultError(
                'no_extrinsics',
                f'images on {self._topic_name(source.image_topic)} have no frame_id; '
                'set camera_frames',
            )
        try:
            return self._transforms.latest(settings.base_frame, view.frame_id)
        except TransformMissingError as error:
            remedy = (
                f'publish the pose of {source.name} on the vehicle as a transform (tf2_ros '
                'static_transform_publisher), or set base_frame or camera_frames'
            )
            raise CameraFaultError('no_extrinsics', f'{error}; {remedy}') from error

    def _rejection(
        self, settings: RigSettings, usable: list[str], faults: dict[str, CameraFaultError]
    ) -> tuple[str, str] | None:
        """Return the value of ``BuiltFrame.rejection``.

        Args:
            settings: the current settings.
            usable: names of the cameras without a fault.
            faults: see ``BuiltFrame``.
        """
        uncalibrated = next(
            (fault for fault in faults.values() if fault.reason != 'bad_image'), None
        )
        if uncalibrated is not None and not self._startup_is_over():
            return uncalibrated.reason, f'waiting for all cameras to start: {uncalibrated}'
        if len(usable) >= settings.min_cameras:
            return None
        sentence = (
            f'{len(usable)} of {len(settings.cameras)} cameras can be used '
            f'({", ".join(usable) or "none"}), min_cameras is {settings.min_cameras}: no '
            'detections are published'
        )
        return next((fault.reason for fault in faults.values()), 'too_few_cameras'), sentence

    def _await_geometry(
        self, settings: RigSettings, views: list[_View], stopping: threading.Event
    ) -> None:
        """Wait at most ``geometry_timeout_s`` until calibration, extrinsics and ego poses of the
        set are known, or are no longer expected.

        If the calibration or the extrinsics of a camera did not arrive before the timeout of an
        earlier wait, this function does not wait for them again. For ego poses, see
        ``NO_POSE_WAIT_S``.
        """
        deadline = time.monotonic() + settings.geometry_timeout_s
        wait_for_poses = time.monotonic() >= self._poses_awaited_from
        missing = self._without_geometry(settings, views)
        while missing - self._given_up or (wait_for_poses and self._awaits_poses(settings, views)):
            if time.monotonic() >= deadline:
                self._given_up |= missing
                self._poses_awaited_from = time.monotonic() + NO_POSE_WAIT_S
                break
            if stopping.wait(POLL_S):
                break
            missing = self._without_geometry(settings, views)
        self._given_up &= missing

    def _without_geometry(self, settings: RigSettings, views: list[_View]) -> set[str]:
        """Return the cameras whose calibration or extrinsics have not arrived yet."""
        return {
            view.source.name
            for view in views
            if not self._calibrations.has(view.source.name)
            or not self._transforms.has_transform(settings.base_frame, view.frame_id)
        }

    def _awaits_poses(self, settings: RigSettings, views: list[_View]) -> bool:
        """Return True if the ego pose of the first or of the last image is missing and may still
        arrive. The poses in between are interpolated.
        """
        stamps_ns = [view.stamp_ns for view in views]
        return any(
            self._transforms.may_arrive(settings.fixed_frame, settings.base_frame, stamp_ns)
            for stamp_ns in {min(stamps_ns, default=0), max(stamps_ns, default=0)} - {0}
        )

    def _warnings(self, views: list[_CalibratedView]) -> dict[str, str]:
        """Return warnings by name of the camera. The warnings are about the calibration and the
        image of the camera, and about a tf frame or CameraInfo topic that two cameras share.
        """
        topics = self._info_topics
        warnings = {view.name: list(view.warnings) for view in views}
        for index, view in enumerate(views):
            for other in views[:index]:
                topic = topics.get(view.name)
                warnings[view.name] += _shared(view, other)
                if topic is not None and topic == topics.get(other.name):
                    warnings[view.name].append(
                        f'has the same CameraInfo topic as {other.name} ({topic}); set '
                        'camera_info_topics'
                    )
        return {
            name: f'camera {name} ' + '; the camera also '.join(clauses)
            for name, clauses in warnings.items()
            if clauses
        }


def _each(steps: Iterable[tuple], faults: dict[str, CameraFaultError]) -> Iterator:
    """Call the function of each (name of the camera, function) pair, and yield the result. If a
    function raises CameraFaultError, store the error in ``faults`` instead.
    """
    for camera, step in steps:
        try:
            yield step()
        except CameraFaultError as fault:
            faults[camera] = fault


def _tried(look_up: Callable[[], Result]) -> Callable[[], Result]:
    """Call ``look_up`` now, and return a function that returns its result or raises its error."""
    try:
        result = look_up()
    except (CameraFaultError, ValueError) as error:
        return partial(_raise, error)
    return lambda: result


def _raise(error: Exception) -> NoReturn:
    raise error


def _shared(view: _CalibratedView, other: _CalibratedView) -> list[str]:
    """Return a list with a warning if two cameras have the same tf frame and the same pose in this
    frame, otherwise an empty list.

    The two cameras of a stereo pair may share a tf frame without a warning, because R or P of
    their CameraInfo gives each camera a different pose in this frame.
    """
    if view.frame_id != other.frame_id:
        return []
    if not np.array_equal(view.intrinsics.frame_from_camera, other.intrinsics.frame_from_camera):
        return []
    return [
        f'has the same tf frame as {other.name} ({view.frame_id}), so both cameras have the '
        'same pose; set camera_frames'
    ]
