"""Writes synthetic drives as a dataset in the format of nuScenes v1.0, in parallel processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from bevdepth_core.nuscenes.classes import LIDAR
from bevdepth_core.nuscenes.table_files import TableFiles
from bevdepth_core.synthetic.dataset.capture import Drive, Sensors, record
from bevdepth_core.synthetic.dataset.fixed_tables import fixed_rows
from bevdepth_core.synthetic.dataset.tables import drive_rows
from bevdepth_core.synthetic.sensors.schedule import key_frame_count

VERSION = 'v1.0-synthetic'
SPLITS = ('synthetic_train', 'synthetic_val')
"""Names of the splits; the devkit has no splits with these names."""

KEY_FRAMES_PER_TASK = 10
"""Key frames per task if there are few drives, so that several processes share a drive. Otherwise
a task is a complete drive, so that the world of the drive is generated only once."""
_DRIVES_PER_JOB = 4
_START_S = {'synthetic_train': 1_767_258_000, 'synthetic_val': 1_798_794_000}
"""Unix time of the first drive of each split: 9 a.m. on 1 January 2026 and 2027. Each further
drive starts an hour later."""
_HOUR_S = 3600
_FOLDERS = (VERSION, 'maps', 'samples', 'sweeps')


@dataclass(frozen=True)
class DatasetPlan:
    """Content of a dataset.

    The same plan always gives the same files. Adding scenes to a plan does not change the existing
    scenes.

    Attributes:
        train_scenes: number of scenes in the split ``synthetic_train``.
        val_scenes: number of scenes in the split ``synthetic_val``, which have other worlds and
            calibrations than the training scenes.
        duration_s: duration of a scene, seconds; there are two key frames per second.
        sensors: sensors of all scenes.
        seed: seed of all scenes.

    Raises:
        ValueError: the plan has no scene, a negative number, too short scenes, too small images,
            or fewer than two lidar beams.
    """

    train_scenes: int
    val_scenes: int
    duration_s: float = 20.0
    sensors: Sensors = field(default_factory=Sensors)
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            min(self.train_scenes, self.val_scenes, self.seed) < 0
            or self.train_scenes + self.val_scenes == 0
        ):
            raise ValueError(
                'the numbers of scenes and the seed must not be negative, and at least one scene '
                'is needed'
            )
        if (
            key_frame_count(self.duration_s) < 1
            or self.sensors.lidar_beams < 2
            or min(self.sensors.width, self.sensors.height) < 16
        ):
            raise ValueError(
                'a scene must last at least 0.5 s; the lidar must have at least 2 beams, and the '
                'images must have at least 16x16 pixels'
            )

    def drives(self) -> dict[str, list[Drive]]:
        """Return the drives of each split."""
        counts = zip(SPLITS, (self.train_scenes, self.val_scenes), strict=True)
        return {
            split: [self._drive(split, number) for number in range(count)]
            for split, count in counts
        }

    def _drive(self, split: str, number: int) -> Drive:
        seed = int(
            np.random.SeedSequence((self.seed, SPLITS.index(split), number)).generate_state(1)[0]
        )
        start_us = (_START_S[split] + number * _HOUR_S) * 1_000_000
        return Drive(
            f'{split.removeprefix("synthetic_")}-{number + 1:04d}', seed, start_us, self.duration_s
        )


def write_dataset(
    root: str | Path,
    plan: DatasetPlan,
    *,
    jobs: int | None = None,
    force: bool = False,
    progress: bool = True,
) -> None:
    """Write the dataset that ``plan`` describes in the format of nuScenes, with the version
    ``v1.0-synthetic``.

    The function writes to the folder ``<root>.part``, and renames this folder to ``root`` when the
    dataset is complete. If the function is interrupted, it removes ``<root>.part``. If the process
    is killed, the next call removes ``<root>.part``. A script that calls this function needs
    ``if __name__ == '__main__'``, because the worker processes import the script.

    Args:
        root: folder of the new dataset.
        plan: content of the dataset.
        jobs: number of processes; None: one per processor.
        force: replace a dataset that was written by this function.
        progress: whether to show a progress bar on a terminal.

    Raises:
        FileExistsError: ``root`` is a file or contains files that are not part of a
            dataset, or ``root`` contains a dataset and ``force`` is False.
        OSError: a file cannot be written.
        BrokenProcessPool: a process was killed.
    """
    root = Path(root)
    _require_free(root, force)
    part = root.with_name(f'{root.name}.part')
    shutil.rmtree(part, ignore_errors=True)
    try:
        _write(part, plan, jobs or len(os.sched_getaffinity(0)), progress)
        if root.exists():
            shutil.rmtree(root)
        part.rename(root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _require_free(root: Path, force: bool) -> None:
    present = sorted(os.listdir(root)) if root.is_dir() else []
    if (root.exists() and not root.is_dir()) or not set(present) <= set(_FOLDERS):
        raise FileExistsError(
            f'{root} exists and was not written by this program: choose another folder'
        )
    if present and not force:
        raise FileExistsError(
            f'{root} already contains a dataset: choose another folder, or replace it with --force'
        )


def _write(root: Path, plan: DatasetPlan, jobs: int, progress: bool) -> None:
    for folder in ('samples', 'sweeps') if plan.sensors.sweeps else ('samples',):
        for channel in (*plan.sensors.rig.cameras, LIDAR):
            (root / folder / channel).mkdir(parents=True)
    (root / 'maps').mkdir()
    (root / VERSION).mkdir()
    splits = plan.drives()
    _record_drives(
        root, [drive for drives in splits.values() for drive in drives], plan, jobs, progress
    )
    named = {split: [drive.name for drive in drives] for split, drives in splits.items()}
    (root / VERSION / 'splits.json').write_text(json.dumps(named))


def _record_drives(
    root: Path, drives: Sequence[Drive], plan: DatasetPlan, jobs: int, progress: bool
) -> None:
    """Write the files of all drives in ``jobs`` processes, and the tables drive by drive in
    order.
    """
    count = key_frame_count(plan.duration_s)
    step = count if len(drives) >= _DRIVES_PER_JOB * jobs else KEY_FRAMES_PER_TASK
    blocks = [range(start, min(start + step, count)) for start in range(0, count, step)]
    bar = tqdm(
        total=count * len(drives),
        desc='rendering',
        unit='key frame',
        disable=None if progress else True,
    )
    with bar, TableFiles(root / VERSION) as tables, _workers(jobs) as pool:
        tables.add(fixed_rows(plan.sensors.rig.cameras))
        tasks = [
            [pool.submit(record, root, drive, plan.sensors, block) for block in blocks]
            for drive in drives
        ]
        for drive, parts in zip(drives, tasks, strict=True):
            key_frames = []
            for part in parts:
                key_frames += (recorded := part.result())
                bar.update(len(recorded))
            tables.add(drive_rows(drive, plan.sensors, key_frames))


@contextmanager
def _workers(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes that end immediately if the ``with`` block fails or this process
    is killed. Both events close the write end of a pipe. In each process of the pool, a thread
    waits until the pipe is closed, and then ends the process.
    """
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload([__name__])
    reader, writer = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(jobs, context, _start_worker, (reader,))
    try:
        yield pool
    except BaseException:
        writer.close()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        writer.close()


def _start_worker(reader: Connection) -> None:
    """Limit OpenCV to one thread, and ignore Ctrl-C, which the parent process handles."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_when_closed, args=(reader,), daemon=True).start()


def _exit_when_closed(reader: Connection) -> None:
    reader.poll(None)
    os._exit(1)
