"""The thread that detects objects in the newest image set."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import torch

from bevdepth_core.inference import STEREO_BASELINE_M, Detector
from bevdepth_core.types import Detections3D, Frame
from bevdepth_ros.detections.placement import Placement
from bevdepth_ros.detector.diagnostics import Monitor
from bevdepth_ros.detector.outputs import DetectionResult
from bevdepth_ros.detector.parameters import Settings
from bevdepth_ros.detector.pose_check import PoseCheck
from bevdepth_ros.detector.problems import ERROR, WARN
from bevdepth_ros.detector.rig_check import RigCheck
from bevdepth_ros.detector.slot import STOP_TIMEOUT_S, SlotThread
from bevdepth_ros.rig.frames import CAMERA_FAULTS, BuiltFrame, FrameBuilder
from bevdepth_ros.rig.ground import detections_in_base, frame_on_ground
from bevdepth_ros.rig.synchronizer import ImageSet
from bevdepth_ros.rig.transforms import TransformMissingError

STALL_S = 10.0
"""A detection that takes longer than this, in seconds, is reported. A full-size network takes
several seconds on two CPU cores."""
FEW_WITHOUT_PAST = 10
"""Missing velocities are reported after this number of results in a row without a past frame."""
_DEVICE_WORDS = ('CUDA', 'cuDNN', 'CUBLAS', 'cublas', 'allocate memory')


class DeviceFailedError(Exception):
    """The device failed twice in a row; the message names the error and the remedy."""


def is_device_failure(error: Exception) -> bool:
    """Return True if ``error`` comes from the device or its memory, not from the image set."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _DEVICE_WORDS)


