"""Combines images, detections and annotations of one time into a ``Scene`` that can be rendered.

This module is used for live topics and for recordings. It creates no node.

The terms of this module:

* Recording: data whose stamps increase. When a replay starts again, the stamps go back, and a new
  recording starts.
* Annotation: annotated boxes at one time. It is unplaced until its boxes have been transformed
  to the fixed frame. The transform may arrive later than the annotation.
* Clamping: if tf does not have a pose at a stamp, but at most ``POSE_CLAMP_S`` earlier or later,
  the pose from that time is used.
"""

from __future__ import annotations

import math
import threading
import time
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from vision_msgs.msg import Detection3DArray, LabelInfo

from bevdepth_core.config import NUSCENES_CLASSES
from bevdepth_core.types import Detections3D, Frame
from bevdepth_core.visualization import DepthMaps, GroundTruth
from bevdepth_ros.detections.readings import boxes_from_array, class_names, detections_from_cloud
from bevdepth_ros.rendering.annotations import Annotation, AnnotationHistory, transformed
from bevdepth_ros.rig.camera_timing import LATE_NS
from bevdepth_ros.rig.frames import FrameBuilder
from bevdepth_ros.rig.settings import RigSettings
from bevdepth_ros.rig.stamps import stamp_ns
from bevdepth_ros.rig.synchronizer import ImageSet
from bevdepth_ros.rig.transforms import TransformMissingError, Transforms

IMAGES_KEPT = {'compressed': 64, 'raw': 8}
"""Number of images per camera that are stored until their detections arrive, by
``image_transport``. It is also the number of stored detections. 64 JPEG images are 5 s at 12 Hz.
Fewer raw images are stored, because they are large."""
SAME_SET_NS = 60_000_000
"""An image belongs to detections if the two stamps differ by at most this, in nanoseconds. In
nuScenes, the images of a set are exposed within 43 ms, and image sets are 83 ms apart."""
POSE_CLAMP_S = 0.2
"""Largest time, in seconds, between an image and the ego pose that is used for it."""
TF_TIMEOUT_NS = 400_000_000
"""Detections wait for their ego pose only until there are detections that are newer by more than
this, in nanoseconds. Annotations wait for the transform at their stamp until a scene is newer by
more than this, and then use clamping."""
ANNOTATIONS_KEPT = 4096
"""Largest number of stored annotations, and of unplaced annotations."""
SHOWN_SCORE = 0.35
"""Default of the lowest score of a rendered box. Boxes with a lower score are mostly duplicates of
other boxes."""

_WITHOUT_WAITING = threading.Event()
_WITHOUT_WAITING.set()
"""An event that is always set. With it, the frame builder does not wait for missing data."""


@dataclass(frozen=True)
class Scene:
    """Images of one time, with detections and annotations.

    Attributes:
        frame: undistorted images, perhaps at a reduced size, with the calibration of that size.
        detections: detections of these images; None if there are none.
        ground_truth: annotated boxes in the base frame; None if unknown.
        latency_s: time from the arrival of the last image to the arrival of the detections,
            seconds; None if unknown.
        depth: depth that the network predicted for these images; None if unknown.
    """

    frame: Frame
    detections: Detections3D | None
    ground_truth: GroundTruth | None
    latency_s: float | None
    depth: DepthMaps | None = None

    @property
    def stamp_ns(self) -> int:
        """Time of the boxes."""
        return self.frame.stamp_ns if self.detections is None else self.detections.stamp_ns


@dataclass(frozen=True)
class _Arrival:
    """A stored message, with its stamp and its arrival time in seconds of time.monotonic().
    ``frame_id`` is the tf frame of detections. An empty name means the base frame.
    """

    stamp_ns: int
    message: CompressedImage | Image | Detections3D
    arrived: float
    frame_id: str = ''


