r"""Writes the detections of every image set of a dataset, in key frames and sweeps, for
``bench_tracking``.

    python -m bevdepth_core.synthetic data/tracking_12hz --train-scenes 0 --val-scenes 8 \
        --duration 8 --image-size 800x450 --seed 7700
    python -m tests.benchmarks.tracking_sweeps --checkpoint small --root data/tracking_12hz \
        --version v1.0-synthetic --split synthetic_val --output out/tracking_12hz/sweeps.json

The detector processes the image sets in order of time, as in the node. The past frame of an image
set is about 0.5 s older.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bevdepth_core.inference import PAST_FRAME_AGE_NS, Detector
from bevdepth_core.nuscenes.images import read_image
from bevdepth_core.nuscenes.index import SampleIndex, load_index
from bevdepth_core.nuscenes.recording import CAMERA_MODALITY, SceneRecording, read_recording
from bevdepth_core.nuscenes.records import Pose, mean_pose
from bevdepth_core.nuscenes.result_file import result_boxes
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_core.nuscenes.tracking_evaluation import (
    UpdateTracks,
    detections_of_entries,
    tracking_entries,
)
from bevdepth_core.types import CameraRig, Frame


@dataclass(frozen=True)
class SweepResult:
    """The detections of one image set.

    Attributes:
        stamp_ns: mean exposure time.
        token: token of the sample if this is a key frame, otherwise empty.
        pose: world_from_ego of the ego frame in which the boxes were detected.
        is_fused: True if a past frame was used; only then are the velocities valid.
        entries: the boxes in the form of ``result_boxes``.
    """

    stamp_ns: int
    token: str
    pose: Pose
    is_fused: bool
    entries: list[dict]


def read_sweeps(path: Path, only_key_frames: bool = False) -> dict[str, list[SweepResult]]:
    """Return the image sets, or only the key frames, of each scene in order of time."""
    return {
        scene: [_sweep(values) for values in sweeps if values['token'] or not only_key_frames]
        for scene, sweeps in json.loads(path.read_text()).items()
    }


def _sweep(values: dict) -> SweepResult:
    pose = Pose(np.array(values.pop('quaternion')), np.array(values.pop('translation')))
    return SweepResult(pose=pose, **values)


def _values(sweep: SweepResult) -> dict:
    return {
        'stamp_ns': sweep.stamp_ns,
        'token': sweep.token,
        'quaternion': sweep.pose.quaternion.tolist(),
        'translation': sweep.pose.translation.tolist(),
        'is_fused': sweep.is_fused,
        'entries': sweep.entries,
    }


def image_sets(recording: SceneRecording, root: Path) -> Iterator[tuple[str, Frame, Pose]]:
    """Yield, for each trigger cycle, the image file of the first camera, the frame and the mean
    ego pose.

    All cameras must have the same number of images, as in a synthetic dataset.
    """
    streams = [one for one in recording.streams if one.modality == CAMERA_MODALITY]
    rig = CameraRig(
        tuple(stream.channel for stream in streams),
        np.stack([stream.intrinsics for stream in streams]),
        np.stack([recording.mounts[stream.channel] for stream in streams]),
    )
    for row in range(len(streams[0].stamps_ns)):
        stamps_ns = np.array([stream.stamps_ns[row] for stream in streams])
        places = np.searchsorted(recording.pose_stamps_ns, stamps_ns)
        poses = [recording.poses[place] for place in places]
        images = tuple(read_image(root / stream.filenames[row]) for stream in streams)
        world_from_ego = np.stack([pose.matrix() for pose in poses])
        frame = Frame(images, rig, stamps_ns, world_from_ego)
        yield streams[0].filenames[row], frame, mean_pose(poses)


def detect(options: argparse.Namespace) -> dict[str, list[dict]]:
    """Return the values of a ``SweepResult`` for every image set of each scene."""
    index = load_index(options.root, options.version, options.split, options.cache_dir)
    devkit = open_devkit(options.root, options.version)
    detector = Detector.from_checkpoint(options.checkpoint, options.device)
    tokens = key_frames(index)
    found = {}
    for positions in tqdm(index.scenes(), unit='scene', disable=None):
        detector.reset()
        name, sweeps = index[positions.start].scene, []
        for file, frame, pose in image_sets(read_recording(devkit, name), options.root):
            detections, token = detector(frame), tokens.get(file, '')
            is_fused = detections.past_stamp_ns is not None
            entries = result_boxes(token, detections, pose)
            sweep = SweepResult(detections.stamp_ns, token, pose, is_fused, entries)
            sweeps.append(_values(sweep))
        found[name] = sweeps
    return found


def track_sweeps(
    sweeps: dict[str, list[SweepResult]],
    class_names: tuple[str, ...],
    make_tracker: Callable[[], UpdateTracks],
) -> dict[str, list[dict]]:
    """Run a tracker on every image set, and return the entries of a tracking result for the key
    frames.
    """
    found = {}
    for scene in sweeps.values():
        follow = make_tracker()
        for one in scene:
            past_ns = one.stamp_ns - PAST_FRAME_AGE_NS if one.is_fused else None
            detections = detections_of_entries(
                one.entries, one.pose, class_names, one.stamp_ns, past_ns
            )
            tracks = follow(detections, one.pose.matrix())
            if one.token:
                found[one.token] = tracking_entries(
                    one.token, tracks.as_detections(), tracks.ids.tolist(), one.pose
                )
    return found


def key_frames(index: SampleIndex) -> dict[str, str]:
    """Return, for each image file of a key frame, the token of the sample of this key frame."""
    return {camera.filename: record.token for record in index for camera in record.cameras}


def main() -> None:
    parser = argparse.ArgumentParser(description='Detect objects in every image set of a dataset.')
    parser.add_argument('--checkpoint', required=True)
    parser.add_argument('--root', type=Path, required=True)
    parser.add_argument('--version', required=True)
    parser.add_argument('--split', required=True)
    parser.add_argument('--output', type=Path, required=True, help='the JSON file to write')
    parser.add_argument('--cache-dir', type=Path)
    parser.add_argument('--device', default='cpu')
    options = parser.parse_args()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(detect(options)))


if __name__ == '__main__':
    main()
