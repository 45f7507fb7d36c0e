r"""Writes scenes of a dataset in nuScenes format as rosbag2 recordings.

    ros2 run bevdepth_ros nuscenes_to_bag --dataroot /data/nuscenes --version v1.0-mini \
        --scene scene-0061 --out bags

Each scene becomes the bag ``<out>/<scene>``. A bag contains all images of key frames and sweeps
(the unchanged JPEG files), CameraInfo, lidar scans, ego poses as /tf, mounting poses as
/tf_static, and the annotations of the key frames. The module ``writer`` lists the topics and
frames. Stamps and log times are the times of the dataset.
"""

from __future__ import annotations

import argparse
import difflib
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bevdepth_core.nuscenes.completeness import (
    consistent,
    read_json,
    require_files,
    require_scene_names,
    require_tables,
)
from bevdepth_core.nuscenes.recording import SceneRecording, read_recording
from bevdepth_core.nuscenes.splits import split_scenes
from bevdepth_core.nuscenes.tables import open_devkit
from bevdepth_ros.bags.scene_bag import SceneError, Target, key_frames_only, write_bag
from bevdepth_ros.bags.temporary_folder import require_replaceable
from bevdepth_ros.bags.writer import STORAGES
from bevdepth_ros.signals import end_with_ros2_run

PROGRESS_S = 0.2


def write_bags(recordings: Sequence[SceneRecording], target: Target, jobs: int = 1) -> None:
    """Write several scenes, ``jobs`` at a time, with a progress bar.

    Raises:
        SceneError: a scene was not written. Bags that are already complete are kept.
    """
    total = sum(len(recording.filenames()) for recording in recordings)
    with tqdm(total=total, desc='writing bags', unit='file', disable=None) as bar:
        if min(jobs, len(recordings)) > 1:
            _write_in_processes(recordings, target, min(jobs, len(recordings)), bar)
        else:
            for recording in recordings:
                write_bag(recording, target, bar.update)


def _write_in_processes(
    recordings: Sequence[SceneRecording], target: Target, jobs: int, bar: tqdm
) -> None:
    context = get_context('forkserver')
    context.set_forkserver_preload([write_bag.__module__])
    counter, stop = context.Value('q', 0), context.Event()
    with ProcessPoolExecutor(jobs, context, _begin_work, (counter, stop)) as pool:
        try:
            pending = {pool.submit(_work, recording, target) for recording in recordings}
            while pending:
                done, pending = wait(pending, PROGRESS_S, FIRST_COMPLETED)
                bar.update(counter.value - bar.n)
                _require_done(done)
        except BaseException as error:
            stop.set()
            if isinstance(error, KeyboardInterrupt):
                print('stopping: unfinished bags are removed', file=sys.stderr, flush=True)
            pool.shutdown(cancel_futures=True)
            raise


def _require_done(futures: set[Future]) -> None:
    try:
        for future in futures:
            future.result()
    except BrokenProcessPool as error:
        raise SceneError(
            'a process that wrote a bag was killed, probably because the memory was full: '
            'set --jobs to a smaller number'
        ) from error


_progress: tuple[Any, Any] | None = None
"""In a worker process: the counter of the files of all workers, and the event that stops the work.
These two objects are shared with the main process. In the main process: None."""


def _begin_work(counter: Any, stop: Any) -> None:
    """Prepare a worker process. The worker ignores SIGINT, because the main process handles this
    signal for all processes.
    """
    global _progress
    _progress = counter, stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(recording: SceneRecording, target: Target) -> None:
    write_bag(recording, target, _count)


def _count() -> None:
    if _progress is None:
        raise RuntimeError('the worker process was not prepared by _begin_work')
    counter, stop = _progress
    if stop.is_set():
        raise SceneError('stopped')
    with counter.get_lock():
        counter.value += 1


