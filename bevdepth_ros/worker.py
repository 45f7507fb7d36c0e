"""The thread that turns the newest set of images into published detections."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bevdepth_core.inference import Detector
from bevdepth_core.types import Detections3D, Frame
from bevdepth_ros.diagnostics import ERROR, WARN, Monitor
from bevdepth_ros.frames import FRAME_WARNINGS, FrameBuilder, FrameRefusedError
from bevdepth_ros.parameters import Settings
from bevdepth_ros.process import interruptible
from bevdepth_ros.synchronizer import ImageSet, LatestSlot

_SET_PROBLEMS = ('bad_image', 'no_camera_info', 'no_extrinsics', 'error')


class Worker:
    """Owns the detector while active: one thread, one slot, no other lock."""

    def __init__(
        self,
        detector: Detector,
        builder: FrameBuilder,
        settings: Callable[[], Settings],
        publish: Callable[[Detections3D, Frame], None],
        monitor: Monitor,
    ):
        """Start the thread.

        Args:
            detector: used by this thread alone.
            builder: makes frames of sets.
            settings: returns the present settings.
            publish: sends an answer and the frame that it is for out.
            monitor: is told of every set's fate.
        """
        self._detector, self._builder, self._settings = detector, builder, settings
        self._publish, self._monitor = publish, monitor
        self._slot: LatestSlot[ImageSet] = LatestSlot()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name='detection', daemon=True)
        self._thread.start()

    def put(self, images: ImageSet) -> None:
        """Hand over a set; it replaces one that still waits."""
        self._monitor.set_arrived(images.spread_s)
        if self._slot.put(images):
            self._monitor.set_dropped('replaced')

    def stop(self, discard: bool, timeout_s: float | None = None) -> None:
        """End the thread.

        Args:
            discard: leave unanswered what is not published yet.
            timeout_s: longest wait for the answer that is being worked on, seconds; None waits for its end or a signal.
        """
        if discard:
            self._stopping.set()
        self._slot.close(discard)
        if timeout_s is not None:
            self._thread.join(timeout_s)
            return
        with interruptible():
            self._thread.join()

    def _run(self) -> None:
        while (images := self._slot.take()) is not None:
            try:
                self._answer(images)
            except FrameRefusedError as refusal:
                self._drop(refusal.reason, str(refusal))
            except Exception as error:  # whatever one set does must not end the thread
                self._detector.reset()
                self._drop('error', f'detection failed: {type(error).__name__}: {error}')

    def _answer(self, images: ImageSet) -> None:
        started = time.monotonic()
        frame, warnings = self._builder.build(images, self._stopping)
        self._tell_warnings(warnings)
        built = time.monotonic()
        self._detector.score_threshold = self._settings().score_threshold
        self._detector.keep_depth = self._settings().publish_depth_points
        detections = self._detector(frame)
        detected = time.monotonic()
        if self._stopping.is_set():
            return
        self._publish(detections, frame)
        published = time.monotonic()
        self._monitor.set_answered({
            'queue': started - images.received, 'frame': built - started, **detections.stage_seconds,
            'publish': published - detected, 'total': published - images.received,
        })  # fmt: skip
        self._monitor.solved(*_SET_PROBLEMS)
        self._tell_fusion(detections, warnings)

    def _drop(self, reason: str, sentence: str) -> None:
        self._monitor.set_dropped(reason)
        self._monitor.report(reason, 'tf' if reason == 'no_extrinsics' else 'sets', ERROR, sentence)

    def _tell_warnings(self, warnings: dict[str, str]) -> None:
        for key in FRAME_WARNINGS:
            if key in warnings:
                self._monitor.report(key, 'tf' if key == 'ego_pose' else 'cameras', WARN, warnings[key])
            else:
                self._monitor.solved(key)

    def _tell_fusion(self, detections: Detections3D, warnings: dict[str, str]) -> None:
        if detections.past_stamp_ns is not None:
            age_s = (detections.stamp_ns - detections.past_stamp_ns) * 1e-9
            self._monitor.fact('tf', temporal_fusion='on', past_frame_age_s=f'{age_s:.3f}')
        elif self._detector.config.key_frames == 1:
            self._monitor.fact('tf', temporal_fusion='off: the model has one key frame', past_frame_age_s='none')
        else:
            why = warnings.get('ego_pose', 'no frame about 0.5 s back is remembered yet')
            self._monitor.fact('tf', temporal_fusion=f'off: {why}', past_frame_age_s='none')
