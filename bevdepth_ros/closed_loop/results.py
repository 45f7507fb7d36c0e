"""Converts the results of the detector during a replay to entries of the nuScenes result file."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from message_filters import SimpleFilter
from rclpy.logging import get_logger
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo
from vision_msgs.msg import Detection3DArray

from bevdepth_core.geometry import quaternion_from_rotation
from bevdepth_core.nuscenes.classes import CAMERAS
from bevdepth_core.nuscenes.records import Pose, SampleRecord
from bevdepth_core.nuscenes.result_file import result_boxes
from bevdepth_core.nuscenes.tracking_evaluation import tracking_entries
from bevdepth_core.types import Detections3D
from bevdepth_ros.bags.reader import Bag
from bevdepth_ros.bags.recorded_transforms import RecordedTransforms
from bevdepth_ros.bags.writer import MAP_FRAME, camera_info_topic
from bevdepth_ros.closed_loop.run import (
    SAME_STAMP_NS,
    ClosedLoopError,
    ImageTimes,
    PublishedResults,
)
from bevdepth_ros.detections.readings import boxes_from_array, detections_from_cloud
from bevdepth_ros.rig.settings import RigSettings
from bevdepth_ros.rig.stamps import stamp_ns as stamp_ns_of
from bevdepth_ros.rig.synchronizer import ImageSet, ImageSetSynchronizer
from bevdepth_ros.rig.transforms import TransformMissingError

LATE_NS = 500_000_000
"""A result is late if it arrives more than this time after its stamp, in nanoseconds of the
replay's clock. After this time, the next key frame is due."""
POSE_CLAMP_S = 0.06
"""If the stamp of a result is before the first ego pose or after the last ego pose by at most this
time, in seconds, the first or the last ego pose is used. The value is the default of the node's
parameter ``pose_clamp_s``."""
MAX_BOXES = 500
"""Largest number of boxes per sample that the devkit accepts."""
FLOAT32_TOLERANCE = 1e-3
"""Largest difference between a number of a box on ``~/objects``, which has float32, and the same
number on ``~/detections``, which has float64."""


@dataclass(frozen=True)
class SceneResults:
    """The results of a scene's key frames.

    Attributes:
        entries: entries of the result file by sample token; empty for samples without a result.
        tracks: entries of the tracking result by sample token; empty for samples without tracks.
        missed: tokens of samples without a result.
        late: tokens of samples whose result arrived more than half a second after the exposure of
            the images, measured with the clock of the replay.
        unfused: tokens of samples whose boxes have no velocities, because the node had no past
            frame.
        diagnostics: last values of the node's diagnostics by area.
    """

    entries: dict[str, list[dict]]
    tracks: dict[str, list[dict]]
    missed: tuple[str, ...]
    late: tuple[str, ...]
    unfused: tuple[str, ...]
    diagnostics: dict[str, dict[str, str]]


def mean_exposure_ns(record: SampleRecord) -> int:
    """Return the mean exposure time of the cameras, which the node uses as the stamp of the result
    for this key frame.
    """
    return _mean_ns(np.array([camera.stamp_ns for camera in record.cameras]))


def match(key_frames: Sequence[SampleRecord], stamps_ns: Sequence[int]) -> dict[str, int]:
    """Map the sample token of each key frame to the stamp of its result. Key frames without a
    result are left out.
    """
    matched = {}
    for record in key_frames:
        wanted = mean_exposure_ns(record)
        distances = [(abs(stamp - wanted), stamp) for stamp in stamps_ns]
        distance, nearest = min(distances, default=(math.inf, 0))
        if distance <= SAME_STAMP_NS:
            matched[record.token] = nearest
    return matched


def scene_results(
    key_frames: Sequence[SampleRecord], published: PublishedResults, transforms: RecordedTransforms
) -> SceneResults:
    """Return the results of a scene's key frames, transformed to the world with the ego pose at
    the stamp of each result.

    Raises:
        ClosedLoopError: a message is invalid, ``~/detections`` and ``~/objects`` have different
            boxes, or tf does not link the frame of a result to the map.
    """
    matched = match(key_frames, published.stamps_ns())
    entries: dict[str, list[dict]] = {record.token: [] for record in key_frames}
    tracks: dict[str, list[dict]] = {record.token: [] for record in key_frames}
    unfused = []
    for token, stamp_ns in matched.items():
        detections = detections_at(published, stamp_ns)
        pose = _pose(published, stamp_ns, transforms)
        entries[token] = result_boxes(token, detections, pose)[:MAX_BOXES]
        if stamp_ns in published.tracks:
            tracks[token] = track_entries(token, published.tracks[stamp_ns], pose)
        if len(detections) and detections.past_stamp_ns is None:
            unfused.append(token)
    return SceneResults(
        entries,
        tracks,
        tuple(token for token in entries if token not in matched),
        tuple(
            token
            for token, stamp_ns in matched.items()
            if published.arrival_ns[stamp_ns] - stamp_ns > LATE_NS
        ),
        tuple(unfused),
        published.diagnostics,
    )