def chosen_scenes(dataroot: Path, version: str, names: Sequence[str] | None) -> list[str]:
    """Return the names of the chosen scenes in the order of the scene table. If ``names`` is None,
    all scenes are chosen.

    Raises:
        SceneError: one of ``names`` is not the name of a scene.
        ValueError: a table is missing or truncated, or the name of a scene cannot be the name of a
            folder.
    """
    require_tables(dataroot, version)
    with consistent(dataroot / version):
        present = [scene['name'] for scene in read_json(dataroot / version / 'scene.json')]
    require_scene_names(dataroot / version, present)
    for name in names or ():
        if name not in present:
            near = difflib.get_close_matches(name, present, 3) or present[:3]
            raise SceneError(
                f'{dataroot / version} has no scene {name}; it has {len(present)} scenes, such as '
                f'{", ".join(near)}'
            )
    return present if names is None else [name for name in present if name in names]


def read_recordings(
    dataroot: Path, version: str, names: Sequence[str]
) -> tuple[list[SceneRecording], list[str]]:
    """Return the complete scenes, and a sentence for each scene that is not complete."""
    devkit = open_devkit(dataroot, version)
    recordings, problems = [], []
    for name in tqdm(names, desc='reading tables', unit='scene', disable=None):
        try:
            with consistent(dataroot / version):
                recording = read_recording(devkit, name)
            require_files(dataroot, recording.filenames())
            recordings.append(recording)
        except ValueError as error:
            problems.append(f'{name} is left out: {error}')
    return recordings, problems


def run(options: argparse.Namespace) -> list[str]:
    """Convert the selected scenes; return a sentence for each scene that was left out.

    Raises:
        SceneError: a bag was not written, or a scene does not exist.
        ValueError: the tables are incomplete or contain invalid names, or the split is unknown.
        FileExistsError: the output path exists and is not a bag.
    """
    names = chosen_scenes(options.dataroot, options.version, options.scene)
    if options.split is not None:
        names = split_scenes(options.dataroot, options.version, options.split)
    for name in names:
        require_replaceable(options.out / name)
    recordings, problems = read_recordings(options.dataroot, options.version, names)
    if options.key_frames:
        recordings = [key_frames_only(recording) for recording in recordings]
    write_bags(
        recordings,
        Target(options.dataroot, options.out, options.storage, options.raw),
        options.jobs,
    )
    for recording in recordings:
        print(options.out / recording.name)
    return problems


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        'nuscenes_to_bag',
        description='Write scenes of a nuScenes-format dataset as rosbag2 recordings.',
    )
    _add_scene_options(parser)
    _add_bag_options(parser)
    return parser.parse_args(argv)


def _add_scene_options(parser: argparse.ArgumentParser) -> None:
    text = 'root of the dataset, with the folders samples and sweeps, and the folder of the tables'
    parser.add_argument('--dataroot', type=Path, required=True, help=text)
    parser.add_argument('--version', required=True, help='folder of the tables, such as v1.0-mini')
    which = parser.add_mutually_exclusive_group(required=True)
    text = 'scenes with these names, such as scene-0061'
    which.add_argument('--scene', nargs='+', metavar='NAME', help=text)
    text = 'the scenes of a split, such as mini_val or synthetic_val'
    which.add_argument('--split', metavar='NAME', help=text)
    which.add_argument('--all', action='store_true', help='all scenes')
    text = 'leave out the sweeps between key frames; a bag then has two image sets per second'
    parser.add_argument('--key-frames', action='store_true', help=text)


def _add_bag_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = 'each scene becomes the folder DIR/<scene>'
    add('--out', type=Path, required=True, metavar='DIR', help=text)
    add('--storage', choices=STORAGES, default='mcap', help='format of the bags (default mcap)')
    text = 'write decoded images (sensor_msgs/Image) in place of the JPEG files'
    add('--raw', action='store_true', help=text)
    text = 'number of scenes that are written at the same time (default: one per core)'
    add('--jobs', type=int, default=os.cpu_count(), metavar='N', help=text)


def main(argv: Sequence[str] | None = None) -> None:
    """Convert the scenes. The exit status is 1 if a scene was not written, and 130 after an
    interruption.
    """
    options = _options(argv)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    end_with_ros2_run()
    try:
        problems = run(options)
    except (SceneError, ValueError, FileExistsError) as error:
        sys.exit(f'nuscenes_to_bag: {error}')
    except KeyboardInterrupt:
        sys.exit(130)
    if problems:
        sys.exit('\n'.join(f'nuscenes_to_bag: {problem}' for problem in problems))


if __name__ == '__main__':
    main()