class Worker:
    """Runs the detector in its own thread, which receives image sets through one slot."""

    def __init__(
        self,
        detector: Detector,
        builder: FrameBuilder,
        settings: Callable[[], Settings],
        publish: Callable[[DetectionResult], None],
        monitor: Monitor,
        on_device_failure: Callable[[str], None],
    ):
        """Start the thread.

        Args:
            detector: the detector, which only this thread uses.
            builder: builds frames from image sets.
            settings: returns the current settings.
            publish: called with each result; must not block.
            monitor: receives the outcome of every image set.
            on_device_failure: called with a message when the thread ends because the device
                failed.
        """
        self._detector, self._builder, self._settings = detector, builder, settings
        self._publish, self._monitor, self._on_device_failure = publish, monitor, on_device_failure
        self._rig_check = RigCheck(detector.config.image)
        self._pose_check = PoseCheck()
        self._stopping = threading.Event()
        self._busy_since: float | None = None
        self._without_past = self._replaced_before = 0
        self._thread: SlotThread[ImageSet] = SlotThread('detection', self._run)

    def put(self, images: ImageSet) -> None:
        """Pass ``images`` to the thread, in place of an earlier set that is still waiting."""
        self._monitor.set_arrived(images.spread_s)
        if self._thread.put(images):
            self._monitor.set_dropped('replaced')

    def check(self) -> None:
        """Report a detection that takes too long. The executor's thread calls this method, because
        the detection thread may hang.
        """
        since = self._busy_since
        busy_s = 0.0 if since is None else time.monotonic() - since
        if busy_s > STALL_S:
            sentence = (
                f'{self._detector.device} has worked on an image set for {busy_s:.0f} s: it '
                'hangs or is too slow, and no detections are published; restart the node, or use '
                'a smaller model'
            )
            self._monitor.report('stalled', 'sets', ERROR, sentence)
        else:
            self._monitor.solved('stalled')

    def stop(self, discard: bool, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """End the thread; see ``SlotThread.stop`` for the arguments. The result of the image set
        in progress is not published if ``discard`` is True or the thread does not end in time.
        """
        if discard:
            self._stopping.set()
        self._thread.stop(discard, timeout_s)
        if self._thread.is_alive():
            self._stopping.set()

    def is_alive(self) -> bool:
        """Return True if the thread still uses the detector."""
        return self._thread.is_alive()

    def _run(self, sets: Iterator[ImageSet]) -> None:
        try:
            self._process_all(sets)
        except DeviceFailedError as error:
            self._monitor.set_dropped('error')
            self._on_device_failure(str(error))
        finally:
            self._builder.close()

    def _process_all(self, sets: Iterator[ImageSet]) -> None:
        for images in sets:
            self._busy_since = time.monotonic()
            try:
                self._process(images)
            except DeviceFailedError:
                raise
            except Exception as error:  # an exception for one image set must not end the thread
                self._detector.reset()
                self._monitor.set_dropped('error')
                self._monitor.report(
                    'error',
                    'sets',
                    ERROR,
                    'detection failed for an image set '
                    f'({type(error).__name__}: {error}); report this error if it repeats',
                )
            self._busy_since = None

    def _process(self, images: ImageSet) -> None:
        started = time.monotonic()
        built = self._builder.build(images, self._stopping)
        try:
            if built.frame is not None:
                self._detect_in(built.frame, built, images.received, started)
        finally:  # last, because the publication must not wait for the reports
            self._report_cameras(images, built)

    def _detect_in(self, frame: Frame, built: BuiltFrame, received: float, started: float) -> None:
        """Detect, publish, and report the use of the past frame; times are in seconds."""
        # Parameters may change while the node is active; the detector uses the current values.
        settings = self._settings()
        self._detector.score_threshold = settings.lowest_threshold
        self._detector.keep_depth = settings.publish_depth_points
        self._drop_past_frames_after_jump(frame)
        height_m = settings.base_frame_height_m
        ready = time.monotonic()
        detections = detections_in_base(self._detect(frame_on_ground(frame, height_m)), height_m)
        if self._stopping.is_set():  # the result must not be published; see stop()
            return
        placement = self._placement(detections.stamp_ns)
        if placement is None:
            return
        seconds = {
            'waiting': started - received,
            **built.seconds,
            'checks': ready - started - sum(built.seconds.values()),
            **detections.stage_seconds,
        }
        self._monitor.set_processed()
        self._publish(self._result(detections, frame, placement, received, seconds))
        self._monitor.solved('error', 'device')
        self._report_fusion(detections, built.no_poses)
        self._report_tracking(built.no_poses)

    def _result(
        self,
        detections: Detections3D,
        frame: Frame,
        placement: Placement,
        received: float,
        seconds: dict[str, float],
    ) -> DetectionResult:
        covariance = self._detector.covariance(detections)
        depth, config = self._detector.depth, self._detector.config
        return DetectionResult(
            detections, covariance, frame, depth, config, placement, received, seconds
        )

    def _placement(self, stamp_ns: int) -> Placement | None:
        """Return the tf frame of the outputs. If tf does not contain this frame, drop the image
        set and return None.
        """
        settings = self._settings()
        frame_id = settings.output_frame or settings.base_frame
        pose = None
        try:
            if frame_id != settings.base_frame:
                pose = self._builder.pose_in(frame_id, stamp_ns)
        except TransformMissingError as error:
            remedy = f'publish this transform, or set output_frame to {settings.base_frame}'
            sentence = f'{error}, so nothing can be published in {frame_id}: {remedy}'
            self._monitor.set_dropped('no_output_frame')
            self._monitor.report('output_frame', 'tf', ERROR, sentence)
            return None
        self._monitor.solved('output_frame')
        return Placement(frame_id, pose)

    def _detect(self, frame: Frame) -> Detections3D:
        """Return the detections in ``frame``. If the device fails, drop the past frames, free the
        memory of the device and try once more.
        """
        try:
            return self._detector(frame)
        except Exception as error:
            if not is_device_failure(error):
                raise
            self._monitor.report(
                'device',
                'node',
                WARN,
                f'{self._detector.device} failed, trying once more: {_first_line(error)}',
            )
        self._detector.reset()
        with suppress(RuntimeError):  # freeing the memory of a lost device also fails
            torch.cuda.empty_cache()
        try:
            return self._detector(frame)
        except Exception as error:
            remedy = (
                'free the memory of the device or repair the device, then configure and activate '
                'the node again'
            )
            sentence = (
                f'{self._detector.device} failed twice, so the node stopped detection: '
                f'{_first_line(error)}; {remedy}'
            )
            raise DeviceFailedError(sentence) from error

    def _drop_past_frames_after_jump(self, frame: Frame) -> None:
        """Drop the past frames if the ego pose jumps, because their features would be fused at
        wrong positions.
        """
        pose = None if frame.world_from_ego is None else frame.world_from_ego[0]
        jump = self._pose_check.jump(frame.stamp_ns, pose)
        if jump is None:
            self._monitor.solved('pose_jump')
            return
        self._detector.reset()
        sentence = f'{jump.description}: past frames are dropped; check the localization'
        self._monitor.report('pose_jump', 'tf', WARN, sentence)

    def _report_cameras(self, images: ImageSet, built: BuiltFrame) -> None:
        """Report the problems of each camera of the image set, and why the set was rejected."""
        cameras = [self._settings().cameras[index] for index in images.cameras]
        for camera in cameras:
            fault = built.faults.get(camera)
            self._monitor.solved(
                *(
                    f'{reason}/{camera}'
                    for reason in CAMERA_FAULTS
                    if fault is None or fault.reason != reason
                )
            )
            if fault is not None:
                area = 'tf' if fault.reason == 'no_extrinsics' else 'cameras'
                self._monitor.report(f'{fault.reason}/{camera}', area, ERROR, f'{fault}')
            if camera in built.warnings:
                self._monitor.report(
                    f'calibration/{camera}', 'cameras', WARN, built.warnings[camera]
                )
            else:
                self._monitor.solved(f'calibration/{camera}')
        self._monitor.cameras_used(built.frame.rig.names if built.frame else (), built.faults)
        if built.rejection:
            reason, sentence = built.rejection
            self._monitor.set_dropped(reason)
            self._monitor.report('rejected', 'sets', ERROR, sentence)
            return
        self._monitor.solved('rejected')
        if built.no_poses:
            self._monitor.report('ego_pose', 'tf', WARN, built.no_poses)
        else:
            self._monitor.solved('ego_pose')
        if built.frame is not None:
            self._report_rig(frame_on_ground(built.frame, self._settings().base_frame_height_m))

    def _report_rig(self, frame: Frame) -> None:
        """Report a rig that differs from the training rig. ``changed_warning`` returns None if
        this report is already up to date, and an empty text if no camera differs.
        """
        sizes = [(image.shape[1], image.shape[0]) for image in frame.images]
        warning = self._rig_check.changed_warning(frame.rig, sizes)
        if warning:
            self._monitor.report('unlike_training', 'cameras', WARN, warning)
        elif warning is not None:
            self._monitor.solved('unlike_training')

    def _report_fusion(self, detections: Detections3D, no_poses: str | None) -> None:
        """Report missing velocities if the network needs a past frame, ego poses are known, and
        several results in a row have no past frame. Set diagnostic values of the past frame.

        Args:
            detections: boxes, with the stamp of the past frame.
            no_poses: why the frame has no ego poses; None if it has ego poses.
        """
        is_expected = self._detector.config.key_frames == 2 and not no_poses
        is_missing = is_expected and detections.past_stamp_ns is None
        self._without_past = self._without_past + 1 if is_missing else 0
        replaced = self._monitor.counts()['dropped_replaced']
        if self._without_past == 0:
            self._replaced_before = replaced
            self._monitor.solved('no_past_frame')
        elif self._without_past >= FEW_WITHOUT_PAST:
            remedy = (
                'the detector is too slow and drops image sets: use a GPU or a smaller model'
                if replaced > self._replaced_before
                else 'publish images at 2 Hz, or at 4 Hz or more'
            )
            sentence = (
                f'at least the last {FEW_WITHOUT_PAST} image sets had no past frame 0.4 to 0.6 s '
                f'old, so the velocities of their boxes are NaN: {remedy}'
            )
            self._monitor.report('no_past_frame', 'sets', WARN, sentence)
        if detections.past_stamp_ns is not None:
            age_s = (detections.stamp_ns - detections.past_stamp_ns) * 1e-9
            self._monitor.fact('tf', temporal_fusion='on', past_frame_age_s=f'{age_s:.3f}')
        elif self._detector.config.key_frames == 1:
            self._monitor.fact(
                'tf', temporal_fusion='off: the model has one key frame', past_frame_age_s='none'
            )
        else:
            reason = no_poses or 'no past frame is 0.4 to 0.6 s old'
            self._monitor.fact('tf', temporal_fusion=f'off: {reason}', past_frame_age_s='none')
        if self._detector.config.stereo is not None:
            self._report_stereo(self._detector.baseline_m)

    def _report_stereo(self, baseline_m: float | None) -> None:
        """Set diagnostic values that show whether the cameras moved far enough between the two
        frames for stereo depth.

        A vehicle that stands still is normal, so this is not reported as a problem.
        """
        if baseline_m is None:
            stereo = 'off: there is no past frame'
        elif baseline_m < STEREO_BASELINE_M:
            reason = f'the cameras moved less than {STEREO_BASELINE_M} m since the past frame'
            stereo = f'no baseline: {reason}'
        else:
            stereo = 'on'
        shown = 'none' if baseline_m is None else f'{baseline_m:.3f}'
        self._monitor.fact('tf', stereo=stereo, stereo_baseline_m=shown)

    def _report_tracking(self, no_poses: str | None) -> None:
        is_wanted = self._settings().publish_tracks
        reason = no_poses if is_wanted else 'publish_tracks is false'
        self._monitor.fact('tf', tracking=f'off: {reason}' if reason else 'on')


def _first_line(error: Exception) -> str:
    return (
        f'{type(error).__name__}: '
        f'{str(error).strip().splitlines()[0] if str(error).strip() else ""}'
    )
