"""Writes one scene as one bag. The messages of all sensors are written in order of time."""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image as PillowImage

from bevdepth_core.geometry import quaternion_from_rotation
from bevdepth_core.nuscenes.recording import (
    CAMERA_MODALITY,
    AnnotatedMoment,
    SceneRecording,
    SensorStream,
)
from bevdepth_ros.bags.messages import Annotated
from bevdepth_ros.bags.writer import MAP_FRAME, BagWriter

LIDAR_COLUMNS = 5
"""Floats per point in a .pcd.bin file: x, y, z, intensity, ring."""


class SceneError(Exception):
    """A scene cannot be converted to a bag; the message gives the reason."""


@dataclass(frozen=True)
class Target:
    """Output folder and format of bags.

    Attributes:
        dataroot: root of the dataset; file names of recordings are relative to this folder.
        out: folder of the bags.
        storage: ``sqlite3`` or ``mcap``.
        raw: True to write decoded images in place of the JPEG files.
    """

    dataroot: Path
    out: Path
    storage: str = 'mcap'
    raw: bool = False


def key_frames_only(recording: SceneRecording) -> SceneRecording:
    """Return the recording without sweeps. As in nuScenes, the files of key frames are in the
    folder ``samples``, and the files of sweeps are in other folders.
    """
    return replace(recording, streams=tuple(_key_frames(stream) for stream in recording.streams))


def _key_frames(stream: SensorStream) -> SensorStream:
    keys = [
        index
        for index, name in enumerate(stream.filenames)
        if PurePosixPath(name).parts[0] == 'samples'
    ]
    filenames = tuple(stream.filenames[index] for index in keys)
    return replace(stream, stamps_ns=stream.stamps_ns[keys], filenames=filenames)


def write_bag(
    recording: SceneRecording, target: Target, on_file: Callable[[], object] = lambda: None
) -> Path:
    """Write one scene and return the folder of its bag. An older bag in this folder is replaced
    when the new bag is complete.

    Args:
        recording: the scene.
        target: output folder and format.
        on_file: called before each sensor file is read. If this function raises an exception, the
            conversion stops and no partial bag remains.

    Raises:
        SceneError: a file is invalid, or cannot be read or written.
    """
    path = target.out / recording.name
    try:
        with BagWriter(path, target.storage) as bag:
            bag.write_mounts(recording.mounts, int(recording.pose_stamps_ns[0]))
            for _, _, write in heapq.merge(
                *_events(bag, recording, target, on_file), key=lambda event: event[:2]
            ):
                write()
    except (OSError, ValueError, sqlite3.Error) as error:
        raise SceneError(
            f'{recording.name} was not written to {path}: {error}; the partial bag was removed'
        ) from error
    return path


def _events(
    bag: BagWriter, recording: SceneRecording, target: Target, on_file: Callable[[], object]
) -> Iterator[Iterator[tuple]]:
    """Yield one stream of events for the ego poses, one for each sensor, and one for the
    annotations.

    A stream is in order of time. An event is a tuple of stamp in ns, rank, and a function that
    writes the messages. Events with equal stamps are written in the order of their ranks.
    """
    poses = zip(recording.pose_stamps_ns.tolist(), recording.poses, strict=True)
    yield (
        (stamp_ns, 0, lambda s=stamp_ns, p=pose: bag.write_ego_pose(s, p.matrix()))
        for stamp_ns, pose in poses
    )
    for rank, stream in enumerate(recording.streams, start=1):
        yield _stream_events(bag, stream, rank, target, on_file)
    yield (
        (moment.stamp_ns, 1000, lambda m=moment: _write_annotations(bag, m))
        for moment in recording.moments
    )


def _stream_events(
    bag: BagWriter,
    stream: SensorStream,
    rank: int,
    target: Target,
    on_file: Callable[[], object],
) -> Iterator[tuple]:
    write = _write_image if stream.modality == CAMERA_MODALITY else _write_points

    def convert(stamp_ns: int, filename: str) -> None:
        on_file()
        write(bag, stream, stamp_ns, target.dataroot / filename, target.raw)

    for stamp_ns, filename in zip(stream.stamps_ns.tolist(), stream.filenames, strict=True):
        yield stamp_ns, rank, lambda s=stamp_ns, f=filename: convert(s, f)


def _write_image(
    bag: BagWriter, stream: SensorStream, stamp_ns: int, path: Path, raw: bool
) -> None:
    name, distortion = stream.channel, stream.distortion
    bag.write_camera_info(name, stamp_ns, stream.intrinsics, *stream.image_size, distortion)
    rectified = not any(distortion)
    if raw:
        with PillowImage.open(path) as image:
            bag.write_raw_image(name, stamp_ns, np.asarray(image.convert('RGB')), rectified)
    else:
        bag.write_compressed_image(name, stamp_ns, path.read_bytes(), rectified)


def _write_points(
    bag: BagWriter, stream: SensorStream, stamp_ns: int, path: Path, raw: bool
) -> None:
    values = np.fromfile(path, np.float32)
    if values.size % LIDAR_COLUMNS:
        raise ValueError(
            f'{path} is not a lidar file of {LIDAR_COLUMNS} floats per point: it contains '
            f'{values.size} floats'
        )
    bag.write_point_cloud(stream.channel, stamp_ns, values.reshape(-1, LIDAR_COLUMNS))


def _write_annotations(bag: BagWriter, moment: AnnotatedMoment) -> None:
    poses = moment.poses_in_ego()
    turns = np.array([quaternion_from_rotation(pose[:3, :3]) for pose in poses]).reshape(-1, 4)
    names = (moment.class_names, moment.instances)
    bag.write_annotations(moment.stamp_ns, Annotated(poses[:, :3, 3], moment.size, turns, *names))
    bag.write_annotation_markers(
        moment.stamp_ns,
        MAP_FRAME,
        Annotated(moment.center, moment.size, moment.quaternion, *names),
    )