class SceneStore:
    """Stores recent messages and combines them into scenes. Only one thread may use a store.

    Attributes:
        infos: the newest CameraInfo of each camera.
        recording: number of the recording that the images belong to. The first recording has the
            number 0.
        detections_arrived: time.monotonic() at the last arrival of detections; -inf if none have
            arrived.
    """

    def __init__(self, settings: RigSettings, transforms: Transforms, panel_width: int):
        """Read the calibration files.

        Args:
            settings: cameras and frames.
            transforms: looks up extrinsics and ego poses.
            panel_width: images may be decoded at a half, a quarter or an eighth of their size, but
                not narrower than this, in pixels.

        Raises:
            ValueError: a calibration file is invalid.
            OSError: a calibration file cannot be read.
        """
        self._settings, self._transforms = settings, transforms
        self._longest = IMAGES_KEPT[settings.image_transport]
        self._names: tuple[str, ...] = NUSCENES_CLASSES
        shown = replace(settings, min_cameras=1, pose_clamp_s=POSE_CLAMP_S)
        self._frames = FrameBuilder(lambda: shown, transforms, min_width=panel_width)
        self.infos: dict[str, CameraInfo] = {}
        self.recording = 0
        self.detections_arrived = -math.inf
        self.clear()

    def close(self) -> None:
        """End the threads that decode images."""
        self._frames.close()

    def clear(self) -> None:
        """Drop images, detections and annotations."""
        self._images: dict[str, deque[_Arrival]] = {
            camera: deque(maxlen=self._longest) for camera in self._settings.cameras
        }
        self._detections: deque[_Arrival] = deque(maxlen=self._longest)
        self._annotations = AnnotationHistory(ANNOTATIONS_KEPT)
        self._unplaced: deque[tuple[str, Annotation]] = deque(maxlen=ANNOTATIONS_KEPT)

    def add_image(self, camera: str, message: CompressedImage | Image) -> None:
        """Add an image. An image that is older than the last image of its camera is dropped. If it
        is older by more than ``LATE_NS``, it starts a new recording instead.
        """
        arrival = _Arrival(stamp_ns(message), message, time.monotonic())
        images = self._images[camera]
        back_ns = images[-1].stamp_ns - arrival.stamp_ns if images else 0
        if 0 < back_ns <= LATE_NS:
            return
        if back_ns > 0:
            self._start_new_recording(arrival.stamp_ns)
        self._images[camera].append(arrival)

    def _start_new_recording(self, stamp_ns: int) -> None:
        """Drop the data of the last recording. Annotations of the new recording, which may have
        arrived before its first image, are kept.
        """
        new = [
            (frame, annotation)
            for frame, annotation in self._unplaced
            if annotation.stamp_ns <= stamp_ns + LATE_NS
        ]
        self.clear()
        self.recording += 1
        self._unplaced.extend(new)

    def add_info(self, camera: str, message: CameraInfo) -> None:
        """Store the calibration of a camera."""
        self.infos[camera] = message
        self._frames.take_info(camera, message)

    def add_label_info(self, message: LabelInfo) -> None:
        """Store the class names."""
        self._names = class_names(message)

    def add_objects(self, message: PointCloud2) -> None:
        """Add detections; raise ValueError if the message does not contain detections."""
        self.add_detections(detections_from_cloud(message, self._names), message.header.frame_id)

    def add_detections(self, detections: Detections3D, frame_id: str = '') -> None:
        """Add detections in the tf frame ``frame_id``. An empty name means the base frame."""
        self.detections_arrived = time.monotonic()
        self._detections.append(
            _Arrival(detections.stamp_ns, detections, self.detections_arrived, frame_id)
        )

    def add_annotations(self, message: Detection3DArray) -> None:
        """Add annotated boxes in any frame that tf links to the fixed frame. Boxes of classes that
        are not in nuScenes are dropped.

        Raises:
            ValueError: the message does not contain valid boxes.
        """
        boxes, names, _, ids = boxes_from_array(message)
        known = [row for row, name in enumerate(names) if name in NUSCENES_CLASSES]
        labels = np.array([NUSCENES_CLASSES.index(names[row]) for row in known], int)
        annotation = Annotation(
            stamp_ns(message),
            boxes[np.array(known, int)],
            labels,
            tuple(ids[row] for row in known),
        )
        self._unplaced.append((message.header.frame_id, annotation))

    @property
    def detection_rate_hz(self) -> float | None:
        """Rate of the newest results in Hz; None until two results have arrived."""
        recent = [arrival.arrived for arrival in list(self._detections)[-10:]]
        return (
            (len(recent) - 1) / (recent[-1] - recent[0])
            if len(recent) > 1 and recent[-1] > recent[0]
            else None
        )

    def newest_detections_ns(self) -> int | None:
        """Return the stamp of the newest detections at which tf has the ego pose. If tf has the
        ego pose for none of the detections of the last ``TF_TIMEOUT_NS``, return the stamp of the
        newest detections. Return None if there are no detections.
        """
        if not self._detections:
            return None
        newest_ns = self._detections[-1].stamp_ns
        fixed, base = self._settings.fixed_frame, self._settings.base_frame
        recent = [
            arrival.stamp_ns
            for arrival in self._detections
            if newest_ns - arrival.stamp_ns <= TF_TIMEOUT_NS
        ]
        return next(
            (
                stamp
                for stamp in reversed(recent)
                if self._transforms.has_transform(fixed, base, stamp)
            ),
            newest_ns,
        )

    def newest_images_ns(self) -> int | None:
        """Return the latest stamp up to which every camera has sent its images. Cameras that have
        sent no image are left out. Return None before the first image.
        """
        newest = [images[-1].stamp_ns for images in self._images.values() if images]
        return min(newest) if newest else None

    def scene(self, stamp_ns: int, frame: Frame | None = None) -> Scene | None:
        """Return the scene at ``stamp_ns``, or None if no image near this stamp can be used.

        Args:
            stamp_ns: stamp of the detections, or of the images if there are no detections.
            frame: frame that the detector used; if None, a frame is built from the stored images.
        """
        arrivals = {
            index: image
            for index, camera in enumerate(self._settings.cameras)
            if (image := self._image_near(camera, stamp_ns))
        }
        frame = self._frame(arrivals) if frame is None else frame
        if frame is None:
            return None
        detections = next(
            (arrival for arrival in self._detections if arrival.stamp_ns == stamp_ns), None
        )
        newest = max((image.arrived for image in arrivals.values()), default=math.nan)
        return Scene(
            frame,
            None if detections is None else self._in_base(detections),
            self._ground_truth(stamp_ns),
            None if detections is None else detections.arrived - newest,
        )

    def _in_base(self, arrival: _Arrival) -> Detections3D | None:
        """Transform detections to the base frame; return None if tf does not link their frame to
        the base frame.
        """
        detections, base = arrival.message, self._settings.base_frame
        if arrival.frame_id in ('', base):
            return detections
        try:
            pose = self._transforms.lookup_at(
                base, arrival.frame_id, arrival.stamp_ns, POSE_CLAMP_S
            )
        except TransformMissingError:
            return None
        return replace(detections, boxes=transformed(detections.boxes, pose))

    def _frame(self, arrivals: dict[int, _Arrival]) -> Frame | None:
        """Return the frame of the images in ``arrivals``, whose keys are camera indices. Return
        None if no image can be used.
        """
        if not arrivals:
            return None
        messages = tuple(arrival.message for arrival in arrivals.values())
        stamps_ns = np.array([arrival.stamp_ns for arrival in arrivals.values()], np.int64)
        received = max(arrival.arrived for arrival in arrivals.values())
        return self._frames.build(
            ImageSet(tuple(arrivals), messages, stamps_ns, received), _WITHOUT_WAITING
        ).frame

    def _image_near(self, camera: str, stamp_ns: int) -> _Arrival | None:
        """Return the image of ``camera`` whose stamp is nearest to ``stamp_ns``; None if this
        stamp differs by more than ``SAME_SET_NS``.
        """
        images = self._images[camera]
        stamps = [image.stamp_ns for image in images]
        after = bisect_left(stamps, stamp_ns)
        near = [images[index] for index in (after - 1, after) if 0 <= index < len(images)]
        best = min(near, key=lambda image: abs(image.stamp_ns - stamp_ns), default=None)
        return best if best is not None and abs(best.stamp_ns - stamp_ns) <= SAME_SET_NS else None

    def _poses(self, stamps_ns: np.ndarray) -> np.ndarray | None:
        """Return the (N, 4, 4) ego poses at these (N,) stamps; None if an ego pose is missing."""
        return self._frames.poses(stamps_ns)[0]

    def _place_annotations(self, now_ns: int) -> None:
        """Transform the unplaced annotations to the fixed frame if tf has the transform at their
        stamps. If an annotation is older than the scene at ``now_ns`` by more than TF_TIMEOUT_NS,
        use clamping. Annotations without a transform stay unplaced.
        """
        for _ in range(len(self._unplaced)):
            frame, annotation = self._unplaced.popleft()
            clamp_s = POSE_CLAMP_S if now_ns - annotation.stamp_ns > TF_TIMEOUT_NS else 0.0
            try:
                world_from_source = self._transforms.lookup_at(
                    self._settings.fixed_frame, frame, annotation.stamp_ns, clamp_s
                )
            except TransformMissingError:
                self._unplaced.append((frame, annotation))
                continue
            self._annotations.add(
                replace(annotation, boxes=transformed(annotation.boxes, world_from_source))
            )

    def _ground_truth(self, stamp_ns: int) -> GroundTruth | None:
        """Return the annotated boxes at ``stamp_ns`` in the base frame; None if there are no
        annotations near this time, or if the ego pose is missing.
        """
        self._place_annotations(stamp_ns)
        if not len(self._annotations):
            return None
        poses = self._poses(np.array([stamp_ns]))
        return None if poses is None else self._annotations.at(stamp_ns, poses[0])