def detections_at(published: PublishedResults, stamp_ns: int) -> Detections3D:
    """Return the detections with this stamp, after comparing ``~/detections`` and ``~/objects``.

    Raises:
        ClosedLoopError: a message is invalid, or the two messages do not contain the same boxes.
    """
    try:
        found = detections_from_cloud(published.objects[stamp_ns], published.class_names)
        boxes, names, scores, _ = boxes_from_array(published.detections[stamp_ns])
    except ValueError as error:
        raise ClosedLoopError(f'the result at {stamp_ns} ns cannot be read: {error}') from error
    same = names == [found.class_names[label] for label in found.labels] and all(
        np.allclose(value, other, rtol=0, atol=FLOAT32_TOLERANCE)
        for value, other in (
            (boxes.center, found.boxes.center),
            (boxes.size, found.boxes.size),
            (scores, found.scores),
        )
    )
    if not same:
        raise ClosedLoopError(
            f'~/detections and ~/objects at {stamp_ns} ns do not contain the same boxes'
        )
    return found


def track_entries(token: str, message: Detection3DArray, world_from_ego: Pose) -> list[dict]:
    """Return the tracks of ``~/tracks`` as entries of the nuScenes tracking result, best score
    first. The message has no velocities; the official scores of tracks do not use them.

    Raises:
        ClosedLoopError: the message cannot be read.
    """
    try:
        boxes, names, scores, ids = boxes_from_array(message)
    except ValueError as error:
        raise ClosedLoopError(f'the tracks of sample {token} cannot be read: {error}') from error
    classes = tuple(dict.fromkeys(names))
    labels = np.array([classes.index(name) for name in names], np.int64)
    found = Detections3D(boxes, scores, labels, classes, stamp_ns_of(message))
    entries = tracking_entries(token, found, ids, world_from_ego)
    return sorted(entries, key=lambda entry: -entry['tracking_score'])[:MAX_BOXES]


def _pose(published: PublishedResults, stamp_ns: int, transforms: RecordedTransforms) -> Pose:
    try:
        matrix = transforms.lookup_at(
            MAP_FRAME, published.objects[stamp_ns].header.frame_id, stamp_ns, POSE_CLAMP_S
        )
    except TransformMissingError as error:
        raise ClosedLoopError(
            f'the result at {stamp_ns} ns cannot be transformed to the world: {error}'
        ) from error
    return Pose(np.array(quaternion_from_rotation(matrix[:3, :3])), matrix[:3, 3])


def read_image_sets(bag: Path) -> list[ImageTimes]:
    """Return the times of the image sets that the node will form from a bag of
    ``nuscenes_to_bag``, in order of time.

    Raises:
        ClosedLoopError: the bag contains no image set.
    """
    topics = [camera_info_topic(camera) for camera in CAMERAS]
    sets: list[ImageTimes] = []
    settings = RigSettings()
    inputs = {topic: SimpleFilter() for topic in topics}
    synchronizer = ImageSetSynchronizer(
        list(inputs.values()), settings.sync_queue_size, settings.sync_slop_s
    )
    synchronizer.registerCallback(lambda images: sets.append(_image_times(images)))
    with Bag(bag, get_logger('bag').warning) as recording:
        for topic, _, data in recording.messages(topics):
            inputs[topic].signalMessage(deserialize_message(data, CameraInfo))
    synchronizer.flush()
    if not sets:
        raise ClosedLoopError(
            f'{bag} contains no image set: it must contain CameraInfo of all cameras, for '
            f'example on {topics[0]}; write the bag with nuscenes_to_bag'
        )
    return sets


def _image_times(images: ImageSet) -> ImageTimes:
    return ImageTimes(_mean_ns(images.stamps_ns), int(images.stamps_ns.max()))


def _mean_ns(stamps_ns: np.ndarray) -> int:
    return int(stamps_ns[0]) + round(float((stamps_ns - stamps_ns[0]).mean()))
